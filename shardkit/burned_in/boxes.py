"""Boxes of what may be lines of text: those that go on are joined, and of those over each other the best is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace

FEWEST = 3  # letters of a line; two alone are initials, if they are as alike as letters of lead


@dataclass(frozen=True)
class Box:
    """What may be a line of text.

    Parameters
    ----------
    top, left, height, width : int
        Where, in pixels of the image.
    upright : bool
        The line runs across the image, not up or down.
    light : bool
        Its letters are lighter than what is behind them.
    letters : int
        Marks that stand on the line.
    score : float
        0 to 1: how much the marks are like letters.
    extreme : bool
        It was seen only among the pixels of the largest, or the least, grey level.
    """

    top: int
    left: int
    height: int
    width: int
    upright: bool
    light: bool
    letters: int
    score: float
    extreme: bool = False

    @property
    def is_pair(self) -> bool:
        """Whether it has two letters only."""
        return self.letters < FEWEST

    @property
    def letter_height(self) -> int:
        """Pixels across its line."""
        return self.height if self.upright else self.width

    def with_margin(self, shape: tuple[int, ...], along: int, across: int) -> Box:
        """Return it with pixels more at both ends of its line and at both sides, within an image of this shape."""
        if not self.upright:
            return self.turned().with_margin(shape[::-1], along, across).turned()
        top, left = max(self.top - across, 0), max(self.left - along, 0)
        bottom = min(self.top + self.height + across, shape[0])
        right = min(self.left + self.width + along, shape[1])
        return replace(self, top=top, left=left, height=bottom - top, width=right - left)

    def mirrored(self, width: int) -> Box:
        """Return it in the mirrored image, which has so many columns."""
        return replace(self, left=width - self.left - self.width)

    def turned(self) -> Box:
        """Return it with rows and columns exchanged: what is true of upright lines is then true of the others."""
        return replace(
            self, top=self.left, left=self.top, height=self.width, width=self.height, upright=not self.upright
        )


def joined(found: list[Box]) -> list[Box]:
    """Join lines that go on: of one direction and tone, of about one height, next to each other."""
    lines = sorted(found, key=lambda b: b.left if b.upright else b.top)
    joined: list[Box] = []
    for line in lines:
        for n, other in enumerate(joined):
            if _goes_on(other, line):
                joined[n] = _both(other, line)
                break
        else:
            joined.append(line)
    return joined


def _goes_on(one: Box, other: Box) -> bool:
    if one.upright != other.upright or one.light != other.light:
        return False
    if not one.upright:
        return _goes_on(one.turned(), other.turned())
    small, tall = sorted((one.height, other.height))
    beside = min(one.top + one.height, other.top + other.height) - max(one.top, other.top)
    return tall <= 2 * small and beside >= 0.7 * small and other.left - one.left - one.width <= 2 * tall


def _both(one: Box, other: Box) -> Box:
    apart = 2 * shared(one, other) < min(one.height * one.width, other.height * other.width)
    letters = one.letters + other.letters if apart else max(one.letters, other.letters)
    return replace(union(one, other), letters=letters, score=max(one.score, other.score))


def union(one: Box, other: Box) -> Box:
    """Return the first with the least box around both; it is seen as the other is, too."""
    top, left = min(one.top, other.top), min(one.left, other.left)
    bottom = max(one.top + one.height, other.top + other.height)
    right = max(one.left + one.width, other.left + other.width)
    extreme = one.extreme and other.extreme
    return replace(one, top=top, left=left, height=bottom - top, width=right - left, extreme=extreme)


def distinct(found: list[Box]) -> list[Box]:
    """Keep the best of lines that lie over each other; it takes in those of its direction and about its height."""
    kept: list[Box] = []
    for box in sorted(found, key=lambda b: (-b.letters * b.score, b.top, b.left)):
        for n, other in enumerate(kept):
            crossing = box.upright != other.upright and (box.is_pair or other.is_pair)  # initials below a side marker
            if not crossing and 2 * shared(box, other) >= min(box.height * box.width, other.height * other.width):
                if box.upright == other.upright and (
                    box.letter_height <= 1.5 * other.letter_height or _half_of(other, box)
                ):
                    kept[n] = union(other, box)
                break
        else:
            kept.append(box)
    return kept


def _half_of(one: Box, other: Box) -> bool:
    """Say whether a line is but the half of another's letters, as where a plate ends near them."""
    return (
        10 * shared(one, other) >= 9 * one.height * one.width
        and other.letter_height <= 4 * one.letter_height
        and 3 * other.letters >= 2 * one.letters
        and 2 * other.score >= one.score
    )


def shared(one: Box, other: Box) -> int:
    """Return the pixels that lie in both."""
    down = min(one.top + one.height, other.top + other.height) - max(one.top, other.top)
    across = min(one.left + one.width, other.left + other.width) - max(one.left, other.left)
    return max(down, 0) * max(across, 0)
