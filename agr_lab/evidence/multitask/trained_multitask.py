"""C1 and C2 by the second protocol: networks that are trained, faces and trainings counted (docs/protocol_2.md).

The 200,000 resamples of C2 take minutes and are kept: ``python -m agr_lab.evidence.multitask.trained_multitask``
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from agr_lab.evidence.markdown import called_cells, markdown_table
from agr_lab.evidence.reading import Evidence, Measure, read_evidence
from agr_lab.gpu.protocol import CLAIM_EPOCHS, INITIAL, SEEDS
from agr_utils.data.splits import groups_of
from agr_utils.files import atomic_path
from agr_utils.machine import repository_root
from agr_utils.measure.bootstrap import GroupBootstrap, holm, interval
from agr_utils.measure.comparisons import MATTERS, SIGNIFICANT, add_calls, mean_of_columns
from agr_utils.measure.fairness import ERRORS, GROUPINGS, error_rows, gaps, sample_groups
from agr_utils.measure.metrics import METRICS, improvement_signs, score_rows
from agr_utils.measure.trainings import difference_of_trainings
from agr_utils.models.backbones import BACKBONES, get_backbone
from agr_utils.tasks import TASKS, get_scheme

# name -> (title, epochs of the single-task models)
COMPARISONS = {"a": ("equal epochs", CLAIM_EPOCHS), "b": ("equal compute", CLAIM_EPOCHS / len(TASKS))}
BOOTSTRAP_SEEDS, RESAMPLES = 20, 10_000  # 200,000 in all; by seed, they tell how often a call changes
UNDECIDED = 3  # Monte Carlo standard errors of p within which a call is none

Frames = tuple[pd.DataFrame, pd.DataFrame]  # of the multi-task model, of the three single-task models; columns alike
Pairs = dict[str, list[Frames]]  # by architecture, one per seed


def paired_frames(
    evidence: Evidence,
    comparison: str,
    measure: Measure,
    names: Sequence[str] = tuple(BACKBONES),
    initial: bool = False,
) -> Pairs:
    """Scores of test faces of both sides, for every seed of which all four models are there from one kind of device.

    Args:
        evidence: with the runs of the second protocol.
        comparison: a key of COMPARISONS.
        measure: predictions table to scores, a row per face.
        names: of the architectures.
        initial: those that began with ImageNet's weights.
    """
    found: Pairs = {}
    _, epochs = COMPARISONS[comparison]
    for name in names:
        models = {}
        for precision in ("fp32", "bf16"):  # of a CPU, of an accelerator: the latter take precedence
            multi = evidence.select_trained(name, pretrained=initial, precision=precision)
            single = [evidence.select_trained(name, (task,), epochs, initial, precision) for task in TASKS]
            models |= {seed: [runs[seed] for runs in (multi, *single)] for seed in set(multi).intersection(*single)}
        for _, (one, *three) in sorted(models.items()):
            ours = measure(one.split("test")[0])
            theirs = pd.concat([measure(run.split("test")[0]) for run in three], axis=1)
            found.setdefault(name, []).append((ours, theirs[ours.columns]))
    return found


def is_complete(pairs: Pairs, names: Sequence[str] = tuple(BACKBONES)) -> bool:
    """Whether every architecture has all seeds that the protocol asks for."""
    return all(len(pairs.get(name, ())) == len(SEEDS) for name in names)


def multitask_improvements(pairs: Pairs, clusters: pd.Series) -> pd.DataFrame:
    """C1: what multi-task learning changes, by architecture and metric; with all seeds also on average (``mean``).

    Args:
        pairs: of ``score_rows``.
        clusters: near-duplicate cluster of each face.

    Returns:
        Rows ``name, metric, value, low, high, p, p_holm, matters, call, seeds, …``: above 0 multi-task is better.
    """
    metrics = list(MATTERS)
    signs = pd.Series(improvement_signs(metrics), index=metrics)
    changes = {
        name: [(ours[metrics] - theirs[metrics]) * signs for ours, theirs in frames] for name, frames in pairs.items()
    }
    table = difference_of_trainings(changes, clusters)
    called = add_calls(table.assign(matters=table["metric"].map(MATTERS), seeds=[()] * len(table)))  # seeds are counted
    table = called.assign(seeds=table["seeds"])
    if not is_complete(pairs, tuple(pairs)):
        return table
    mean = {"mean": [sum(tables) / len(tables) for tables in zip(*changes.values(), strict=False)]}
    return pd.concat([table, difference_of_trainings(mean, clusters).assign(call="")], ignore_index=True)


def relative_gaps(pairs: Pairs, faces: pd.DataFrame, bootstrap: GroupBootstrap, seed: int) -> pd.DataFrame:
    """C2: by how much gaps between groups, relative to the model's own error, are smaller with three heads.

    Args:
        pairs: of ``error_rows``.
        faces: a predictions table, for the labels.
        bootstrap: of the faces.
        seed: of drawing the trainings again, whole pairs within an architecture.

    Returns:
        (R + 1, 16): the logarithm of the single-task models' relative gap over that of the multi-task model, on
        average; a column (error, grouping). The signed error of age is relative to the MAE.
    """
    frames = [frames[side] for side in (0, 1) for chosen in pairs.values() for frames in chosen]
    shares = _draw_trainings([len(chosen) for chosen in pairs.values()], len(bootstrap), seed)
    errors = list(frames[0])
    divisors = [errors.index("age_mae" if error == "age_signed" else error) for error in errors]
    overall = mean_of_columns(bootstrap, frames)[:, :, divisors]  # (R + 1, frames, errors)
    columns, scheme = {}, get_scheme("utkface")
    for grouping in GROUPINGS:
        samples, _ = sample_groups(bootstrap, frames, faces, scheme, grouping)
        half = len(frames) // 2
        with np.errstate(divide="ignore", invalid="ignore"):  # a gap of 0 has no logarithm
            logs = np.log(gaps(samples) / overall)
            change = np.einsum("rp,rpe->re", shares, logs[:, half:] - logs[:, :half])
        columns |= {(error, grouping): change[:, number] for number, error in enumerate(errors)}
    return pd.DataFrame(columns)


def _draw_trainings(counts: Sequence[int], num_rows: int, seed: int) -> np.ndarray:
    """Share of each pair of trainings in a mean over architectures, (R + 1, pairs): as they are, then drawn again."""
    rng, parts = np.random.default_rng(seed), []
    for count in counts:
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=num_rows) / count
        drawn[0] = 1 / count
        parts.append(drawn / len(counts))
    return np.concatenate(parts, axis=1)


def gap_calls(pairs: Pairs, faces: pd.DataFrame) -> pd.DataFrame:
    """The calls of C2 from 200,000 resamples, and how often 20 seeds of the bootstrap call otherwise.

    Returns:
        16 rows ``error, grouping, value, low, high, p, p_error, p_holm, call, flips``: ``p_error`` is the Monte Carlo
        standard error, the correction is within an error, and ``flips`` counts the seeds that call otherwise.
    """
    clusters = groups_of(faces["image_id"])
    samples = [relative_gaps(pairs, faces, GroupBootstrap(clusters, RESAMPLES, seed), seed)
               for seed in range(BOOTSTRAP_SEEDS)]  # fmt: skip
    single = [call_gaps(table) for table in samples]
    table = call_gaps(pd.concat([samples[0], *(one.iloc[1:] for one in samples[1:])]))
    return table.assign(flips=sum((one["call"] != table["call"]).astype(int) for one in single))


def call_gaps(samples: pd.DataFrame) -> pd.DataFrame:
    """What each relative gap is called, from its resamples: ``better`` (smaller), ``worse``, or ``cannot tell``."""
    table = interval(samples.to_numpy()).drop(columns="resamples")
    table[["error", "grouping"]] = list(samples.columns)
    half = table["p"] / 2
    table["p_error"] = 2 * np.sqrt(half * (1 - half) / (len(samples) - 1))
    table["p_holm"] = table.groupby("error")["p"].transform(holm)
    margin = UNDECIDED * table["p_error"] * table["p_holm"] / table["p"]
    side = np.where(table["value"] > 0, "better", "worse")
    table["call"] = np.where(table["p_holm"] + margin < SIGNIFICANT, side, "cannot tell")
    return table


def verdict_relative_gaps(calls: pd.DataFrame) -> str:
    """C2 from rows ``error, call``: by families of errors."""
    families = calls.groupby("error")["call"].agg(set)
    smaller = sum("better" in found and "worse" not in found for found in families)
    larger = sum("worse" in found for found in families)
    if smaller >= 2 and not larger:
        return "supported"
    nowhere = not any("better" in found for found in families)
    return "not supported" if larger >= 2 or nowhere else "cannot tell"


def initialisation_improvements(evidence: Evidence) -> pd.DataFrame:
    """C1 for one network from scratch and from ImageNet's weights: ``multitask_improvements``, without the mean."""
    both = {"from scratch": False, "from ImageNet": True}
    pairs = {
        title: paired_frames(evidence, "a", score_rows, (INITIAL,), initial).get(INITIAL, [])
        for title, initial in both.items()
    }
    if not is_complete(pairs, tuple(both)):
        return pd.DataFrame()
    table = multitask_improvements(pairs, groups_of(evidence.faces["image_id"]))
    return table[table["name"] != "mean"]


def improvements_table(tables: Mapping[str, pd.DataFrame]) -> str:
    """A row per comparison and architecture: what multi-task learning changes in each task, and the call."""
    rows = []
    for where, table in tables.items():
        for name, found in table.groupby("name", sort=False):
            found = found.set_index("metric")
            title = get_backbone(name).title if name in BACKBONES else name
            rows.append([where, title, len(found["seeds"].iloc[0]), *called_cells(found, MATTERS)])
    return markdown_table(["Compared at", "Architecture", "Pairs", *(METRICS[m].change_title for m in MATTERS)], rows)


def gap_calls_table(table: pd.DataFrame) -> str:
    """A row per error and grouping: how much smaller the relative gap is, in per cent, with its p-value and call."""
    rows = []
    for row in table.itertuples():
        change = [f"{100 * np.expm1(value):+.0f}" for value in (row.value, row.low, row.high)]
        cells = [f"{change[0]} [{change[1]}, {change[2]}]", f"{row.p:.5f} ± {row.p_error:.5f}", f"{row.p_holm:.4f}"]
        rows.append([ERRORS[row.error].title, row.grouping.replace(" x ", " × "), *cells, row.call, row.flips])
    titles = ["Error", "Groups", "Single-task gap larger by (%)", "p", "corrected", "Call", "Called otherwise, of 20"]
    return markdown_table(titles, rows)


def trained_multitask_table(evidence: Evidence) -> str:
    """C1 under both comparisons; while trainings are missing, how many pairs there are and what they say."""
    tables, missing = {}, []
    for comparison, (title, _) in COMPARISONS.items():
        pairs = paired_frames(evidence, comparison, score_rows)
        where, complete = f"({comparison}) {title}", is_complete(pairs)
        if any(len(found) > 1 for found in pairs.values()):
            table = multitask_improvements(pairs, groups_of(evidence.faces["image_id"]))
            tables[where] = table if complete else table.assign(call="")
        if not complete:
            done = sum(map(len, pairs.values()))
            missing.append(f"{where}: {done} of {len(BACKBONES) * len(SEEDS)} pairs are trained; nothing is called.")
    if len(table := initialisation_improvements(evidence)):
        tables[f"(a) equal epochs, {INITIAL}"] = table
    return "\n\n".join([*([improvements_table(tables)] if tables else []), *missing])


def trained_gaps_table(evidence: Evidence) -> str:
    """C2 under the comparisons of which every training is there, with their verdicts."""
    parts = []
    for comparison, (title, _) in COMPARISONS.items():
        if (table := evidence.gap_calls.get(comparison)) is not None:
            parts.append(f"({comparison}) {title}: **{verdict_relative_gaps(table)}**\n\n{gap_calls_table(table)}")
    return "\n\n".join(parts) or "No comparison has all of its trainings yet; nothing is called."


def main() -> None:
    """Write the calls of C2 for each comparison of which every training is there."""
    folder = repository_root() / "results"
    evidence = read_evidence(folder)
    for comparison in COMPARISONS:
        if is_complete(pairs := paired_frames(evidence, comparison, error_rows)):
            with atomic_path(folder / "protocol_2" / f"gaps_{comparison}.csv") as partial:
                gap_calls(pairs, evidence.faces).to_csv(partial, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
