"""Figure ``labels``: who is in UTKFace."""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence.register import FIGURES
from agr_utils.measure.plots import plot_label_counts
from agr_utils.measure.results import read_labels_from_split
from agr_utils.tasks import TASKS, get_scheme


@FIGURES.add("labels", "UTKFace is young and unbalanced: labels of the 21,288 faces used here", None)
def draw_labels() -> tuple[plt.Figure, pd.DataFrame]:
    """Label counts of the real faces."""
    faces, scheme = read_labels_from_split(), get_scheme("utkface")
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), width_ratios=(2, 1, 1.6))
    plot_label_counts(faces, scheme, axes)
    figure.tight_layout()
    counts = {task: faces[task].dropna().astype(int).value_counts().sort_index() for task in TASKS}
    names = {"age": str, "gender": scheme.gender.__getitem__, "race": scheme.race.__getitem__}
    rows = [(task, names[task](code), count) for task in TASKS for code, count in counts[task].items()]
    return figure, pd.DataFrame(rows, columns=["task", "label", "faces"])
