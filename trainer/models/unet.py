"""A U-Net's decoder on the feature maps of a convolutional network.

Shapes, as segmentation_models_pytorch describes those of its Unet: each stage doubles rows and columns (nearest
neighbour), puts the encoder's map of that size behind the channels, and has two 3 x 3 convolutions with batch
normalisation and ReLU; a last 3 x 3 convolution gives the channels of an image.
"""

from collections.abc import Mapping, Sequence
from typing import Final, final

import torch
from torch import Tensor, nn

WIDTHS: Final = (256, 128, 64, 32, 16)
"""Channels of the stages of segmentation_models_pytorch."""


def stage(wide: int, width: int) -> nn.Sequential:
    """Return two convolutions, each with batch normalisation and ReLU."""
    layers: list[nn.Module] = []
    for before in (wide, width):
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


@final
class UnetDecoder(nn.Module):
    """From the deepest feature map to an image.

    Parameters
    ----------
    width, stride
        Channels of the deepest map, and pixels of the image for one of its cells, a power of 2.
    skips
        Channels of the encoder's other maps by their stride; a stage without one of its size has none to put behind.
    channels
        Of the image.
    widths
        Channels of the stages, from the deepest; as many as there are are used.
    """

    def __init__(
        self, width: int, stride: int, skips: Mapping[int, int], channels: int, widths: Sequence[int] = WIDTHS
    ) -> None:
        super().__init__()
        self.strides = [stride >> i for i in range(1, stride.bit_length())]  # after each stage
        stages: list[nn.Module] = []
        for at, own in zip(self.strides, widths, strict=False):
            stages.append(stage(width + skips.get(at, 0), own))
            width = own
        self.stages = nn.ModuleList(stages)
        self.head = nn.Conv2d(width, channels, 3, padding=1)
        for module in stages:
            for layer in module.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_uniform_(layer.weight, mode="fan_in", nonlinearity="relu")
        nn.init.xavier_uniform_(self.head.weight)
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)

    def forward(self, deepest: Tensor, maps: Mapping[int, Tensor]) -> Tensor:
        """Decode: (B, width, h, w), and the other maps by their stride, -> (B, channels, h * stride, w * stride)."""
        x = deepest
        for stride, block in zip(self.strides, self.stages, strict=True):
            x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([x, maps[stride]], 1) if stride in maps else x)
        return self.head(x)  # type: ignore[no-any-return]
