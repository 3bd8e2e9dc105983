"""The model that answers: an ONNX file run by onnxruntime, with all that must be known about it inside the file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from agr_utils.deploy.answers import OUTPUTS
from agr_utils.deploy.onnx_file import open_session
from agr_utils.errors import InputError
from agr_utils.tasks import NUM_AGES, TASKS

SHIPPED_MODEL = Path(__file__).parent / "model.onnx"
FORMAT = 1  # of the metadata


def _check_description(about: Mapping) -> None:
    """Raise a KeyError, TypeError or the like where what is looked up later is missing or of another type."""
    ages = about.get("trained_ages") or (0, 0)
    thresholds = [entry["threshold"] for entry in about.get("abstain", {}).values()]
    limits = about.get("limits", {}).values()
    numbers = [about["image_size"], about["zoom"], *about["quantiles"], *limits, *thresholds, *ages]
    names = [about["run_id"], *sum(about["labels"].values(), [])]
    if len(ages) != 2 or not np.isfinite(numbers).all() or not all(isinstance(name, str) for name in names):
        raise TypeError("a description of other types")


class FaceModel:
    """A model that was exported by ``agr export``, or the shipped one.

    Attributes:
        about: what the file says of itself: run, size, labels, licence, calibration, trained ages, crop, limits.
        sha256: of everything before the file's seal.
        size: side of the crops it takes, pixels.
        tasks: what it answers.
    """

    def __init__(self, path: Path = SHIPPED_MODEL):
        """Load a model; an InputError if the file is missing, damaged, no such model, or contradicts itself."""
        self._session, metadata, self.sha256 = open_session(path)
        try:
            about = self.about = json.loads(metadata["agr"])
            self.tasks = tuple(task for task in TASKS if task in about["tasks"])
            fits = about["format"] == FORMAT and len(self.tasks) > 0
            if fits:
                _check_description(about)
                self.size, self.labels = int(about["image_size"]), about["labels"]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not a face model of this project. Make one with: agr export RUN") from error
        if not fits:
            raise InputError(f"{path}: made by another version of agr export. Export the run again")
        self._check_outputs(path)

    @property
    def run_id(self) -> str:
        """The run that the weights are from."""
        return self.about["run_id"]

    @property
    def narrow_ages(self) -> tuple[int, int] | None:
        """Youngest and oldest age that it was trained on, where faces of other ages are common; else None."""
        ages = self.about.get("trained_ages")
        return tuple(ages) if ages and (ages[0] > 3 or ages[1] < 90) else None

    def _check_outputs(self, path: Path) -> None:
        """The labels and the sizes in the description must be those of the network."""
        shapes = {output.name: output.shape for output in self._session.get_outputs()}
        widths = {"age": NUM_AGES} | {task: len(set(names)) for task, names in self.labels.items()}
        for task in self.tasks:
            if any(name not in shapes for name in OUTPUTS[task]) or shapes[task][-1] != widths.get(task):
                raise InputError(
                    f"{path}: its labels of {task} do not fit its answers "
                    f"({widths.get(task, 0)} labels, {shapes.get(task, [0])[-1]} answers). Export the run again"
                )
        shape = self._session.get_inputs()[0].shape
        if shape[1:] != [self.size, self.size, 3]:
            raise InputError(f"{path}: takes images of {shape[1:]}, not of {self.size} pixels. Export the run again")

    def check_tasks(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """The tasks in order; an InputError if the model does not answer one of them."""
        missing = [task for task in tasks if task not in self.tasks]
        if missing:
            raise InputError(f"the model has no head for {', '.join(missing)}. It answers: {', '.join(self.tasks)}")
        return tuple(task for task in TASKS if task in tasks)

    def run(self, pixels: np.ndarray, tasks: Sequence[str]) -> dict[str, np.ndarray]:
        """Outputs for one face, which is computed by itself: whatever else is asked, its answer is the same.

        Args:
            pixels: (S, S, 3) uint8 RGB.
            tasks: some of ``self.tasks``.

        Returns:
            The OUTPUTS of each task, float32: ``age`` (117,), ``age_quantiles`` (20,), ``age_mean`` (),
            ``age_interval`` (2,), ``gender`` (2,), ``race`` (R,).

        Raises:
            InputError: if the network answers with something that is no number.
        """
        names = [name for task in tasks for name in OUTPUTS[task]]
        values = self._session.run(names, {"image": pixels[None]})
        for name, value in zip(names, values, strict=True):
            if not np.isfinite(value).all():
                raise InputError(f"the model's answer to {name} is no number: its weights are damaged. Export it again")
        return {name: value[0] for name, value in zip(names, values, strict=True)}
