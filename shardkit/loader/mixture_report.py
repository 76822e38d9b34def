"""What a mixture's members are of it: samples, pixels, and their shares of what an epoch shows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from shardkit.plan import EpochPlan
from shardkit.plan.samples import Samples

_CHUNK = 1 << 20  # samples whose pixels are added up together


@dataclass(frozen=True, slots=True)
class MemberShare:
    """A member of a mixture.

    Attributes
    ----------
    name : str
        The member.
    weight : float
        How often an epoch shows each of its samples, on average.
    samples, pixels : int
        Its samples, and their pixels.
    shown : int, optional
        How often its samples are shown in an epoch that is planned; None where none is.
    """

    name: str
    weight: float
    samples: int
    pixels: int
    shown: int | None = None


def shares(plan: EpochPlan, names: Sequence[str]) -> list[MemberShare]:
    """Count the samples and pixels that a plan has of each member, and how often its epoch shows them."""
    found, samples = [], plan.samples
    ends = [member.end for member in samples.of_members()]
    shown = np.bincount(
        np.searchsorted(ends, plan.draws.sample(np.arange(len(plan.draws))), side="right"), minlength=len(ends)
    )
    for name, member, times in zip(names, samples.of_members(), shown.tolist(), strict=True):
        pixels = 0
        for start in range(member.start, member.end, _CHUNK):
            here = slice(start, min(start + _CHUNK, member.end))
            pixels += int((samples.height[here].astype(np.int64) * samples.width[here]).sum())
        found.append(MemberShare(name, member.weight, member.end - member.start, pixels, times))
    return found


def without(samples: Samples, names: Sequence[str]) -> str:
    """Name the members of which a plan has no sample, as "nih, brats"; empty where there are none."""
    return ", ".join(name for name, of in zip(names, samples.of_members(), strict=True) if of.start == of.end)


def shares_table(found: Sequence[MemberShare]) -> Table:
    """Make a table of members for a terminal."""
    table = Table(
        "member", "samples", "Mpx", "weight", "shown an epoch", "of images", "of pixels", box=None, pad_edge=False
    )
    for column in table.columns[1:]:
        column.justify = "right"
    images = sum(of.samples * of.weight for of in found)
    pixels = sum(of.pixels * of.weight for of in found)
    for of in found:
        shown = of.samples * of.weight
        counted = _times(shown) if of.shown is None else f"{of.shown:,}"
        table.add_row(
            of.name,
            f"{of.samples:,}",
            f"{of.pixels / 1e6:,.1f}",
            f"{of.weight:g}",
            counted,
            f"{100 * shown / max(images, 1e-9):.1f} %",
            f"{100 * of.pixels * of.weight / max(pixels, 1e-9):.1f} %",
        )
    total = sum(of.samples for of in found), sum(of.pixels for of in found) / 1e6
    planned = [of.shown for of in found if of.shown is not None]
    counted = f"{sum(planned):,}" if planned else _times(images)
    table.add_row("all", f"{total[0]:,}", f"{total[1]:,.1f}", "", counted, "", "")
    return table


def _times(shown: float) -> str:
    """Say how often samples are shown on average: epochs differ by the rest of a weight."""
    return f"{shown:,.0f}" if shown == int(shown) else f"about {shown:,.0f}"
