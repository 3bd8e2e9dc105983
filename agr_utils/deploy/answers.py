"""What a network says of one face, as a dictionary of names and numbers."""

from collections.abc import Mapping

import numpy as np

from agr_utils.errors import InputError

OUTPUTS = {"age": ("age", "age_quantiles", "age_mean", "age_interval"), "gender": ("gender",), "race": ("race",)}


def to_answer(
    outputs: Mapping[str, np.ndarray], about: Mapping, quantiles: bool = False, abstain: bool = False
) -> dict[str, object]:
    """The answer about one face.

    Args:
        outputs: the OUTPUTS of the tasks that were asked, of this face.
        about: what the model says of itself: ``labels``, and ``abstain`` where that is wanted.
        quantiles: also give the 20 quantiles of the age.
        abstain: give no value below the confidence at which validation faces were answered wrong half as often; an
            InputError if none was measured.

    Returns:
        ``age`` and ``age_interval`` (years), ``age_quantiles``, ``gender`` and ``gender_probability``, ``race`` and
        ``race_probabilities``: those that were asked for; ``abstained``: the tasks whose value is None.
    """
    answer: dict[str, object] = {}
    confidence: dict[str, float] = {}
    if "age" in outputs:
        low, high = outputs["age_interval"].tolist()
        answer |= {"age": round(float(outputs["age_mean"]), 1), "age_interval": [round(low, 1), round(high, 1)]}
        confidence["age"] = low - high
        if quantiles:
            answer["age_quantiles"] = [round(value, 1) for value in outputs["age_quantiles"].tolist()]
    for task in ("gender", "race"):
        if task not in outputs:
            continue
        names, row = about["labels"][task], outputs[task].tolist()
        confidence[task] = max(row)
        answer[task] = names[int(np.argmax(row))]
        if task == "gender":
            answer["gender_probability"] = round(max(row), 4)
        else:
            answer["race_probabilities"] = {name: round(value, 4) for name, value in zip(names, row, strict=True)}
    if abstain:
        thresholds = about.get("abstain", {})
        if missing := [task for task in confidence if task not in thresholds]:
            raise InputError(f"how sure to be of {', '.join(missing)} was not measured. Leave out --abstain")
        answer["abstained"] = [task for task, value in confidence.items() if value < thresholds[task]["threshold"]]
        answer |= dict.fromkeys(answer["abstained"])
    return answer
