"""The trainings that docs/protocol_2.md asks for, in its order: each choice by its rule, from what is finished."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from agr_lab.gpu.jobs import Job
from agr_utils.models.backbones import BACKBONES
from agr_utils.tasks import TASKS

IMAGE_SIZE = 96
RATES = (0.0003, 0.001, 0.003)
WEIGHTINGS = {
    "equal": {}, "age0.3": {"age": 0.3}, "age3": {"age": 3}, "gender3": {"gender": 3}, "race3": {"race": 3},
    "classes3": {"gender": 3, "race": 3},
}  # fmt: skip
TUNING_SEED, TUNING_EPOCHS = 100, 5
SEEDS = (1, 2, 3)
CLAIM_EPOCHS = 20  # of both sides of C1 and C2
LENGTHS = (10, 20, 40)
MIN_GAIN = 0.02  # by which doubling must lower the mean logarithm of the errors
OLDER = ("resnet18",)  # beside the five, for C3 only
MAP_BACKBONES, MAP_SIZE = ("custom_cnn", "mobilenet_v2"), 128  # whose maps are scored again
INITIAL, INITIAL_FILE, INITIAL_RATE = "tf_efficientnet_lite0", ".gpu/tf_efficientnet_lite0.safetensors", 0.001

Finished = Mapping[str, Mapping]


def error(summary: Mapping, tasks: tuple[str, ...]) -> float:
    """Mean over tasks of the logarithm of the validation error: MAE in years, share of wrong answers."""
    errors = [summary["validation_mae"] if task == "age" else 1 - summary[f"validation_{task}"] for task in tasks]
    return sum(map(math.log, errors)) / len(errors)


def make_job(
    backbone: str, tasks: tuple[str, ...], rate: float, epochs: float, seed: int, weighting: str, **more
) -> Job:
    """One training of the protocol; its name says all that differs."""
    start = "-pretrained" if more.get("initial") else ""
    what = "multi" if tasks == TASKS else tasks[0]
    name = f"{backbone}{start}-{what}-{weighting}-lr{rate:g}-{epochs:.3g}ep-s{seed}"
    is_tuning = seed == TUNING_SEED
    return Job(
        name, backbone, tasks, WEIGHTINGS[weighting], image_size=IMAGE_SIZE, epochs=epochs, learning_rate=rate,
        seed=seed, changes=0, evaluations=1 if epochs < 10 else 4, predict=() if is_tuning else ("validation", "test"),
        keep=(seed, epochs, tasks) == (SEEDS[0], CLAIM_EPOCHS, TASKS), seconds=3 + 2 * epochs, **more,
    )  # fmt: skip


def best(jobs: list[Job], finished: Finished) -> Job | None:
    """The job with the lowest validation error, the first of equals; None while one is open."""
    if not all(job.name in finished for job in jobs):
        return None
    return min(jobs, key=lambda job: error(finished[job.name], job.tasks))


def rate_jobs(backbone: str, tasks: tuple[str, ...]) -> list[Job]:
    """Trials of the learning rate."""
    return [make_job(backbone, tasks, rate, TUNING_EPOCHS, TUNING_SEED, "equal") for rate in RATES]


def weight_jobs(backbone: str, rate: float) -> list[Job]:
    """Trials of the task weights."""
    return [make_job(backbone, TASKS, rate, TUNING_EPOCHS, TUNING_SEED, name) for name in WEIGHTINGS]


def length_jobs(backbone: str, rate: float, weighting: str, finished: Finished) -> tuple[list[Job], Job | None]:
    """Trainings of doubled lengths that the rule asks for so far, and the chosen one once it is known."""
    jobs = []
    for epochs in LENGTHS:
        jobs.append(make_job(backbone, TASKS, rate, epochs, SEEDS[0], weighting))
        if jobs[-1].name not in finished:
            return jobs, None
        errors = [error(finished[job.name], TASKS) for job in jobs]
        if len(errors) > 1 and errors[-2] - errors[-1] <= MIN_GAIN:
            return jobs, jobs[-2]
    return jobs, jobs[-1]


def stages(backbone: str, finished: Finished) -> Iterator[tuple[int, Job]]:
    """Jobs of one architecture with their place in the order, as far as they are known."""
    singles = [(task,) for task in TASKS] if backbone in BACKBONES else []
    for tasks in (TASKS, *singles):
        yield from ((0 if tasks == TASKS else 4, job) for job in rate_jobs(backbone, tasks))
    if not (chosen := best(rate_jobs(backbone, TASKS), finished)):
        return
    rate = chosen.learning_rate
    yield from ((1, job) for job in weight_jobs(backbone, rate))
    if not (chosen := best(weight_jobs(backbone, rate), finished)):
        return
    weighting = next(name for name, weights in WEIGHTINGS.items() if weights == chosen.task_weights)
    lengths, chosen = length_jobs(backbone, rate, weighting, finished)
    yield from ((2, job) for job in lengths)
    own_length = {chosen.epochs} if chosen else set()
    for epochs in sorted({CLAIM_EPOCHS} | own_length):
        for seed in SEEDS:
            yield (3 if epochs == CLAIM_EPOCHS else 6), make_job(backbone, TASKS, rate, epochs, seed, weighting)
    if backbone in MAP_BACKBONES:
        job = make_job(backbone, TASKS, rate, CLAIM_EPOCHS, SEEDS[0], weighting)
        more = {"image_size": MAP_SIZE, "bf16": ("cuda", "cpu"), "seconds": 2 * job.seconds}
        yield 9, replace(job, name=f"{job.name}-{MAP_SIZE}px", **more)
    for tasks in singles:
        if chosen := best(rate_jobs(backbone, tasks), finished):
            for place, epochs in ((5, CLAIM_EPOCHS), (7, CLAIM_EPOCHS / len(TASKS))):
                for seed in SEEDS:
                    yield place, make_job(backbone, tasks, chosen.learning_rate, epochs, seed, "equal")


def initialisation_jobs() -> Iterator[tuple[int, Job]]:
    """One network from ImageNet weights and from scratch, multi-task and single-task."""
    for seed in SEEDS:
        for initial in (INITIAL_FILE, None):
            for tasks in (TASKS, *((task,) for task in TASKS)):
                yield 8, make_job(INITIAL, tasks, INITIAL_RATE, CLAIM_EPOCHS, seed, "equal", initial=initial)


def plan(finished: Finished) -> list[Job]:
    """Every job that the protocol asks for and that is known so far, the most urgent first; each once."""
    jobs = [pair for name in (*BACKBONES, *OLDER) for pair in stages(name, finished)] + list(initialisation_jobs())
    ordered = sorted(jobs, key=lambda pair: (pair[0], pair[1].seed))
    return list({job.name: job for _, job in ordered}.values())
