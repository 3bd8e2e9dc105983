"""The pixel cache against the usual pipeline: open a JPEG file, torchvision's transforms, a DataLoader."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from tqdm import tqdm

from agr_lab.bench.steps import BenchSettings, summarize_rates, take_turns, time_images
from agr_utils.data.augment import Augmentation
from agr_utils.data.load import REAL_DATA, FaceData, load_data
from agr_utils.data.synthetic import draw_faces
from agr_utils.errors import InputError
from agr_utils.models.network import PIXEL_MEAN, PIXEL_STD
from agr_utils.profiles import get_data_name
from agr_utils.training.batches import Labels, epoch_batches, load_pixels
from agr_utils.training.config import TrainConfig
from agr_utils.training.trainer import Trainer

BACKBONE = "mobilenet_v3"  # the fastest to train, so the one that waits longest for its data
WORKERS, PREFETCH = 2, 2  # of the DataLoader; the second is its default
# Of one pass of the DataLoader, the batches before the timed ones, those, and the ones its workers prefetch meanwhile.
LEAD, TIMED, TAIL = 2, 8, WORKERS * PREFETCH
TIME_SHARES = {"training": 2.0, "loading": 0.5, "loading and augmenting": 0.5}  # of what is spent on each measure


@dataclass(frozen=True)
class FaceFolder:
    """Image files to measure with, named and labelled as a data set's; ``cache_dir`` None is the usual place."""

    name: str
    folder: Path
    cache_dir: Path | None = None

    def load(self, image_size: int) -> FaceData:
        """The files as a data set, through their pixel cache; three fifths of them are the training split."""
        protocol = "random-5fold-0"  # the default leaves out every file that is not UTKFace's
        return load_data(
            self.name, image_size, self.folder, protocol=protocol, skip_unreadable=True, cache_dir=self.cache_dir
        )


@contextmanager
def open_faces(source: Path | None, settings: BenchSettings) -> Iterator[FaceFolder]:
    """A folder of real faces, or of drawn ones that are deleted afterwards; an InputError for anything else."""
    if source is not None:
        if not source.is_dir():
            raise InputError(
                f"{source}: not a folder, and the usual pipeline opens files. Unpack it and say --source FOLDER, or "
                "unset AGR_DATA_DIR to measure with drawn faces"
            )
        yield FaceFolder(get_data_name() if get_data_name() in REAL_DATA else "utkface", source)
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:  # Windows keeps mapped files
        folder = Path(temporary) / "faces"
        folder.mkdir()
        drawn = draw_faces(settings.num_faces, settings.face_size)
        for row, pixels in zip(drawn.faces.itertuples(), drawn.pixels, strict=True):
            name = f"{int(row.age)}_{row.gender}_{row.race}_{20170112213500000 + row.Index}.jpg.chip.jpg"
            Image.fromarray(pixels).save(folder / name, quality=95)
        yield FaceFolder("utkface", folder, Path(temporary) / "cache")


class JpegDataset(Dataset):
    """What most projects write: each item opens a file and transforms the RGB image to a (3, S, S) float32 tensor."""

    def __init__(self, folder: Path, data: FaceData, rows: np.ndarray, transform: Callable[[Image.Image], Tensor]):
        self.paths = [folder / path for path in data.faces["path"].iloc[rows]]
        self.labels = {name: column[rows] for name, column in Labels(data).columns.items()}
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, np.generic]]:
        image = self.transform(Image.open(self.paths[index]).convert("RGB"))
        return image, {name: column[index] for name, column in self.labels.items()}


def usual_transforms(image_size: int, strength: Augmentation | None) -> transforms.Compose:
    """Torchvision's transforms on PIL images (faster there than its v2), as strong as this package's augmentation.

    ``strength`` None only resizes and makes a tensor in [0, 1].
    """
    resize = transforms.Resize((image_size, image_size))
    if strength is None:
        return transforms.Compose([resize, transforms.ToTensor()])
    affine = transforms.RandomAffine(
        strength.rotation,
        translate=(strength.translation, strength.translation),
        scale=(1 - strength.scale, 1 + strength.scale),
        interpolation=transforms.InterpolationMode.BILINEAR,
    )
    return transforms.Compose(
        [
            resize,
            transforms.RandomHorizontalFlip(strength.flip),
            transforms.RandomApply([affine], strength.affine),
            transforms.ColorJitter(strength.colour, strength.colour, strength.colour),
            transforms.ToTensor(),
            transforms.Normalize((PIXEL_MEAN,) * 3, (PIXEL_STD,) * 3),
            transforms.RandomErasing(strength.erase, scale=(0.05, 0.25), ratio=(0.5, 2.0)),
        ]
    )


def bench_pipelines(settings: BenchSettings, faces: FaceFolder) -> pd.DataFrame:
    """Time both pipelines on the same files, with the same model, batches and strength of augmentation.

    All files lie in the operating system's cache, and the DataLoader's workers live on between turns.

    Returns:
        One row per image size and measure (``training``: from data to updated weights; ``loading``: to float tensors;
        ``loading and augmenting``): ``images_per_second, slowest, fastest``, the same of the usual pipeline with
        ``peer_``, and ``ratio`` (the quotient of the medians).
    """
    rows = []
    for image_size in settings.image_sizes:
        all_turns = _make_turns(faces, image_size, settings.batch_size)
        for measure, turns in tqdm(all_turns.items(), desc=f"pipelines at {image_size} px", unit="measure"):
            rates = take_turns(turns, settings.seconds * TIME_SHARES[measure], settings.min_rounds)
            row = {"measure": measure, "image_size": image_size, "batch_size": settings.batch_size}
            row |= summarize_rates(rates["cache"]) | summarize_rates(rates["files"], "peer_")
            row["ratio"] = row["images_per_second"] / row["peer_images_per_second"]
            rows.append(row | {"rounds": len(rates)})
    return pd.DataFrame(rows)


def _make_turns(faces: FaceFolder, image_size: int, batch_size: int) -> dict[str, dict[str, Callable[[], float]]]:
    """For each measure the turn of either pipeline."""
    data, count = faces.load(image_size), (LEAD + TIMED + TAIL) * batch_size
    if len(data.rows("train")) < count:
        needed = -(-count * 5 // 3)
        raise InputError(f"{faces.folder}: {len(data.faces)} images are too few to measure with; give {needed} or more")
    rows = np.random.default_rng(0).choice(data.rows("train"), count, replace=False)
    config = TrainConfig(data=data.scheme.name, backbone=BACKBONE, image_size=image_size, batch_size=batch_size)
    trainer = Trainer(config, data)
    trainer.model.train()
    batches = cycle(epoch_batches(rows, 0, 0, batch_size))
    options = {"num_workers": WORKERS, "prefetch_factor": PREFETCH, "persistent_workers": True}
    options |= {"shuffle": True, "pin_memory": torch.cuda.is_available()}
    plain, augmented = (
        DataLoader(JpegDataset(faces.folder, data, rows, usual_transforms(image_size, strength)), batch_size, **options)
        for strength in (None, config.augmentation)
    )

    def time_batches(use: Callable[[np.ndarray], object]) -> float:
        """Images a second of the next batches of rows."""
        return time_images(lambda: [use(next(batches)) for _ in range(TIMED)], TIMED * batch_size)

    def train(images: Tensor, labels: dict[str, Tensor]) -> None:
        device = trainer.accelerator.device
        trainer.optimize(images.to(device), {name: column.to(device) for name, column in labels.items()})

    def load(images: Tensor, labels: dict[str, Tensor]) -> None:
        """Nothing more: the loader has done it."""

    # measure -> what is done with the rows of a batch, the loader, and what is done with its batches
    pairs = {
        "training": (trainer.train_step, augmented, train),
        "loading": (partial(load_pixels, data), plain, load),
        "loading and augmenting": (trainer.make_batch, augmented, load),
    }
    return {
        measure: {
            "cache": partial(time_batches, use_rows),
            "files": partial(_time_middle, loader, use_batch, batch_size),
        }
        for measure, (use_rows, loader, use_batch) in pairs.items()
    }


def _time_middle(loader: DataLoader, use: Callable[[Tensor, dict[str, Tensor]], object], batch_size: int) -> float:
    """Images a second in the middle of a DataLoader's pass.

    At its beginning the workers have nothing ready and at its end nothing left to do; in between, as much is prefetched
    at the end of the timed batches as was at their start. The rest is waited for, so that no worker is busy in the
    other pipeline's turn.
    """
    batches = iter(loader)
    for _ in range(LEAD):
        use(*next(batches))
    rate = time_images(lambda: [use(*next(batches)) for _ in range(TIMED)], TIMED * batch_size)
    for _ in batches:
        pass
    return rate
