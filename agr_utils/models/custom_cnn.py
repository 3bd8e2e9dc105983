"""A small dense residual network designed for 64 px faces and a CPU.

Three decisions, each against a habit of networks made for 224 px photographs on GPUs:

- Dense 3x3 convolutions. They do far more multiplications than depthwise ones, and each of them far faster on a CPU:
  a matrix product uses its vector units fully; in bfloat16 twice so.
- The stem keeps half resolution (32x32 of 64x64). A stem that quarters it, as ResNet's, throws the wrinkles away.
- Width where maps are large enough to be worth it: the last stage is 384 wide, not 512, so there are half as many
  parameters as in a ResNet-18.
"""

import torch
from torch import Tensor, nn


class ConvBlock(nn.Sequential):
    """3x3 convolution, batch normalisation, ReLU: ``(B, C_in, H, W)`` to ``(B, C_out, H/stride, W/stride)``."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class SqueezeExcite(nn.Module):
    """Channel attention (Hu et al. 2018): weigh each channel by what the whole map shows."""

    def __init__(self, channels: int, reduction: int = 8):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1)
        self.excite = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        weights = torch.relu(self.squeeze(x.mean(dim=(2, 3), keepdim=True)))  # (B, C/r, 1, 1)
        return x * torch.sigmoid(self.excite(weights))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, channel attention and a short cut (He et al. 2016): the shape stays the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = ConvBlock(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        nn.init.zeros_(self.second[1].weight)  # the block starts as the identity, which trains faster
        self.attention = SqueezeExcite(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        return torch.relu(x + self.attention(self.second(self.first(x))))


class CustomCNN(nn.Module):
    """Stem and four stages; ``(B, 3, H, W)`` to features ``(B, widths[-1], H/16, W/16)``.

    Args:
        widths: channels of the stem and of the three stages.
        depths: residual blocks in each of the three stages.
    """

    def __init__(self, widths: tuple[int, ...] = (48, 96, 192, 384), depths: tuple[int, ...] = (1, 2, 1)):
        super().__init__()
        self.stem = nn.Sequential(ConvBlock(3, 32, stride=2), ConvBlock(32, widths[0]))
        stages = []
        for in_width, out_width, depth in zip(widths[:-1], widths[1:], depths, strict=True):
            blocks = [ResidualBlock(out_width) for _ in range(depth)]
            stages.append(nn.Sequential(ConvBlock(in_width, out_width, stride=2), *blocks))
        self.stages = nn.Sequential(*stages)
        self.num_features = widths[-1]

    def forward_features(self, x: Tensor) -> Tensor:
        """Last map: ``(B, 3, H, W)`` to ``(B, C, H/16, W/16)``."""
        return self.stages(self.stem(x))

    def forward(self, x: Tensor) -> Tensor:
        """Features, averaged over the map: ``(B, 3, H, W)`` to ``(B, C)``."""
        return self.forward_features(x).mean(dim=(2, 3))
