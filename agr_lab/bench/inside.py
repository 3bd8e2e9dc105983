"""How long it takes to look inside: mean maps, and a sweep of corruptions."""

import time

import pandas as pd

from agr_lab.bench.steps import BenchSettings
from agr_lab.reports.face_maps import mean_maps
from agr_utils.data.load import load_data
from agr_utils.inside.map_tables import MAP_BATCH
from agr_utils.inside.sweep import SWEEP_BATCH, sweep
from agr_utils.models.network import MultiTaskNet


def bench_inside(settings: BenchSettings) -> pd.DataFrame:
    """Time mean maps (three tasks, two kinds) and a whole sweep (eleven corruptions, five severities), once each.

    Returns:
        One row a backbone and measure: ``backbone, image_size, batch_size, measure, num_images, seconds``.
    """
    size, count = settings.image_sizes[0], settings.num_inside
    data = load_data("synthetic", size, num_images=max(count, 10))
    rows = []
    for backbone in settings.inside_backbones:
        model = MultiTaskNet(backbone, "synthetic").eval()
        for measure, call, batch_size in (
            ("mean maps", mean_maps, MAP_BATCH),
            ("sweep of corruptions", sweep, SWEEP_BATCH),
        ):
            started = time.perf_counter()
            call(model, data, data.faces.index.to_numpy()[:count])
            row = {"backbone": backbone, "image_size": size, "batch_size": batch_size, "measure": measure}
            rows.append(row | {"num_images": count, "seconds": time.perf_counter() - started})
    return pd.DataFrame(rows)
