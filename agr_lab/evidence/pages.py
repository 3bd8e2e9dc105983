"""The tables of the README and the docs, filled in from ``results/``: which stands on which page."""

from pathlib import Path

import pandas as pd

from agr_lab.evidence import reading
from agr_lab.evidence.accuracy.accuracy import early_size_table, home_table, real_faces_table
from agr_lab.evidence.accuracy.every_metric import every_metric_table
from agr_lab.evidence.accuracy.risk_coverage import read_shipped
from agr_lab.evidence.accuracy.seeds import seeds_table
from agr_lab.evidence.architectures.deployment import deployment_table, judgement_table, telephone_table
from agr_lab.evidence.architectures.task_weights import read_tuning, tuning_table
from agr_lab.evidence.architectures.trained import fronts_table, trained_table
from agr_lab.evidence.claims import claims_summary, claims_table
from agr_lab.evidence.faces.noise_floor import noise_table, published_tables
from agr_lab.evidence.groups.coverage import file_intervals_table
from agr_lab.evidence.groups.group_errors import shipped_groups_table
from agr_lab.evidence.maps.map_evidence import MapEvidence, read_map_evidence
from agr_lab.evidence.maps.map_layers import layers_table
from agr_lab.evidence.maps.map_regions import regions_table
from agr_lab.evidence.maps.map_shortcut import shortcut_lines
from agr_lab.evidence.maps.maps_128 import maps_128_table
from agr_lab.evidence.maps.trust import consistency_table, trust_table, trust_tests_table
from agr_lab.evidence.markdown import fill_table, markdown_table
from agr_lab.evidence.multitask.ablations import ablation_table
from agr_lab.evidence.multitask.conflict import conflict_table
from agr_lab.evidence.multitask.gaps import gap_table
from agr_lab.evidence.multitask.multitask import multitask_table
from agr_lab.evidence.multitask.trained_multitask import trained_gaps_table, trained_multitask_table
from agr_lab.evidence.reading import Evidence, read_evidence
from agr_lab.evidence.robustness.all_corruptions import corruptions_table
from agr_lab.evidence.robustness.robustness_augmentation import augmentation_table
from agr_lab.evidence.robustness.robustness_groups import darkness_table, robustness_groups_table
from agr_lab.evidence.robustness.robustness_multitask import robustness_multitask_table
from agr_lab.evidence.robustness.severity import mean_errors_table
from agr_lab.evidence.robustness.sweeps import RobustnessEvidence, read_robustness
from agr_lab.evidence.speed import t4_table
from agr_utils.errors import InputError
from agr_utils.inside.explain import METHODS
from agr_utils.inside.sweep import SWEPT_ERRORS
from agr_utils.measure.results import read_folder, read_runs
from agr_utils.models.backbones import BACKBONES


def fill_pages(results_dir: Path, root: Path) -> list[Path]:
    """Write every table into its page below ``root``; the pages."""
    evidence, maps, bench = read_evidence(results_dir), read_map_evidence(results_dir), reading.read_bench(results_dir)
    speeds = reading.measured(bench.get("training"), "images_per_second", image_size=64)
    shipped = read_shipped(results_dir)
    pages = {
        root / "README.md": {"claims-summary": claims_summary(evidence)},
        root / "docs" / "results.md": {
            "real-faces": real_faces_table(read_runs(results_dir), speeds),
            "claims": claims_table(evidence),
            "maps": trust_table(maps),
        },
        root / "docs" / "scaling.md": {
            name: bench_table(bench.get(name), BENCH_COLUMNS[name]) for name in BENCH_COLUMNS
        }
        | {"early-size": early_size_table(read_folder(results_dir / "ablations" / "early_size"))},
        root / "docs" / "evidence.md": evidence_tables(results_dir, evidence),
        root / "docs" / "looking_inside.md": map_tables(maps)
        | {"maps-128": maps_128_table(results_dir)}
        | robustness_tables(read_robustness(results_dir)),
        root / "docs" / "deployment.md": {
            "deployment": deployment_table(evidence),
            "judgement": judgement_table(evidence),
            "telephone": telephone_table(evidence),
            "int8": bench_table(bench.get("int8"), INT8_COLUMNS),
        },
        root / "docs" / "teaching.md": {"t4": t4_table(evidence)},
        root / "docs" / "MODEL_CARD.md": {
            "home": home_table(shipped),
            "groups": shipped_groups_table(shipped),
            "intervals": file_intervals_table(results_dir),
        },
    }
    for page, tables in pages.items():
        for name, table in tables.items():
            fill_table(page, name, table)
    return list(pages)


def evidence_tables(results_dir: Path, evidence: Evidence) -> dict[str, str]:
    """Each table of docs/evidence.md, by the name of its markers."""
    ablations = reading.read_ablations(results_dir)
    return {
        "every-metric": every_metric_table(read_runs(results_dir)),
        "multitask": multitask_table(evidence),
        "gaps-a": gap_table(evidence, "a"),
        "gaps-b": gap_table(evidence, "b"),
        "seeds": seeds_table(evidence),
        "balancing": ablation_table(ablations, "balancing", "Weights"),
        "conflict": conflict_table(ablations),
        "age-heads": ablation_table(ablations, "age_heads", "Age head"),
        "initialisation": ablation_table(ablations, "initialisation", "Weights at the start"),
        "trained": trained_table(evidence),
        "trained-multitask": trained_multitask_table(evidence),
        "trained-gaps": trained_gaps_table(evidence),
        "tuning": tuning_table(read_tuning(results_dir)),
        "fronts": fronts_table(evidence),
        "noise": noise_table(),
        "published": published_tables(reading.read_published(results_dir)),
        "hours": hours_table(results_dir),
    }


def map_tables(evidence: MapEvidence) -> dict[str, str]:
    """Each table of docs/looking_inside.md about maps, by the name of its markers."""
    tests = {f"tests-{kind}": trust_tests_table(evidence, kind) for kind in METHODS}
    return tests | {
        "map-layers": layers_table(evidence),
        "map-shortcut": shortcut_lines(evidence),
        "map-regions": regions_table(evidence),
        "map-consistency": consistency_table(evidence),
    }


def robustness_tables(evidence: RobustnessEvidence) -> dict[str, str]:
    """Each table of docs/looking_inside.md about robustness, by the name of its markers."""
    return {
        "corruptions": corruptions_table(),
        **{f"robustness-{error}": mean_errors_table(evidence, error) for error in SWEPT_ERRORS},
        "robustness-multitask": robustness_multitask_table(evidence),
        "robustness-groups": robustness_groups_table(evidence),
        "robustness-darkness": darkness_table(evidence),
        "robustness-augmentation": augmentation_table(evidence),
    }


def hours_table(results_dir: Path) -> str:
    """Hours of one core that the trainings behind each folder of results took, and of a device that others shared."""
    folders = {"published runs": read_runs(results_dir), "claims": read_folder(results_dir / "claims")}
    folders["maps of drawn faces"] = read_folder(results_dir / "cues") + read_folder(results_dir / "cues_128")
    ablations = reading.read_ablations(results_dir)
    folders |= {f"ablation: {name.replace('_', ' ')}": runs for name, runs in ablations.items()}
    folders["all"] = [run for runs in folders.values() for run in runs]
    hours = {name: sum(run.history["cpu_seconds"].sum() for run in runs) / 3600 for name, runs in folders.items()}
    rows = [[name, "one core", len(runs), f"{hours[name]:.1f}"] for name, runs in folders.items()]
    lane = [run.about["hardware"] for name in ("maps_128", "protocol_2") for run in read_folder(results_dir / name)]
    if seconds := [about["seconds"] for about in lane if "NVIDIA" not in about["accelerator"]]:
        rows.append(["second protocol, on CPUs", "CPUs, shared", len(seconds), f"{sum(seconds) / 3600:.1f}"])
    for title, path in (("second protocol", "protocol_2/trials.csv"), ("the shipped model's recipe", "recipe.csv")):
        if (results_dir / path).exists():
            trials = pd.read_csv(results_dir / path)
            device = f"{' and '.join(trials['device'].unique())}, shared"
            rows.append([title, device, len(trials), f"{trials['seconds'].sum() / 3600:.1f}"])
    return markdown_table(["Runs", "Device", "Number", "Hours"], rows)


BENCH_COLUMNS = {
    "training": {"backbone": "architecture", "image_size": "px", "precision": "precision",
                 "images_per_second": "images/s", "limit_images_per_second": "resident batch",
                 "share_of_compute_limit": "share"},
    "latency": {"backbone": "architecture", "image_size": "px", "batch_size": "images", "seconds": "seconds"},
    "pipelines": {"measure": "measure", "image_size": "px", "images_per_second": "pixel cache (images/s)",
                  "peer_images_per_second": "JPEG files, DataLoader", "ratio": "ratio"},
    "startup": {"num_images": "images", "seconds": "seconds to the first step", "import_seconds": "of imports before"},
    "predict": {"measure": "asked", "seconds": "seconds", "images_per_second": "pictures/s", "peak_mib": "MiB at most"},
    "memory": {"num_images": "images", "pixels_mib": "pixel cache (MiB)", "anonymous_mib": "anonymous (MiB)",
               "peak_mib": "resident, file pages too (MiB)"},
    "processes": {"backbone": "architecture", "processes": "processes", "threads": "threads each",
                  "images_per_second": "images/s", "speedup": "speed-up"},
    "inside": {"backbone": "architecture", "image_size": "px", "measure": "measure", "num_images": "faces",
               "seconds": "seconds"},
    "budget": {"backbone": "architecture", "minutes": "minutes asked", "taken": "taken", "epochs": "epochs planned"},
}  # fmt: skip

INT8_COLUMNS = {"backbone": "architecture", "weights": "weights", "age_mae": "MAE (years)",
                "gender_accuracy": "gender accuracy", "race_accuracy": "race accuracy"}  # fmt: skip


def bench_table(table: pd.DataFrame | None, columns: dict[str, str]) -> str:
    """A table of ``agr bench`` as Markdown, with the hardware below; ``columns`` shown, and their titles."""
    if table is None or table.empty:
        return "Not measured yet: `agr bench`"
    if missing := [name for name in (*columns, "cpu", "cores", "threads", "torch") if name not in table]:
        raise InputError(f"results/bench: a table of agr bench has no {' or '.join(missing)}. Measure it again")
    rows = [[_format_cell(value) for value in row] for row in table[list(columns)].itertuples(index=False)]
    machine = f"On {reading.machine_title(table)}; torch {table.iloc[0]['torch']}."
    return f"{markdown_table(columns.values(), rows)}\n\n{machine}"


def _format_cell(value: object) -> str:
    """Three digits of a number; the name of an architecture."""
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
    if isinstance(value, str):
        return BACKBONES[value].title if value in BACKBONES else value
    return f"{value:,}"
