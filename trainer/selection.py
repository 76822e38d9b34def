"""Which checkpoint of a run is the best one by a metric of the validation, and when a run ends early."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from shardkit.errors import ArgumentError
from trainer.config import SelectConfig
from trainer.validation import Measured

LOSS: Final = "loss"
_LESS: Final = ("loss", "mae", "mse", "rmse", "error", "brier", "ece")
"""Last words of the names of metrics of which less is better; of all others more is."""


def less_is_better(metric: str) -> bool:
    """Return whether a smaller value of a metric is the better one, by its name: val_loss, mae, ..."""
    return metric.rpartition("_")[2] in _LESS


def selection_notes(config: SelectConfig) -> list[str]:
    """Return what a reader of scores has to know of how a checkpoint is chosen, in sentences."""
    told = "validation and the choice of the best checkpoint read the test split: scores on it are too good"
    return [f"--select.split test: {told}"] if config.split == "test" else []


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was chosen so far: a checkpoint says it in its `progress.json`.

    Attributes
    ----------
    metric, split : str
        By which metric, of which split.
    step : int or None
        Global steps of the best checkpoint; None where none could be measured yet.
    value : float or None
        Its metric.
    since : int
        Validations after it that were not better.
    measured_on : str
        As of `Validation`: names images and targets of the value; empty where an older version chose.
    """

    metric: str
    split: str
    step: int | None = None
    value: float | None = None
    since: int = 0
    measured_on: str = ""

    @property
    def told(self) -> str:
        """The choice in words."""
        if self.step is None or self.value is None:
            return f"no checkpoint was chosen: {self.metric} could not be measured on the {self.split} split"
        return f"best {self.metric} on the {self.split} split: {self.value:.5g}, at step {self.step:,}"


class Selection:
    """Follows a metric over the validations of a run. Ties keep the earlier checkpoint; what is no number never wins.

    Parameters
    ----------
    config
        Metric, split and patience.
    measured_on
        Names images and targets of the validations to come; empty where none is to come.
    """

    def __init__(self, config: SelectConfig, measured_on: str = "") -> None:
        self.config = config
        self.chosen = Chosen(config.metric, config.split, measured_on=measured_on)

    @property
    def ended(self) -> bool:
        """Whether the metric has not become better for as many validations as were to be waited for."""
        return bool(self.config.metric and self.config.patience) and self.chosen.since >= self.config.patience

    def saw(self, step: int, measured: Measured) -> bool:
        """Take note of a validation; return whether it is the best so far.

        Raises
        ------
        ArgumentError
            For a metric that the validation does not have.
        """
        name = self.config.metric
        if not name:
            return False
        known = {LOSS: measured.loss, **measured.metrics}
        if name not in known:
            raise ArgumentError(f"--select.metric {name} is not measured: choose one of {', '.join(known)}")
        value, before = known[name], self.chosen.value
        sign = -1 if less_is_better(name) else 1
        if value is None or not math.isfinite(value) or (before is not None and sign * value <= sign * before):
            self.chosen = replace(self.chosen, since=self.chosen.since + 1)
            return False
        self.chosen = replace(self.chosen, step=step, value=float(value), since=0)
        return True

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint has to say of it; nothing where nothing is chosen."""
        return asdict(self.chosen) if self.config.metric else {}

    def load(self, facts: dict[str, Any]) -> None:
        """Go on with what a checkpoint said; begin anew where that was measured on other images or targets."""
        if self.config.metric and facts:
            found, now = Chosen(**facts), self.chosen.measured_on
            if not now or found.measured_on in ("", now):
                self.chosen = replace(found, measured_on=now or found.measured_on)
