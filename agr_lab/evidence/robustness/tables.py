"""Tables of robustness in docs/looking_inside.md."""

import pandas as pd

from agr_lab.evidence.markdown import error_cell, header_lines, table_line
from agr_lab.evidence.robustness.evidence import (
    COMPARED,
    RobustnessEvidence,
    answers_in_the_dark,
    augmentation_increases,
    group_increases,
    mean_errors,
    multitask_increases,
)
from agr_utils.data.corruptions import CORRUPTIONS
from agr_utils.inside.sweep import CLEAN, SWEPT_ERRORS
from agr_utils.measure.comparisons import count_calls
from agr_utils.measure.fairness import ERRORS
from agr_utils.models.backbones import get_backbone

NOT_YET = "No finished sweeps yet."


def corruptions_table() -> str:
    """The corruptions and their strengths."""
    lines = header_lines(["Corruption", "Name", "Severities 1 to 5", "What the number is"])
    for name, corruption in CORRUPTIONS.items():
        strengths = ", ".join(f"{value:g}" for value in corruption.strengths)
        lines.append(table_line([corruption.title, f"`{name}`", strengths, corruption.meaning]))
    return "\n".join(lines)


def mean_errors_table(evidence: RobustnessEvidence, error: str) -> str:
    """One error of each architecture, averaged over the severities: a row a corruption."""
    columns = {get_backbone(name).title: swept for name, swept in evidence.architectures.items()}
    columns |= {f"{get_backbone(name).title}, long": swept for name, swept in evidence.long.items()}
    if not columns:
        return NOT_YET
    tables = {title: mean_errors(swept) for title, swept in columns.items()}
    lines = header_lines(["Corruption", *tables])
    for corruption in (CLEAN, *CORRUPTIONS):
        cells = []
        for table in tables.values():
            row = table[(table["corruption"] == corruption) & (table["error"] == error)].iloc[0]
            cells.append(_cell(row, error))
        title = "*as they are*" if corruption == CLEAN else CORRUPTIONS[corruption].title
        lines.append(table_line([title, *cells]))
    return "\n".join(lines)


def _cell(row: pd.Series, error: str, sign: str = "") -> str:
    return error_cell(row, ERRORS[error].in_years, sign)


def multitask_table(evidence: RobustnessEvidence) -> str:
    """How often a multi-task model is hurt less or more than single-task ones, by task."""
    lines = header_lines(
        ["Architecture", "Error", "Hurt less", "Hurt more", "No difference that matters", "Cannot tell", "Mean"]
    )
    for name in COMPARED:
        table = multitask_increases(evidence, name)
        for error in SWEPT_ERRORS if len(table) else ():
            own = table[table["error"] == error]
            calls = count_calls(own["call"])
            years = ERRORS[error].in_years
            mean = f"{own['value'].mean():+.2f} years" if years else f"{100 * own['value'].mean():+.1f} points"
            lines.append(
                table_line(
                    [get_backbone(name).title, ERRORS[error].label, *(str(count) for count in calls.values()), mean]
                )
            )
    return "\n".join(lines) if len(lines) > 2 else NOT_YET


def groups_table(evidence: RobustnessEvidence) -> str:
    """Increase of everybody else's error in low light minus that of each group's."""
    table = group_increases(evidence)
    if table.empty:
        return NOT_YET
    lines = header_lines(["Group", "Faces", *(ERRORS[error].change_title for error in SWEPT_ERRORS)])
    for group, rows in table.groupby("group", sort=False):
        own = rows.set_index("error")
        cells = [
            f"{_cell(own.loc[error], error, '+')} {_mark(own.loc[error, 'call'])}".strip() for error in SWEPT_ERRORS
        ]
        lines.append(table_line([group, f"{rows['count'].iloc[0]:,}", *cells]))
    return "\n".join(lines)


def _mark(call: str) -> str:
    return {"worse": "**hurt more**", "better": "**hurt less**"}.get(call, "")


def darkness_table(evidence: RobustnessEvidence) -> str:
    """What MobileNetV3 answers the less it sees: a row a severity."""
    table = answers_in_the_dark(evidence)
    if table.empty:
        return NOT_YET
    races = [name for name in table if name not in ("age", "age_spread", "male")]
    lines = header_lines(
        ["Severity", "Mean age answered (years)", "Answered male (%)", *(f"{race}: right (%)" for race in races)]
    )
    for severity, row in table.iterrows():
        cells = [f"{severity}", f"{row['age']:.0f} ± {row['age_spread']:.0f}", f"{100 * row['male']:.0f}"]
        lines.append(table_line([*cells, *(f"{100 * row[race]:.0f}" for race in races)]))
    return "\n".join(lines)


def augmentation_table(evidence: RobustnessEvidence) -> str:
    """How much more a model is hurt that was trained without some augmentation: a row a corruption and error."""
    tables = augmentation_increases(evidence)
    if not tables:
        return NOT_YET
    lines = header_lines(["Corruption", "Error", *(f"trained with {name}" for name in tables)])
    for corruption in CORRUPTIONS:
        for error in SWEPT_ERRORS:
            cells = []
            for table in tables.values():
                row = table[(table["corruption"] == corruption) & (table["error"] == error)].iloc[0]
                cells.append(_cell(row, error, "+"))
            lines.append(table_line([CORRUPTIONS[corruption].title, ERRORS[error].change_title, *cells]))
    return "\n".join(lines)


def robustness_tables(evidence: RobustnessEvidence) -> dict[str, str]:
    """Each table of docs/looking_inside.md about robustness, by the name of its markers."""
    return {
        "corruptions": corruptions_table(),
        **{f"robustness-{error}": mean_errors_table(evidence, error) for error in SWEPT_ERRORS},
        "robustness-multitask": multitask_table(evidence),
        "robustness-groups": groups_table(evidence),
        "robustness-darkness": darkness_table(evidence),
        "robustness-augmentation": augmentation_table(evidence),
    }
