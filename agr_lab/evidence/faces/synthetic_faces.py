"""Figure ``synthetic_faces``: the embedded data."""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence.register import FIGURES
from agr_utils.data.synthetic import draw_faces
from agr_utils.measure.plots import plot_faces
from agr_utils.tasks import get_scheme


@FIGURES.add(
    "synthetic_faces",
    "The embedded faces: what codes a label is an arbitrary shape in a known place (and is sometimes drawn wrong)",
    None,
)
def draw_synthetic_faces() -> tuple[plt.Figure, pd.DataFrame]:
    """Two rows of the embedded faces with their labels."""
    drawn, scheme = draw_faces(100, 64, seed=0), get_scheme("synthetic")
    rows = drawn.faces.head(16)
    titles = [
        f"{age:.0f}, {scheme.gender[g]}, {scheme.race[r]}"
        for age, g, r in zip(rows.age, rows.gender, rows.race, strict=True)
    ]
    return plot_faces(drawn.pixels[:16], titles)[0, 0].figure, rows[["image_id", "age", "gender", "race"]]
