"""The verdicts: what docs/protocol.md makes of the differences, whichever way they fall."""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from agr_lab.evidence.architectures import deployment
from agr_lab.evidence.architectures.pairs import NEWER, OLDER, against, pair_differences, runs_of
from agr_lab.evidence.architectures.pareto import cost_table, front_table
from agr_lab.evidence.markdown import error_cell, error_number, markdown_table
from agr_lab.evidence.multitask import multitask
from agr_lab.evidence.multitask.gaps import gap_differences
from agr_lab.evidence.reading import Evidence
from agr_utils.measure.comparisons import MATTERS, count_calls
from agr_utils.measure.metrics import METRICS
from agr_utils.models.backbones import BACKBONES, get_backbone

SEVERAL_SEEDS, NUM_SEEDS = ("custom_cnn", "mobilenet_v3"), 3
NUM_FRONTS, OFF_FRONTS = 12, 6  # off so many of the Pareto fronts the efficiency is "not supported"
C1, C2 = "C1: multi-task learning improves each task", "C2: multi-task learning reduces bias"
C3, C3_TEST = "C3: MobileNetV3 and EfficientNet-B3 beat the older ones", "equal computing time"
C3_ACCURACY, C3_EFFICIENCY = f"{C3}, in accuracy", f"{C3}, in efficiency"
C4 = "C4: they suit devices with few resources"
RULES = {
    C1: "in each task at least three of five architectures are better and none is worse",
    C2: "at least four of 16 gaps are smaller and none is larger",
    C3_ACCURACY: "each newer network is better in at least two tasks and worse in none, against each older one",
    C3_EFFICIENCY: "both newer networks lie on all twelve Pareto fronts",
    C4: "MobileNetV3 fits, is fast and no other of the five is a better choice, under either reading, on every "
    "device measured",
}
SUPPORTED, NOT_SUPPORTED, CANNOT_TELL = "supported", "not supported", "cannot tell"


@dataclass(frozen=True)
class Finding:
    """A row of the claims table."""

    claim: str  # its number and text
    compared_at: str  # the condition
    verdict: str  # of the protocol; "not finished" while runs are missing
    found: str  # what was measured, with intervals
    figure: str  # name of the figure that shows it
    brief: str = "–"  # what was found, in a few words
    lacking: str = ""  # seeds that the protocol asks for and that are not trained yet: the verdict is one so far

    @property
    def verdict_so_far(self) -> str:
        """The verdict, and whether it may still change."""
        return f"{self.verdict} so far" if self.lacking else self.verdict


def all_findings(evidence: Evidence) -> list[Finding]:
    """Every row of the claims table, from the committed results."""
    if not evidence.runs:
        return []
    findings = [find(evidence, comparison) for find in (find_multitask, find_gaps) for comparison in ("a", "b")]
    return [*findings, find_accuracy(evidence), find_efficiency(evidence), find_deployment(evidence)]


def claims_rows(evidence: Evidence) -> pd.DataFrame:
    """The findings as a table: ``claim, compared_at, verdict, found, figure, brief, lacking, rule``."""
    columns = ["claim", "compared_at", "verdict", "found", "figure", "brief", "lacking", "rule"]
    rows = [asdict(one) | {"verdict": one.verdict_so_far, "rule": RULES[one.claim]} for one in all_findings(evidence)]
    return pd.DataFrame(rows, columns=columns)


def claims_table(evidence: Evidence) -> str:
    """What became of each claim under each condition: verdict, what was found, what is missing, and the rule."""
    rows = [
        [row.claim, row.compared_at, f"**{row.verdict}**", row.found, row.lacking or "nothing", row.rule,
         f"[{row.figure}](../figures/{row.figure}.png)"]
        for row in claims_rows(evidence).itertuples()
    ]  # fmt: skip
    titles = ["Claim", "Condition", "Verdict", "Found (test split, 95 % intervals)", "Trainings still missing",
              "It would be supported if", "Figure"]  # fmt: skip
    return markdown_table(titles, rows)


def claims_summary(evidence: Evidence) -> str:
    """A row per claim: its verdict and what was found, under each condition where there are several."""
    rows = []
    for claim, found in claims_rows(evidence).groupby("claim", sort=False):
        several = len(found) > 1
        where = [f"{name.split(') ')[-1]}: " if several else "" for name in found["compared_at"]]
        verdicts = "; ".join(f"{at}**{verdict}**" for at, verdict in zip(where, found["verdict"], strict=True))
        briefs = "; ".join(f"{at}{brief}" for at, brief in zip(where, found["brief"], strict=True))
        rows.append([claim, verdicts, briefs, f"[{found['figure'].iloc[0]}](figures/{found['figure'].iloc[0]}.png)"])
    return markdown_table(["Claim", "Verdict", "What was found", "Figure"], rows)


def verdict_multitask(calls: pd.Series) -> str:
    """C1 for one task: from the calls of five architectures."""
    counts = count_calls(calls)
    if counts["better"] >= 3 and not counts["worse"]:
        return SUPPORTED
    return NOT_SUPPORTED if counts["worse"] + counts["no difference"] >= 3 else CANNOT_TELL


def verdict_gaps(calls: pd.Series) -> str:
    """C2: from the calls of 16 gaps, of which "better" are smaller."""
    counts = count_calls(calls)
    if counts["better"] >= 4 and not counts["worse"]:
        return SUPPORTED
    larger_only = counts["worse"] >= 4 and not counts["better"]
    return NOT_SUPPORTED if larger_only or counts["no difference"] >= 12 else CANNOT_TELL


def verdict_accuracy(pairs: pd.DataFrame, name: str) -> str:
    """C3, accuracy: one newer architecture against the older ones."""
    counts = [count_calls(against(pairs, name, other)) for other in OLDER]
    if all(count["better"] >= 2 and not count["worse"] for count in counts):
        return SUPPORTED
    return NOT_SUPPORTED if any(count["worse"] >= 2 for count in counts) else CANNOT_TELL


def verdict_efficiency(fronts: pd.DataFrame, name: str) -> str:
    """C3, efficiency: one newer architecture on twelve Pareto fronts."""
    on = int(fronts[name].sum())
    if on == len(fronts):
        return SUPPORTED
    return NOT_SUPPORTED if len(fronts) - on >= OFF_FRONTS else CANNOT_TELL


def verdict_of_all(verdicts: list[str]) -> str:
    """A claim of several parts: supported if all are, not supported if one is not."""
    if NOT_SUPPORTED in verdicts:
        return NOT_SUPPORTED
    return SUPPORTED if set(verdicts) == {SUPPORTED} else CANNOT_TELL


def find_multitask(evidence: Evidence, comparison: str) -> Finding:
    """C1 under one comparison."""
    claim, test = C1, multitask.comparison_title(comparison)
    table = multitask.multitask_differences(evidence, comparison)
    done = table["backbone"].nunique()
    if done < len(BACKBONES):
        return Finding(claim, test, f"not finished ({done} of {len(BACKBONES)} architectures)", "–", "multitask")
    calls = {metric: table.loc[table["metric"] == metric, "call"] for metric in MATTERS}
    verdicts = {metric: verdict_multitask(calls[metric]) for metric in MATTERS}
    means = multitask.mean_multitask_differences(evidence, comparison).set_index("metric")
    parts, briefs = [], []
    for metric in MATTERS:
        counts, record = count_calls(calls[metric]), METRICS[metric]
        parts.append(
            f"{record.label} {error_cell(means.loc[metric], record.in_years, '+')} {record.change_unit}, "
            f"{counts['better']} better and {counts['worse']} worse of 5: {verdicts[metric]}"
        )
        change = means.loc[metric, "value"]
        side = "better" if change > 0 else "worse"
        briefs.append(f"{record.label} {error_number(abs(change), record.in_years)} {record.change_unit} {side}")
    verdict, lacking = verdict_of_all(list(verdicts.values())), lacking_pairs(evidence, comparison)
    return Finding(claim, test, verdict, "; ".join(parts), "multitask", ", ".join(briefs), lacking)


def lacking_pairs(evidence: Evidence, comparison: str) -> str:
    """Seeds of which not both sides of a comparison are there."""
    return lacking_seeds({name: len(multitask.paired_seeds(evidence, name, comparison)) for name in SEVERAL_SEEDS})


def lacking_seeds(found: dict[str, int]) -> str:
    """In words, which architectures have fewer seeds than the protocol asks for; empty if none."""
    counts = [f"{get_backbone(name).title} {count}" for name, count in found.items() if count < NUM_SEEDS]
    return f"of {NUM_SEEDS} seeds there are so far: {', '.join(counts)}" if counts else ""


def find_gaps(evidence: Evidence, comparison: str) -> Finding:
    """C2 under one comparison."""
    claim, test = C2, multitask.comparison_title(comparison)
    table = gap_differences(evidence, comparison)
    done = len(table["backbones"].iloc[0]) if len(table) else 0
    if done < len(BACKBONES):
        return Finding(claim, test, f"not finished ({done} of {len(BACKBONES)} architectures)", "–", "gaps")
    counts = count_calls(table["call"])
    change = np.median(-100 * table["value"] / table["single"])
    found = (
        f"of {len(table)} gaps between groups {counts['better']} smaller, {counts['worse']} larger, "
        f"{counts['no difference']} without a difference that matters; median change {change:+.0f} %"
    )
    brief = f"{counts['better']} of {len(table)} gaps smaller, {counts['worse']} larger"
    lacking = lacking_pairs(evidence, comparison)
    return Finding(claim, test, verdict_gaps(table["call"]), found, "gaps", brief, lacking)


def find_accuracy(evidence: Evidence) -> Finding:
    """C3 in accuracy: the newer architectures against the older ones, pair by pair."""
    if missing := _architectures_missing(evidence):
        return Finding(C3_ACCURACY, C3_TEST, missing, "–", "pairs")
    pairs, parts, briefs = pair_differences(evidence), [], []
    verdicts = [verdict_accuracy(pairs, name) for name in NEWER]
    for name, verdict in zip(NEWER, verdicts, strict=True):
        calls = {other: against(pairs, name, other) for other in OLDER}
        listed = " and ".join(_describe_calls(found, other) for other, found in calls.items())
        parts.append(f"{get_backbone(name).title} against {listed}: {verdict}")
        count, num = count_calls(every := pd.concat(calls)), len(every)
        briefs.append(f"{get_backbone(name).title} better in {count['better']} and worse in {count['worse']} of {num}")
    brief = "; ".join(f"{text} comparisons" for text in briefs)
    verdict = verdict_of_all(verdicts)
    return Finding(C3_ACCURACY, C3_TEST, verdict, "; ".join(parts), "pairs", brief, _lacking_long(evidence))


def find_efficiency(evidence: Evidence) -> Finding:
    """C3 in efficiency: the newer architectures on Pareto fronts."""
    if missing := _architectures_missing(evidence):
        return Finding(C3_EFFICIENCY, C3_TEST, missing, "–", "pareto")
    fronts = front_table(cost_table(evidence))
    if len(fronts) < NUM_FRONTS:
        return Finding(C3_EFFICIENCY, C3_TEST, "not finished (costs are missing: agr bench)", "–", "pareto")
    verdicts = [verdict_efficiency(fronts, name) for name in NEWER]
    on = [f"{get_backbone(name).title} on {int(fronts[name].sum())}" for name in NEWER]
    where = f"of {NUM_FRONTS} Pareto fronts"
    found = "; ".join(f"{text} {where}: {verdict}" for text, verdict in zip(on, verdicts, strict=True))
    brief, verdict = f"{' and '.join(on)} {where}", verdict_of_all(verdicts)
    return Finding(C3_EFFICIENCY, C3_TEST, verdict, found, "pareto", brief, _lacking_long(evidence))


def find_deployment(evidence: Evidence) -> Finding:
    """C4: the small newer architecture on every device that was measured."""
    test, judged = "one face at a time, one thread, 96 px", deployment.judge_devices(evidence)
    if not judged:
        return Finding(C4, test, "not measured yet", "–", "deployment")
    rows = {cpu: table.loc[deployment.SMALL] for cpu, table in judged.items()}
    found = "; ".join(f"{cpu}: {deployment.describe_judgement(row)}" for cpu, row in rows.items())
    brief = "; ".join(f"MobileNetV3 on {cpu}: {deployment.describe_choice(row)}" for cpu, row in rows.items())
    return Finding(C4, test, deployment.verdict_of_devices(judged), found, "deployment", brief)


def _architectures_missing(evidence: Evidence) -> str:
    """Why C3 has no verdict yet; empty where it can have one."""
    done = len(runs_of(evidence, "long"))
    return "" if done == len(BACKBONES) else f"not finished ({done} of {len(BACKBONES)} architectures)"


def _lacking_long(evidence: Evidence) -> str:
    return lacking_seeds({name: len(evidence.select("long", name)) for name in SEVERAL_SEEDS})


def _describe_calls(calls: pd.Series, other: str) -> str:
    counts = count_calls(calls)
    return f"{get_backbone(other).title} {counts['better']} better, {counts['worse']} worse of {len(calls)} tasks"
