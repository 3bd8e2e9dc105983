"""Figure ``robustness_groups`` and its tables: what low light does to whom."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from agr_lab.evidence.markdown import error_cell, markdown_table
from agr_lab.evidence.panels import draw_forests
from agr_lab.evidence.register import FIGURES
from agr_lab.evidence.robustness.sweeps import NO_SWEEPS, RobustnessEvidence, read_robustness, with_matters
from agr_utils.data.corruptions import SEVERITIES
from agr_utils.inside.sweep import SWEPT_ERRORS, Sweep
from agr_utils.measure.bootstrap import interval
from agr_utils.measure.comparisons import add_calls
from agr_utils.measure.fairness import ERRORS, group_members
from agr_utils.measure.results import read_labels_from_split
from agr_utils.tasks import LabelScheme, get_scheme

GROUP_CORRUPTION, GROUP_SEVERITY = "low_light", 3


def group_differences(
    swept: Sweep, faces: pd.DataFrame, scheme: LabelScheme, corruption: str, severity: int
) -> pd.DataFrame:
    """Is a group hurt more than everybody else, by one corruption and severity?

    Returns:
        Rows ``grouping, group, count, error, value, low, high, p, …`` with calls: the increase of everybody else's
        error minus that of the group's; below 0, the group is hurt more.
    """
    labels = faces.set_index("image_id").loc[swept.image_ids].reset_index()
    increase = swept.values[:, swept.conditions.index((corruption, severity))] - swept.values[:, 0]  # (n, errors)
    bootstrap, parts = swept.bootstrap(), []
    for grouping in ("gender", "race"):
        members = group_members(labels, scheme, grouping)
        known = members.any(axis=1)
        for name, inside in members.items():
            sets = np.stack([inside, known & ~inside], axis=1)
            samples = bootstrap.group_means(increase, sets)  # (R + 1, errors, 2)
            found = interval(samples[:, :, 1] - samples[:, :, 0])
            found.insert(0, "error", swept.errors)
            parts.append(found.assign(grouping=grouping, group=name, count=int(inside.sum())))
    columns = ["error", "value", "low", "high", "p", "grouping", "group", "count"]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    labels_only = table[["grouping", "group", "count", "error"]]
    return add_calls(with_matters(labels_only, table.drop(columns=labels_only.columns)))


def group_increases(evidence: RobustnessEvidence) -> pd.DataFrame:
    """Are some groups hurt more by low light? See ``group_differences``; empty without MobileNetV3."""
    swept = evidence.long.get("mobilenet_v3")
    if swept is None:
        return pd.DataFrame(columns=["grouping", "group", "count", "error", "value", "low", "high", "call"])
    faces = read_labels_from_split()
    return group_differences(swept, faces, get_scheme("utkface"), GROUP_CORRUPTION, GROUP_SEVERITY)


@FIGURES.add(
    "robustness_groups",
    "Does low light (severity 3) hurt some groups more? Published MobileNetV3. Filled: holds after correction",
    read_robustness,
)
def draw_robustness_groups(evidence: RobustnessEvidence) -> tuple[plt.Figure, pd.DataFrame]:
    """Increase of the errors by labelled group."""
    table = group_increases(evidence)
    shown = table.assign(group=table["group"] + table["count"].map(" ({:,})".format))
    label = "against all others ({unit})\n← hurt more      hurt less →"
    return draw_forests(shown, SWEPT_ERRORS, ("error", "group", ""), label, 4), table


def robustness_groups_table(evidence: RobustnessEvidence) -> str:
    """Increase of everybody else's error in low light minus that of each group's."""
    marks = {"worse": " **hurt more**", "better": " **hurt less**"}
    cells = []
    for group, rows in group_increases(evidence).groupby("group", sort=False):
        own = rows.set_index("error")
        found = [
            error_cell(own.loc[error], ERRORS[error].in_years, "+") + marks.get(own.loc[error, "call"], "")
            for error in SWEPT_ERRORS
        ]
        cells.append([group, f"{rows['count'].iloc[0]:,}", *found])
    titles = [ERRORS[error].change_title for error in SWEPT_ERRORS]
    return markdown_table(["Group", "Faces", *titles], cells, NO_SWEEPS)


def answers_in_the_dark(evidence: RobustnessEvidence) -> pd.DataFrame:
    """What the published MobileNetV3 answers the less it sees; empty without it.

    A row a severity of low light: ``age`` (mean answer, years), ``age_spread`` (its standard deviation), ``male``
    (share so answered), and for each race the share of those labelled so who are answered rightly.
    """
    swept = evidence.long.get("mobilenet_v3")
    if swept is None:
        return pd.DataFrame()
    labels = read_labels_from_split().set_index("image_id").loc[swept.image_ids]
    age, gender, race = (labels[name].to_numpy(dtype=float, na_value=np.nan) for name in ("age", "gender", "race"))
    rows = {}
    for condition in [("clean", 0), *((GROUP_CORRUPTION, severity) for severity in SEVERITIES)]:
        place = swept.conditions.index(condition)
        wrong = dict(zip(swept.errors, swept.values[:, place].T, strict=True))
        answered = swept.signed_age[:, place] + age
        female = np.where(wrong["gender_error"] == 1, 1 - gender, gender)
        row = {"age": np.nanmean(answered), "age_spread": np.nanstd(answered), "male": 1 - np.nanmean(female)}
        for code, name in enumerate(get_scheme("utkface").race):
            row[name] = 1 - wrong["race_error"][race == code].mean()
        rows[condition[1]] = row
    return pd.DataFrame(rows).T.rename_axis("severity")


def darkness_table(evidence: RobustnessEvidence) -> str:
    """What MobileNetV3 answers the less it sees: a row a severity."""
    table = answers_in_the_dark(evidence)
    races = [name for name in table if name not in ("age", "age_spread", "male")]
    rows = []
    for severity, row in table.iterrows():
        cells = [severity, f"{row['age']:.0f} ± {row['age_spread']:.0f}", f"{100 * row['male']:.0f}"]
        rows.append([*cells, *(f"{100 * row[race]:.0f}" for race in races)])
    titles = ["Severity", "Mean age answered (years)", "Answered male (%)", *(f"{race}: right (%)" for race in races)]
    return markdown_table(titles, rows, NO_SWEEPS)
