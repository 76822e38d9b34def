"""Where the images of a batch are put, and what they lie in there."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shardkit.loader.buffers import Buffers


@dataclass(frozen=True, slots=True)
class Canvas:
    """Where the images of a batch are put: on which device, in which type, in whose memory.

    On a CPU NumPy does the work: torch would start threads that spin, on cores that decode.

    Attributes
    ----------
    device : torch.device
        Where the tensors lie.
    dtype : torch.dtype
        Of the images: float32, float16 or bfloat16.
    clip : bool
        Whether values are cut off at 0 and 1.
    buffers : Buffers
        Memory that earlier batches had, which is used on a CPU.
    """

    device: torch.device
    dtype: torch.dtype
    clip: bool
    buffers: Buffers

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """Return a tensor for images, of this shape, whose values are whatever was there before."""
        if self.device.type == "cpu":
            return self.buffers.empty(shape, self.dtype)
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def clear(self, room: Tensor) -> None:
        """Set a part of such a tensor to 0."""
        if room.device.type == "cpu":
            _numbers(room)[...] = 0
        else:
            room.zero_()

    def put(self, room: Tensor, image: Tensor) -> None:
        """Copy an image into a part of such a tensor, cut off and converted. The image is not needed afterwards.

        Parameters
        ----------
        room : Tensor
            The part: (rows, cols), or blocks, (down, rows, right, cols).
        image : Tensor
            Of the room's shape, or float32 (1, rows, cols).
        """
        image = image if image.shape == room.shape else image.view(room.shape)
        if room.device.type != "cpu":
            room.copy_(image.clamp_(0.0, 1.0) if self.clip else image)
        elif image.dtype == room.dtype != torch.float32:  # the room of another batch
            np.copyto(_numbers(room), _numbers(image))
        elif self.clip and room.dtype == torch.float32:
            np.clip(image.numpy(), 0.0, 1.0, out=_numbers(room))
        else:
            convert(np.clip(image.numpy(), 0.0, 1.0) if self.clip else image.numpy(), room)

    def send(self, array: npt.NDArray[Any]) -> Tensor:
        """Put a small array on the device, without waiting for it."""
        return send(array, self.device)


def convert(values: npt.NDArray[np.float32], room: Tensor) -> None:
    """Copy numbers into a tensor on a CPU, rounded to the nearest one that its type has, even ones first.

    Parameters
    ----------
    values : ndarray of float32
        Finite ones.
    room : Tensor of float32, float16 or bfloat16
        Of the same shape.
    """
    if room.dtype == torch.bfloat16:  # which NumPy does not know: the upper half of a float32
        bits = np.ascontiguousarray(values).view(np.uint32)
        np.copyto(_numbers(room), ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16))
    else:
        np.copyto(_numbers(room), values, casting="same_kind")


def _numbers(room: Tensor) -> npt.NDArray[Any]:
    """Return a tensor's memory as an array; bfloat16 as uint16."""
    return (room.view(torch.uint16) if room.dtype == torch.bfloat16 else room).numpy()


def send(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Put an array on a device without waiting for it: by pinned memory."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
