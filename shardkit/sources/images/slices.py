"""Which slices of a volume are taken: the option ``--slices axis=2,from=20,to=140,step=1``."""

from dataclasses import dataclass

from shardkit.errors import ArgumentError

_BEYOND = 1 << 16
_FORM = "--slices must be like axis=2,from=20,to=140,step=1"


@dataclass(frozen=True, slots=True)
class Slices:
    """Slices of a volume.

    Attributes
    ----------
    axis : int
        The stored axis that is cut across, 0 to 2.
    first, end : int
        First slice to take, from 0, and the first that is left out again; it may lie beyond the volume.
    step : int
        Every how many.
    """

    axis: int = 2
    first: int = 0
    end: int = _BEYOND
    step: int = 1

    def of(self, count: int) -> range:
        """Return the numbers of the slices to take of `count`."""
        return range(self.first, min(self.end, count), self.step)


def parse(text: str) -> Slices:
    """Read the option.

    Raises
    ------
    ArgumentError
        Says what is wrong with it.
    """
    found: dict[str, int] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        if name not in ("axis", "from", "to", "step") or not number.isdecimal() or name in found:
            raise ArgumentError(f"{_FORM}: {part.strip()!r} is not one of its parts, or comes twice")
        found[name] = int(number)
    slices = Slices(found.get("axis", 2), found.get("from", 0), found.get("to", _BEYOND), found.get("step", 1))
    if slices.axis > 2 or slices.step < 1 or slices.end <= slices.first:
        raise ArgumentError(f"{_FORM}: the axis is 0, 1 or 2, the step at least 1, and `to` above `from`")
    return slices
