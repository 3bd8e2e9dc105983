"""Figure ``twins``: how far the labels of near-duplicates differ."""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence.register import FIGURES
from agr_utils.measure.results import read_labels_from_split


@FIGURES.add("twins", "The label-noise floor: the same photograph, filed under two ages", None)
def draw_twins() -> tuple[plt.Figure, pd.DataFrame]:
    """How far the age labels of near-duplicate photographs differ."""
    ages = read_labels_from_split().groupby("group")["age"].agg(["min", "max", "size"])
    twins = ages[ages["size"] > 1].astype(float)
    difference = twins["max"] - twins["min"]
    figure, ax = plt.subplots(figsize=(7, 3.6))
    ax.hist(difference.clip(upper=30), bins=range(0, 32), color="#0072B2")
    ax.axvline(difference.mean(), color="#D55E00", lw=2)
    ax.annotate(f"mean {difference.mean():.1f} years", (difference.mean(), ax.get_ylim()[1]), xytext=(6, -14),
                textcoords="offset points", color="#D55E00")  # fmt: skip
    ax.set_xlabel("largest age difference in a cluster (years; 30 = 30 or more)")
    ax.set_ylabel(f"clusters (of {len(difference)})")
    counts = difference.value_counts().sort_index()
    return figure, counts.rename_axis("largest_age_difference").rename("clusters").reset_index()
