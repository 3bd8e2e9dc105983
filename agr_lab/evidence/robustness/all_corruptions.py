"""Figure ``corruptions`` and its table: what the corruptions of agr_utils.data.corruptions look like."""

import matplotlib.pyplot as plt
import pandas as pd

from agr_lab.evidence.markdown import markdown_table
from agr_lab.evidence.register import FIGURES
from agr_utils.data.corruptions import CORRUPTIONS, SEVERITIES
from agr_utils.data.synthetic import draw_faces


@FIGURES.add("corruptions", "Eleven corruptions at five severities, on a drawn face", None)
def draw_corruptions() -> tuple[plt.Figure, pd.DataFrame]:
    """What the corruptions look like."""
    import torch

    from agr_utils.data.corruptions import corrupt

    pixels = draw_faces(10, 64, seed=3).pixels[:1]
    image = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    figure, axes = plt.subplots(len(CORRUPTIONS), 6, figsize=(7, 12.2))
    for row, (line, name) in enumerate(zip(axes, CORRUPTIONS, strict=True)):
        shown = [image, *(corrupt(image, name, severity, data="synthetic") for severity in SEVERITIES)]
        for severity, (ax, changed) in enumerate(zip(line, shown, strict=True)):
            ax.imshow(changed[0].permute(1, 2, 0).numpy(), interpolation="nearest")
            ax.set_axis_off()
            if row == 0:
                ax.set_title(f"severity {severity}" if severity else "clean", fontsize=10)
        title = CORRUPTIONS[name].title
        line[0].text(-0.1, 0.5, title, ha="right", va="center", transform=line[0].transAxes, fontsize=10)
    figure.tight_layout(pad=0.2)
    rows = [
        (name, severity, strength, corruption.meaning)
        for name, corruption in CORRUPTIONS.items()
        for severity, strength in zip(SEVERITIES, corruption.strengths, strict=True)
    ]
    return figure, pd.DataFrame(rows, columns=["corruption", "severity", "strength", "meaning"])


def corruptions_table() -> str:
    """The corruptions and their strengths."""
    rows = []
    for name, corruption in CORRUPTIONS.items():
        strengths = ", ".join(f"{value:g}" for value in corruption.strengths)
        rows.append([corruption.title, f"`{name}`", strengths, corruption.meaning])
    return markdown_table(["Corruption", "Name", "Severities 1 to 5", "What the number is"], rows)
