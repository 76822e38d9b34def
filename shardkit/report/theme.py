"""The colours of all pages: one name each, a value for light screens and paper, another for dark screens."""

from typing import Final

PALETTE: Final[dict[str, tuple[str, str]]] = {
    # What things stand on.
    "paper": ("#ffffff", "#11161d"),
    "wash": ("#f4f6f9", "#1a212b"),
    "note": ("#fcf7ea", "#29230f"),
    "alert": ("#fcf0f1", "#34191d"),
    # Text.
    "ink": ("#1b2430", "#e4e9ef"),
    "soft": ("#566171", "#a3afbd"),
    # Text and plots: blue is what is shown, amber and violet are others beside it, red is a warning.
    "blue": ("#2767a6", "#74b0ea"),
    "green": ("#27735d", "#4fb795"),
    "amber": ("#98640f", "#dba64a"),
    "red": ("#a83a45", "#f08c92"),
    "violet": ("#6b4fa3", "#b9a0ee"),
    "teal": ("#1f7489", "#5fc0d6"),
    # Lines and areas without text.
    "line": ("#dde3ea", "#303a47"),
    "pale": ("#7d8998", "#717f90"),
    # From few to many.
    "tone0": ("#d4e4f3", "#17324b"),
    "tone1": ("#abcce8", "#1e4a72"),
    "tone2": ("#7fb0da", "#2a689f"),
    "tone3": ("#4e90c6", "#468fcb"),
    "tone4": ("#2569a5", "#7fb9ea"),
    "tone5": ("#0e3f70", "#c3e0fa"),
}
"""Name -> (light, dark). No two names share a light value: plots are drawn with these, and the page looks them up."""

SURFACES: Final = ("paper", "wash", "note", "alert")
"""What text stands on."""

SERIES: Final = ("blue", "amber", "green", "violet", "red", "teal")
"""The colours of several series in one plot, in this order."""

TONES: Final = tuple(name for name in PALETTE if name.startswith("tone"))


def colour(name: str) -> str:
    """Return the value that a plot is drawn with, such as "#2767a6"; on a page it follows the screen.

    Parameters
    ----------
    name : str
        One of the palette's.
    """
    return PALETTE[name][0]


def variables(scheme: int) -> str:
    """Return the CSS variables of the light (0) or the dark (1) scheme."""
    return "".join(f"--{name}:{values[scheme]};" for name, values in PALETTE.items())
