"""What other cameras do to a face, as changes of a batch on the device that holds it.

``agr_utils.data.augment`` keeps a face as one data set shows it. Faces of other data sets are turned, cropped wider or
closer, darker, greyer, smaller and more compressed: every change here is one of those, with its own random strength.
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from agr_utils.data.augment import erase_


class Changes:
    """Random changes of a batch, all drawn from one generator on the device.

    Args:
        generator: the only source of randomness.
        strength: 1 for the published one; scales angles, crops and colours.
    """

    def __init__(self, generator: Generator, strength: float = 1.0):
        self.generator, self.strength = generator, strength
        self.cosine, self.luminance = _cosine_matrix(generator.device), _luminance_steps(generator.device)

    def __call__(self, images: Tensor, size: int) -> Tensor:
        """(B, 3, H, W) float32 in [0, 1] to (B, 3, size, size) float32 in [0, 1]."""
        images = self.warp(images, size)
        images = self.low_resolution(images)
        images = self.light(images)
        images = self.blur(images)
        images = self.jpeg(images)
        images = images + self.normal(images.shape[0], 1, 1, 1).abs() * 0.03 * self.chosen(images, 0.3) * torch.randn(
            images.shape, generator=self.generator, device=images.device
        )
        return self.erase(images).clamp(0, 1)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform numbers on the device."""
        return torch.rand(shape, generator=self.generator, device=self.generator.device) * (high - low) + low

    def normal(self, *shape: int) -> Tensor:
        """Gaussian numbers on the device."""
        return torch.randn(shape, generator=self.generator, device=self.generator.device)

    def chosen(self, images: Tensor, probability: float) -> Tensor:
        """1 for images that are changed, else 0: (B, 1, 1, 1) float32."""
        return (self.uniform(0, 1, len(images), 1, 1, 1) < probability).float()

    def warp(self, images: Tensor, size: int) -> Tensor:
        """Mirror, rotate, scale, stretch, shear, shift and tilt each image, in one resampling to ``size``."""
        count, strength = len(images), self.strength
        angle = self.normal(count) * (12 * strength * math.pi / 180)
        scale = torch.exp(self.uniform(-0.35, 0.3, count) * strength)  # of what is seen: below 1 is a closer crop
        stretch = torch.exp(self.normal(count) * 0.08 * strength)
        mirror = 1 - 2 * (self.uniform(0, 1, count) < 0.5).float()
        shear = self.normal(count) * 0.07 * strength
        shift = self.normal(2, count) * 0.06 * strength
        tilt = self.normal(2, count) * 0.08 * strength  # perspective: a head that is turned, roughly
        line = (torch.arange(size, device=images.device) + 0.5) * (2 / size) - 1
        y, x = torch.meshgrid(line, line, indexing="ij")
        cos, sin = (value[:, None, None] for value in (angle.cos() * scale, angle.sin() * scale))
        mirror, stretch, shear = (value[:, None, None] for value in (mirror, stretch, shear))
        depth = 1 + tilt[0][:, None, None] * x + tilt[1][:, None, None] * y
        x, y = (mirror * stretch * x + shear * y) / depth, y / (stretch * depth)
        grid = torch.stack(
            [cos * x - sin * y + shift[0][:, None, None], sin * x + cos * y + shift[1][:, None, None]], 3
        )
        # What lies outside: the border drawn out, or black, or a mirror image, a third of a batch each.
        parts = torch.tensor_split(torch.arange(count, device=images.device), 3)
        modes = ("border", "zeros", "reflection")
        sampled = [
            F.grid_sample(images[part], grid[part], padding_mode=mode, align_corners=False)
            for part, mode in zip(parts, modes, strict=True)
        ]
        return torch.cat(sampled)

    def low_resolution(self, images: Tensor) -> Tensor:
        """Shrink and enlarge a quarter of the images, to 0.3, 0.5 and 0.7 of the side."""
        size = images.shape[3]
        order = self.uniform(0, 1, len(images)).argsort()[: len(images) // 4]
        images = images.clone()
        for part, factor in zip(order.tensor_split(3), (0.3, 0.5, 0.7), strict=True):
            small = F.interpolate(images[part], size=max(16, round(size * factor)), mode="bilinear", antialias=True)
            images[part] = F.interpolate(small, size=size, mode="bilinear")
        return images

    def light(self, images: Tensor) -> Tensor:
        """Gamma, contrast, brightness, colour cast, saturation to grey, and light from one side."""
        count, strength = len(images), self.strength
        gamma = torch.exp(self.normal(count, 1, 1, 1) * 0.35 * strength)
        images = images.clamp(1e-4, 1) ** gamma
        grey = images.mean(dim=1, keepdim=True)
        saturation = self.uniform(0.4, 1.4, count, 1, 1, 1)
        saturation = saturation * (1 - self.chosen(images, 0.12))  # an eighth becomes grey
        images = grey + (images - grey) * saturation
        images = images * torch.exp(self.normal(count, 3, 1, 1) * 0.08 * strength)
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        contrast = torch.exp(self.normal(count, 1, 1, 1) * 0.25 * strength)
        brightness = torch.exp(self.normal(count, 1, 1, 1) * 0.25 * strength)
        images = (mean + (images - mean) * contrast) * brightness
        line = torch.linspace(-1, 1, images.shape[3], device=images.device)
        side = self.normal(2, count, 1, 1, 1) * 0.3 * self.chosen(images, 0.4)
        return images * torch.exp(side[0] * line + side[1] * line[:, None])

    def blur(self, images: Tensor) -> Tensor:
        """A Gaussian of up to 2.2 pixels over a third of the images, horizontally and vertically by its own width."""
        count, radius = len(images), 4
        offsets = torch.arange(-radius, radius + 1, device=images.device)
        chosen = self.chosen(images, 0.35)[:, :, 0, 0]
        for axis in (2, 3):
            sigma = 0.05 + self.uniform(0, 2.2, count, 1) * chosen
            kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
            kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)  # (3 B, 9)
            shape = (3 * count, 1, -1, 1) if axis == 2 else (3 * count, 1, 1, -1)
            padding = (radius, 0) if axis == 2 else (0, radius)
            flat = images.reshape(1, 3 * count, *images.shape[2:])
            images = F.conv2d(flat, kernel.view(shape), padding=padding, groups=3 * count).view_as(images)
        return images

    def jpeg(self, images: Tensor) -> Tensor:
        """Blocks of 8x8 whose cosine coefficients are rounded as in JPEG of quality 15 to 90, in half the images."""
        size = images.shape[3] // 8 * 8
        blocks = images[:, :, :size, :size].unfold(2, 8, 8).unfold(3, 8, 8)  # (B, 3, n, n, 8, 8)
        cosine = self.cosine
        coefficients = cosine @ blocks @ cosine.T
        quality = self.uniform(15, 90, len(images), 1, 1, 1, 1, 1)
        factor = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
        step = (self.luminance * factor).clamp(min=1) / 255
        blocks = cosine.T @ ((coefficients / step).round() * step) @ cosine
        coded = blocks.permute(0, 1, 2, 4, 3, 5).reshape(len(images), 3, size, size)
        chosen = self.chosen(images, 0.5)
        images = images.clone()
        images[:, :, :size, :size] = torch.lerp(images[:, :, :size, :size], coded, chosen)
        return images

    def erase(self, images: Tensor) -> Tensor:
        """One grey rectangle of 5 to 25 % of the area in a fifth of the images (Zhong et al. 2020)."""
        return erase_(images, 0.2, self.uniform(0, 1, 5, len(images)))


def _cosine_matrix(device: torch.device) -> Tensor:
    """Orthonormal DCT-II of eight values, (8, 8)."""
    k = torch.arange(8, device=device, dtype=torch.float32)
    matrix = torch.cos((2 * k + 1) * k[:, None] * math.pi / 16) * 0.5
    matrix[0] = math.sqrt(1 / 8)
    return matrix


def _luminance_steps(device: torch.device) -> Tensor:
    """JPEG's example table of luminance quantisation (ITU-T T.81, table K.1), (8, 8)."""
    rows = (
        (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
        (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
        (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
    )  # fmt: skip
    return torch.tensor(rows, device=device, dtype=torch.float32)
