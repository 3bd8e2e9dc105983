"""The dense residual network that dlib recognises faces with (King 2017), as a backbone.

It is narrow (32 to 256 channels) and its convolutions are dense, which a CPU computes faster than depthwise ones of
fewer operations. Weights learned from faces are in the public domain (CC0), see ``agr_lab.gpu.initial_weights``.
"""

import torch.nn.functional as F
from torch import Tensor, nn

# name, input channels, output channels, whether it halves the side
BLOCKS = (
    ("conv32_1", 32, 32, False), ("conv32_2", 32, 32, False), ("conv32_3", 32, 32, False),
    ("conv64_down", 32, 64, True), ("conv64_1", 64, 64, False), ("conv64_2", 64, 64, False),
    ("conv64_3", 64, 64, False), ("conv128_down", 64, 128, True), ("conv128_1", 128, 128, False),
    ("conv128_2", 128, 128, False), ("conv256_down", 128, 256, True), ("conv256_1", 256, 256, False),
    ("conv256_2", 256, 256, False), ("conv256_down_out", 256, 256, True),
)  # fmt: skip


class FaceResNet(nn.Module):
    """(B, 3, H, W) float32 to (B, 256) pooled features; 14 residual blocks, 5.5 million parameters."""

    num_features = 256

    def __init__(self):
        super().__init__()
        self.stem = conv_norm(3, 32, kernel_size=7, stride=2, padding=0)
        self.blocks = nn.Sequential()
        for name, num_inputs, num_outputs, halves in BLOCKS:
            self.blocks.add_module(name, ResidualBlock(num_inputs, num_outputs, halves))

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features of normalised images."""
        features = F.max_pool2d(F.relu(self.stem(images)), kernel_size=3, stride=2)
        return self.blocks(features).mean(dim=(2, 3))


class ResidualBlock(nn.Module):
    """Two convolutions beside a path without weights, which averages and adds empty channels where the block halves."""

    def __init__(self, num_inputs: int, num_outputs: int, halves: bool):
        super().__init__()
        # dlib leaves out the border where it halves the side.
        self.conv1 = conv_norm(num_inputs, num_outputs, stride=2 if halves else 1, padding=0 if halves else 1)
        self.conv2 = conv_norm(num_outputs, num_outputs)
        self.halves, self.new_channels = halves, num_outputs - num_inputs

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to (B, D, H, W), or to half the side."""
        changed = self.conv2(F.relu(self.conv1(features)))
        if self.halves:
            features = F.avg_pool2d(features, 2)
            missing = features.shape[2] - changed.shape[2], features.shape[3] - changed.shape[3]
            changed = F.pad(changed, (0, missing[1], 0, missing[0]))
            features = F.pad(features, (0, 0, 0, 0, 0, self.new_channels))
        return F.relu(changed + features)


def conv_norm(num_inputs: int, num_outputs: int, kernel_size: int = 3, stride: int = 1, padding: int = 1) -> nn.Module:
    """A convolution without a bias, and batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(num_inputs, num_outputs, kernel_size, stride, padding, bias=False), nn.BatchNorm2d(num_outputs)
    )
