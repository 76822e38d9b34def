"""What decides a plan, as a line of text: a loader's state carries it, a replay reads it back."""

from dataclasses import dataclass
from urllib.parse import quote, unquote

from shardkit.errors import StateError
from shardkit.plan.base import Batching
from shardkit.plan.batching import from_text

FORMAT = 1
"""Changes whenever the same arguments would give another plan."""


@dataclass(frozen=True, slots=True)
class PlanSpec:
    """All that decides a plan but dataset, seed and epoch.

    Attributes
    ----------
    split : str, optional
        Name of the split; None for all.
    rows : str
        Names what a filter selected; empty without one.
    window : int
        Shards that are mixed at any time.
    batching : Batching
        How samples become micro-batches.
    labels : str
        Names what a labels table's official split selected; empty for other splits.
    """

    split: str | None
    rows: str
    window: int
    batching: Batching
    labels: str = ""

    def __str__(self) -> str:
        """Write it as a line of text."""
        rows = f" rows={self.rows}" if self.rows else ""
        labels = f" labels={self.labels}" if self.labels else ""
        split = quote(self.split or "all", safe=":,/")
        return f"{FORMAT} split={split}{labels}{rows} window={self.window} {self.batching}"

    @classmethod
    def read(cls, text: str) -> "PlanSpec":
        """Read what `str` wrote.

        Raises
        ------
        StateError
            For a text of another format.
        """
        head, _, rest = text.partition(" window=")
        window, _, batching = rest.partition(" ")  # which may name a file, blanks and all
        number, *words = head.split(" ")
        pairs = dict(word.split("=", 1) for word in words if "=" in word)
        if number != str(FORMAT) or "split" not in pairs or not window.isdecimal():
            raise StateError(
                f"the state has the format {text!r}, and this shardkit knows {FORMAT}: use the one it is of"
            )
        split = None if pairs["split"] == "all" else unquote(pairs["split"])
        return cls(split, pairs.get("rows", ""), int(window), from_text(batching), pairs.get("labels", ""))
