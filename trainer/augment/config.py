"""Which augmentations a run has, as a record of plain values, and the function that it builds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import NamedTuple

from torch import Tensor

from trainer.augment import affine, bias_field, blur, gamma, noise, rand, rand_text
from trainer.augment.draws import draws
from trainer.augment.levels import Levels
from trainer.values import require

Augment = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of training images, besides the batching's crop and flip. By default there are none.

    Parameters
    ----------
    rand
        RandAugment, by timm's text: rand-m6-mstd0.5-inc1.
    rotate
        Greatest angle of a rotation of every image, in degrees.
    affine
        Probability of a rotation with a scale for each axis.
    affine_scale
        Least and greatest scale.
    affine_degrees
        Greatest angle.
    gamma
        Probability that grey levels are raised to a power.
    gamma_log
        Greatest size of the power's logarithm.
    noise
        Probability of Gaussian noise.
    noise_sigma
        Greatest standard deviation, in grey levels as normalised.
    bias_field
        Probability of a smooth field of brightness.
    bias_field_order
        Order of the polynomial that is its logarithm.
    bias_field_coefficient
        Greatest size of the polynomial's coefficients.
    blur
        Probability of a Gaussian blur.
    blur_sigma
        Greatest standard deviation, in pixels.
    """

    rand: str = ""
    rotate: float = 0.0
    affine: float = 0.0
    affine_scale: tuple[float, float] = (0.9, 1.1)
    affine_degrees: float = 20.0
    gamma: float = 0.0
    gamma_log: float = 0.5
    noise: float = 0.0
    noise_sigma: float = 0.25
    bias_field: float = 0.0
    bias_field_order: int = 3
    bias_field_coefficient: float = 0.5
    blur: float = 0.0
    blur_sigma: float = 2.0

    def build(self, levels: Levels | None = None) -> Augment | None:
        """Return the function for `shardkit.Loader(augment=...)`; None where nothing is asked for.

        Parameters
        ----------
        levels
            What black and white are in the images; see `trainer.augment.levels`.

        Raises
        ------
        ArgumentError
            For values that nothing can be drawn from.
        """
        self._check()
        changes = [change for change in self._changes(levels) if change.chance > 0]
        return partial(_changed, changes=tuple(changes)) if changes else None

    def _check(self) -> None:
        for name in ("affine", "gamma", "noise", "bias_field", "blur"):
            value = getattr(self, name)
            require(f"augment.{name}", value, 0 <= value <= 1, "a probability, from 0 to 1")
        strengths = ("affine_degrees", "gamma_log", "noise_sigma", "bias_field_order", "bias_field_coefficient")
        for name in ("rotate", *strengths, "blur_sigma"):
            value = getattr(self, name)
            require(f"augment.{name}", value, 0 <= value < float("inf"), "0 or more")
        least, greatest = self.affine_scale
        holds = 0 < least <= greatest < float("inf")
        require("augment.affine_scale", self.affine_scale, holds, "two numbers above 0, the least first")

    def _changes(self, levels: Levels | None) -> "list[_Change]":
        """List all: what some studies do before anything else, then torchio's in its own order."""
        policy = rand_text.from_text(self.rand or "rand")
        return [
            _Change("rand", float(bool(self.rand)), lambda i, r: rand.rand(i, rand.draw(r, policy), levels)),
            _Change(
                "rotate", float(self.rotate > 0), lambda i, r: affine.affine(i, *affine.draw(r, (1, 1), self.rotate))
            ),
            _Change(
                "affine",
                self.affine,
                lambda i, r: affine.affine(i, *affine.draw(r, self.affine_scale, self.affine_degrees)),
            ),
            _Change("gamma", self.gamma, lambda i, r: gamma.gamma(i, gamma.draw(r, self.gamma_log))),
            _Change("noise", self.noise, lambda i, r: noise.noise(i, *noise.draw(r, self.noise_sigma))),
            _Change(
                "bias_field",
                self.bias_field,
                lambda i, r: bias_field.bias_field(
                    i, bias_field.draw(r, self.bias_field_order, self.bias_field_coefficient)
                ),
            ),
            _Change("blur", self.blur, lambda i, r: blur.blur(i, blur.draw(r, self.blur_sigma))),
        ]


class _Change(NamedTuple):
    """What is done to an image with this probability, with numbers of this generator."""

    name: str
    chance: float
    change: Callable[[Tensor, Random], Tensor]


def _changed(image: Tensor, seed: int, changes: tuple[_Change, ...]) -> Tensor:
    for each in changes:
        random = draws(seed, each.name)
        if random.random() < each.chance:
            image = each.change(image, random)
    return image
