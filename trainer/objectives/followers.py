"""What methods with a second network share: which encoder it is, and batch norms that train without gradients."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from shardkit.errors import ArgumentError
from trainer.models.base import EncoderConfig, ModelConfig


def encoder_config(model: ModelConfig, method: str) -> EncoderConfig:
    """Return a model's record as one of an encoder.

    Raises
    ------
    ArgumentError
        Where it describes no encoder.
    """
    if not isinstance(model, EncoderConfig):
        raise ArgumentError(f"{method} trains an encoder, and a {type(model).__name__} has none: choose another recipe")
    return model


def set_training(network: nn.Module, training: bool) -> None:
    """Switch a network without gradients to training or validation.

    An encoder none of whose weights has gradients keeps its statistics as they are, as a frozen one should. A teacher's
    batch norms, though, normalise by the images that it is shown, and its statistics follow them.

    Parameters
    ----------
    network
        A teacher.
    training
        Whether it is shown images of the training.
    """
    network.train(training)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.train(training)


def first_view(batching: Any) -> Any:
    """Return what an encoder asks a batching, patch and side, answered for the first view."""
    views = getattr(batching, "views", None)
    return SimpleNamespace(patch=batching.patch, side=views[0].side) if views else batching


def exact(values: Tensor) -> Tensor:
    """Return values in float32, or float64 where they were that."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
