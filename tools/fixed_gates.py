"""What a MobileNetV3 of real faces loses when its gates no longer look at the picture.

    python tools/fixed_gates.py runs/utkface-mobilenet_v3-64px-s0 --source UTKFace > results/fixed_gates.csv

Every squeeze-and-excite is replaced by the mean of what it says about the validation faces. Printed is what the test
faces then change by, fixed minus free, with intervals over groups of near-duplicates (lesson 04, section 9).
"""

import argparse
import sys
from pathlib import Path

import torch

from agr_utils.data.splits import groups_of
from agr_utils.measure.metrics import bootstrap, score_rows
from agr_utils.models.network import MultiTaskNet
from agr_utils.training.predictions import predict_rows
from agr_utils.training.run import load_run, predict_split


def find_gates(model: MultiTaskNet) -> list[torch.nn.Module]:
    """The last step of each squeeze-and-excite, whose output (B, C, 1, 1) multiplies the channels."""
    return [module.gate for module in model.modules() if hasattr(module, "conv_reduce")]


def fix_gates(model: MultiTaskNet, means: list[torch.Tensor]) -> None:
    """Let each gate say its mean (1, C, 1, 1), whatever the picture."""
    for gate, mean in zip(find_gates(model), means, strict=True):
        gate.register_forward_hook(lambda module, inputs, output, mean=mean: mean.expand_as(output))


def main() -> None:
    """Ask twice, and print the difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run with squeeze-and-excites")
    parser.add_argument("--source", type=Path, help="folder or archive of its faces")
    options = parser.parse_args()
    model, data, _ = load_run(options.run, options.source)
    gates = find_gates(model)
    if not gates:
        sys.exit(f"{options.run}: this network has no squeeze-and-excite")
    said: list[list[torch.Tensor]] = [[] for _ in gates]
    hooks = [
        gate.register_forward_hook(lambda module, inputs, output, kept=kept: kept.append(output))
        for gate, kept in zip(gates, said, strict=True)
    ]
    predict_rows(model, data, data.rows("validation"))
    for hook in hooks:
        hook.remove()
    free = predict_split(model, data, "test", run_id="free")
    fix_gates(model, [torch.cat(kept).mean(dim=0, keepdim=True) for kept in said])
    fixed = predict_split(model, data, "test", run_id="fixed")
    change = bootstrap(score_rows(fixed) - score_rows(free), groups_of(free["image_id"]))
    change.rename_axis("metric").to_csv(sys.stdout, float_format="%.5f")


if __name__ == "__main__":
    main()
