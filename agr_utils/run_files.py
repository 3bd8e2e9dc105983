"""What lies in a run folder, by name. Reading a finished run needs nothing else of what trains."""

CONFIG_FILE, HISTORY_FILE = "config.json", "history.csv"
CHECKPOINT_FILE, PREDICTIONS_FILE = "checkpoint.safetensors", "predictions.parquet"
STATE_FILE, PREVIOUS_STATE_FILE = "state.safetensors", "state.previous.safetensors"  # while it trains
LOCK_FILE, BAD_BATCH_FILE = "run.lock", "bad_batch.json"
ERROR_FILE, LOG_FILE = "error.txt", "log.txt"  # of agr study
MAPS_FOLDER, SWEEP_FILE = "maps", "robustness.parquet"  # of agr explain and agr robustness
