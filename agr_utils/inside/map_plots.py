"""Maps of drawn figures beside a blob: one look, and one table that says what the look is worth."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from agr_utils.data.synthetic import SyntheticFaces
from agr_utils.errors import check_has
from agr_utils.inside.explain import METHODS, explain
from agr_utils.inside.map_scores import centred_map, energy_inside
from agr_utils.inside.map_tables import SHOWN, score_cues
from agr_utils.models.network import MultiTaskNet


def plot_cue_maps(model: MultiTaskNet, drawn: SyntheticFaces, row: int) -> Figure:
    """One drawn figure, its maps of each task and a blob; every panel says how much of the map lies inside the cue."""
    check_has(drawn.masks, *model.tasks, what="the set of masks")
    image = torch.from_numpy(drawn.pixels[[row]]).permute(0, 3, 1, 2).float() / 255  # (1, 3, H, W)
    blob = centred_map(*image.shape[2:])[None]
    figure, axes = plt.subplots(len(model.tasks), 4, figsize=(9, 2.3 * len(model.tasks)), squeeze=False)
    for line, task in zip(axes, model.tasks, strict=True):
        mask = torch.from_numpy(drawn.masks[task][[row]])
        line[0].imshow(drawn.pixels[row])
        line[0].set_title(f"cue of the {task}", fontsize=9)
        maps = {METHODS[kind][0]: explain(model, image, task, kind) for kind in SHOWN} | {"Blob": blob}
        for ax, (title, values) in zip(line[1:], maps.items(), strict=True):
            ax.imshow(drawn.pixels[row].mean(axis=2), cmap="gray", vmin=0, vmax=255)
            shown = ax.imshow(values[0], cmap="viridis", vmin=0, vmax=1, alpha=0.7)
            ax.set_title(f"{title}: {100 * energy_inside(values, mask).item():.0f} % inside", fontsize=9)
        for ax in line:
            ax.contour(mask[0], levels=[0.5], colors="#D55E00", linewidths=1.5)
            ax.set_axis_off()
    figure.tight_layout(pad=0.4, h_pad=1.2)
    key = figure.colorbar(shown, ax=figure.axes, shrink=0.4, pad=0.02, ticks=[0, 1])
    key.set_label("share of the map's largest value")
    return figure


def cue_table(model: MultiTaskNet, drawn: SyntheticFaces) -> pd.DataFrame:
    """Mean share of the maps' energy inside the cues, in percent, and how far HiResCAM is ahead of the blob.

    Returns:
        A row for each task: what is found by ``SHOWN``, by a blob in the middle and by noise, the share of the image
        that the cue covers (what a uniform map would have), and the paired difference between HiResCAM and the blob
        with its 95 % interval over figures.
    """
    scores = score_cues(model, drawn, np.arange(len(drawn.faces)), methods=SHOWN)
    scores["energy"] *= 100
    titles = {kind: METHODS[kind][0] for kind in SHOWN} | {"centred": "Blob", "random": "Noise"}
    wide = scores.pivot_table(index=["task", "image_id"], columns="kind", values="energy", observed=True)
    ahead = (wide["hirescam"] - wide["centred"]).groupby("task", observed=True)
    half = 1.96 * ahead.sem()
    table = wide.groupby("task", observed=True).mean()[list(titles)].rename(columns=titles)
    table["Cue's area"] = [100 * drawn.masks[task].mean() for task in table.index]
    table["HiResCAM - Blob"], table["low"], table["high"] = ahead.mean(), ahead.mean() - half, ahead.mean() + half
    return table.rename_axis(columns=None).round(1)
