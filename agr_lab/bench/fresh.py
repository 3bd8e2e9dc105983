"""A function of ``processes`` in a process of its own: ``python -m agr_lab.bench.fresh measure_memory '{…}'``."""

import json
import sys
import time
from importlib import import_module

if __name__ == "__main__":
    clock = time.perf_counter()
    processes = import_module("agr_lab.bench.processes")
    import_seconds = time.perf_counter() - clock
    measured = getattr(processes, sys.argv[1])(**json.loads(sys.argv[2]))
    print(json.dumps(measured | {"import_seconds": import_seconds}))
