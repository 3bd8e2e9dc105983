"""From a name to data: the faces table and the pixels that belong to its rows."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from agr_utils.data import fairface, own_table, splits, synthetic, utkface
from agr_utils.data.duplicates import read_groups
from agr_utils.data.pixels import build_cache, cache_folder, open_cache
from agr_utils.data.reading.skipped import Skipped
from agr_utils.data.reading.sources import list_images
from agr_utils.dials import SyntheticSettings
from agr_utils.errors import InputError
from agr_utils.profiles import get_cache_dir, get_data_dir
from agr_utils.tasks import OWN_TABLE, LabelScheme, Task, get_scheme

REAL_DATA = {"utkface": lambda paths, source, skipped: utkface.read_names(paths), "fairface": fairface.read_labels}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FaceData:
    """Images with their labels."""

    faces: pd.DataFrame  #: the faces table, N rows
    pixels: np.ndarray  #: (N, S, S, 3) uint8, row i belongs to row i of ``faces``; mapped from disk for real data
    scheme: LabelScheme  #: what the label codes mean
    skipped: Skipped = field(default_factory=Skipped)  #: what else there is, and why it was left out

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of a split (``train``, ``validation``, ``test``, ``unlisted``), (n,) int64.

        Raises:
            InputError: if the split has no image.
        """
        rows = np.flatnonzero((self.faces["split"] == split).to_numpy(dtype=bool, na_value=False))
        if len(rows) == 0:
            counts = self.faces["split"].value_counts().to_dict()
            own = self.scheme.name == OWN_TABLE
            advice = "Write it into the column split of some rows" if own else "Choose another split or protocol"
            advice += ", or train without it: --no-test" if split == "test" else ""
            raise InputError(f"no image in the split '{split}' (there are: {counts}). {advice}")
        return rows

    def sample(self, split: str, count: int, seed: int = 0) -> np.ndarray:
        """About ``count`` rows of a split, whole near-duplicate groups drawn at random: sorted row numbers.

        Args:
            split: see ``rows``.
            count: groups are drawn until there are as many rows; all rows where there are no more.
            seed: of the drawing.

        Raises:
            InputError: if the split has no image, or ``count`` is below 1.
        """
        if count < 1:
            raise InputError(f"a sample of {count} images. Ask for at least one")
        rows = self.rows(split)
        codes, names = pd.factorize(self.faces["group"].iloc[rows])
        place = np.random.default_rng(seed).permutation(len(names))[codes]  # of each row's group in the drawing
        order = np.argsort(place, kind="stable")
        last = place[order[min(count, len(rows)) - 1]]
        return rows[place <= last]


def load_data(
    name: str = "synthetic",
    image_size: int = 64,
    source: Path | None = None,
    num_images: int | None = None,
    seed: int = 0,
    protocol: str = "grouped",
    skip_unreadable: bool = False,
    settings: SyntheticSettings = SyntheticSettings(),
    cache_dir: Path | None = None,
    labels: Sequence[Task] = (),
) -> FaceData:
    """Load a data set, building its pixel cache (and FairFace's near-duplicate groups) the first time.

    Args:
        name: ``synthetic``, ``utkface``, ``fairface``, or ``table`` for images and labels of one's own.
        image_size: side of the square images, in pixels.
        source: folder or archive of a real data set, or the CSV file of a table; ``AGR_DATA_DIR`` where it is None.
        num_images: synthetic images to draw, 4,000 where it is None; real data is always taken whole.
        seed: of the synthetic drawing.
        protocol: how a real data set is split, see ``agr_utils.data.splits``.
        skip_unreadable: leave images out that cannot be read, instead of stopping.
        settings: the dials of the synthetic drawing.
        cache_dir: where pixel caches are kept; ``AGR_CACHE_DIR`` where it is None.
        labels: what the columns of a table mean.

    Raises:
        InputError: for an unknown name, or real data that is not where it was said to be.
    """
    scheme = get_scheme(name, labels)
    if name == "synthetic":
        drawn = synthetic.draw_faces(4_000 if num_images is None else num_images, image_size, seed, settings)
        return FaceData(drawn.faces, drawn.pixels, scheme)
    source = Path(source) if source else get_data_dir()
    if source is None:
        if name == OWN_TABLE:
            raise InputError("the labels are in a table of one's own. Name its CSV file with --source")
        raise InputError(
            f"{name} is not part of this project. Get it (docs/data.md) and set AGR_DATA_DIR to where it lies"
        )
    table, source = (source, source.parent) if name == OWN_TABLE else (None, source)
    if table is not None:
        own_table.read_rows(table, labels)  # what is wrong with it is said before its folder is searched
    cache_dir, skipped = cache_dir or get_cache_dir(), Skipped()
    folder = cache_folder(source, image_size, cache_dir)
    paths = list_images(source, skipped)
    if not folder.exists():
        # What is wrong with it is said before minutes of decoding.
        read_faces(name, paths, source, protocol, table=table, labels=labels)
        build_cache(source, image_size, folder, skip_unreadable)
    pixels, paths, decoded, errors = open_cache(folder)
    if errors and not skip_unreadable:
        raise InputError(
            f"{source}: {len(errors)} images cannot be read, first: {errors[0]}. Skip them with --skip-unreadable"
        )
    groups = read_groups(source, cache_dir) if name in ("fairface", OWN_TABLE) else None
    faces = read_faces(name, paths, source, protocol, groups, skipped, table, labels)
    # Rows stay in step with the mapped pixels: an image that could not be read keeps its (black) place, in no split.
    faces.loc[~decoded, "split"] = "unreadable"
    for path in faces["path"][~decoded]:
        skipped.add("unreadable", path)
    if skipped:
        logger.warning("%s: %s", source, skipped)
    return FaceData(faces, pixels, scheme, skipped)


def read_faces(
    name: str,
    paths: list[str],
    source: Path,
    protocol: str = "grouped",
    groups: dict[str, int] | None = None,
    skipped: Skipped | None = None,
    table: Path | None = None,
    labels: Sequence[Task] = (),
) -> pd.DataFrame:
    """Faces table of a real data set, split by a protocol: labels and names only, no pixels; see ``load_data``.

    ``groups``: near-duplicate group of each path, where no committed file knows it; ``skipped`` is told what is left
    out. Of a data set of one's own, ``table`` is the CSV file, and ``labels`` say what its columns mean.
    """
    skipped = Skipped() if skipped is None else skipped
    if table is not None:
        return own_table.read_table_faces(table, paths, labels, groups or {}, skipped)
    faces = REAL_DATA[name](paths, source, skipped)
    if groups:
        faces["group"] = faces["path"].map(groups).astype("Int64")
    return splits.apply_protocol(faces, protocol, skipped)
