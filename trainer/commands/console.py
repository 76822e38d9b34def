"""What commands print: of a run in a bucket the url, not the folder of this machine that stands for it."""

from typing import Any

from rich.text import Text

from shardkit.terminal.output import Terminal
from trainer.runs import places


class RunConsole(Terminal):
    """A terminal on which urls stand in place of the folders that stand for them."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as it is shown. See `shardkit.terminal.output.Terminal`."""
        return super().render_str(places.named(text), **options)
