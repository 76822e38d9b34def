"""A teacher: a copy of what is trained whose weights are a moving average of it, and which has no gradients."""

import copy

import torch
from torch import Tensor, nn


class Teacher(nn.Module):
    """A network's moving average: theta' <- m theta' + (1 - m) theta, after each update (Tarvainen and Valpola 2017).

    Only parameters follow. Buffers, as running statistics are, are its own.

    Parameters
    ----------
    student
        What is averaged: it is copied as it is.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """Follow an update of the student.

        Parameters
        ----------
        student
            As it was given, without wrappers.
        momentum
            Share of the average that stays.
        """
        own, new = ([p.detach() for p in each.parameters()] for each in (self.network, student))
        torch._foreach_lerp_(own, new, 1 - momentum)

    def tensors(self) -> dict[str, Tensor]:
        """Return weights and buffers by name, for `Objective.state_dict`."""
        return {f"teacher.{name}": value for name, value in self.network.state_dict().items()}
