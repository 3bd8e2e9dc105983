"""How many ages the shipped file's own interval holds, by the age that it answers: the test split of UTKFace.

The interval's ends come out of the ONNX file, one look at each face. Nothing is chosen by this. Writes
results/shipped_intervals.csv:
AGR_DATA_DIR=… python tools/file_intervals.py
"""

import argparse

import numpy as np
import pandas as pd

from agr_utils.data.faces import age_band
from agr_utils.data.load import load_data
from agr_utils.data.splits import groups_of
from agr_utils.deploy.model import SHIPPED_MODEL, FaceModel
from agr_utils.machine import repository_root
from agr_utils.measure.bootstrap import GroupBootstrap
from agr_utils.measure.calibration import coverage_table


def main() -> None:
    """Answer for every test face, and count."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    model = FaceModel(SHIPPED_MODEL)
    data = load_data("utkface", model.size, skip_unreadable=True)
    faces = data.faces.iloc[data.rows("test")].reset_index(drop=True)
    outputs = [model.run(data.pixels[row], ("age",)) for row in data.rows("test")]
    low, high = np.stack([output["age_interval"] for output in outputs]).T
    table = faces.assign(age_pred=np.stack([output["age_mean"] for output in outputs]), age_lo=low, age_hi=high)
    bands = pd.get_dummies(age_band(table["age_pred"]), dtype=bool)
    bands.columns = bands.columns.astype(str)
    bands.insert(0, "all", True)
    found = coverage_table(table, bands, GroupBootstrap(groups_of(table["image_id"])))
    found = found.rename_axis("predicted_age").reset_index().assign(model_sha256=model.sha256[:16])
    print(found.to_string())
    found.to_csv(repository_root() / "results" / "shipped_intervals.csv", index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
