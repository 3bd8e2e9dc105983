"""Ablations: runs that differ in one setting, against the usual one on the same faces (docs/protocol.md)."""

import numpy as np
import pandas as pd

from agr_utils.errors import InputError
from agr_utils.measure.bootstrap import GroupBootstrap, interval
from agr_utils.measure.metrics import improvement_signs, score_rows
from agr_utils.measure.results import Run

USUAL = {"balancing": "equal weights", "age_heads": "distribution"}  # ablation -> setting of all other runs
VARIED = {"balancing": ("balancing", "task_weights", "conflict_steps"), "age_heads": ("age_head",)}
SPLIT = "validation"


def setting_title(run: Run, ablation: str) -> str:
    """What sets a run of an ablation apart, in a few words."""
    config = run.config
    if ablation == "age_heads":
        return config.age_head
    if config.balancing != "fixed":
        return config.balancing
    weights = [f"{task} × {weight:g}" for task, weight in config.task_weights.items() if weight != 1]
    return ", ".join(weights) or USUAL[ablation]


def runs_by_setting(runs: list[Run], ablation: str) -> dict[str, Run]:
    """Runs by title of their setting.

    Raises:
        InputError: if one differs in more than the ablation varies, or two have one setting.
    """
    titles: dict[str, Run] = {}
    for run in runs:
        ours, theirs = (one.config.to_dict() | {"precision": one.about.get("precision")} for one in (run, runs[0]))
        different = [key for key in ours if key not in VARIED[ablation] and ours[key] != theirs[key]]
        if different:
            raise InputError(f"{run.run_id}: has another {', '.join(different)} than {runs[0].run_id}. Keep one kind")
        title = setting_title(run, ablation)
        if title in titles:
            raise InputError(f"two runs of one setting, {title}: {titles[title].run_id}, {run.run_id}. Keep one")
        titles[title] = run
    return titles


def setting_table(runs: list[Run], ablation: str) -> pd.DataFrame:
    """Metrics of each setting, and by how much they are better than those of the usual one.

    Args:
        runs: of the ablation.
        ablation: a key of USUAL.

    Returns:
        Rows ``setting, metric, absolute, value, low, high``: ``absolute`` is the metric and ``value`` what the setting
        improves (above 0 is better), paired by face; NaN for the usual setting, which comes first, and without it.

    Raises:
        InputError: see ``runs_by_setting``.
    """
    titles = runs_by_setting(runs, ablation)
    usual = USUAL[ablation]
    parts = []
    for title in sorted(titles, key=lambda title: (title != usual, title)):
        table, groups = titles[title].split(SPLIT)
        scores = score_rows(table)
        part = pd.DataFrame({"setting": title, "metric": list(scores), "absolute": scores.mean().to_numpy()})
        if title != usual and usual in titles:
            reference = titles[usual].split(SPLIT)[0].set_index("image_id").loc[table["image_id"]].reset_index()
            gains = improvement_signs(scores) * (scores - score_rows(reference))
            part = part.join(interval(GroupBootstrap(groups).means(gains.to_numpy())).drop(columns="p"))
        parts.append(part)
    columns = ["setting", "metric", "absolute", "value", "low", "high"]
    return pd.concat(parts, ignore_index=True).reindex(columns=columns) if parts else pd.DataFrame(columns=columns)


def gradient_agreement(history: pd.DataFrame) -> pd.DataFrame:
    """Over a whole training, how far the gradients of each two tasks agree.

    Args:
        history: of a run with ``conflict_steps``: the mean ``cosine_…`` of each epoch, and the share of the steps at
            which two tasks pulled apart, ``conflict_…``.

    Returns:
        Rows ``pair, measure, value, low, high``, ``measure`` being ``cosine`` or ``conflict``. Means over the steps;
        intervals by drawing epochs again, which takes epochs for independent and so is too narrow rather than too wide.
    """
    steps = history["step"].diff().fillna(history["step"]).to_numpy()
    measured = history.filter(regex="^(cosine|conflict)_").notna().all(axis=1)  # a last epoch may be too short for it
    history, steps = history[measured], steps[measured]
    labels = [name.split("_", 1) for name in history if name.startswith(("cosine_", "conflict_"))]
    weighted = np.stack([steps * history["_".join(label)] for label in labels] + [steps], axis=1)
    sums = GroupBootstrap(np.arange(len(history))).sums(weighted)
    table = pd.DataFrame(labels, columns=["measure", "pair"])
    return table.join(interval(sums[:, :-1] / sums[:, -1:]).drop(columns="p"))


def watched_history(runs: list[Run]) -> pd.DataFrame | None:
    """History of the run whose gradients were compared while it trained; None if there is none."""
    return next((run.history for run in runs if "cosine_age_gender" in run.history), None)
