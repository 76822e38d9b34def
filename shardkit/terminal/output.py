"""What reaches a terminal or a log: text as it is, but for characters that would steer the terminal.

Paths may hold brackets and colons, and the words of a dataset made by others anything at all. So nothing here is read
as markup or emoji, and control characters are shown as escapes. All output of programs goes through `Terminal`.
"""

import logging
import re
from typing import Any

from rich.console import Console
from rich.text import Text

from shardkit.errors import clean


class Terminal(Console):
    """A console that prints strings, table cells among them, as they are and cleaned; none is markup."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as it is, cleaned: none is markup. See `rich.console.Console`."""
        lines = re.split(r"(\n)", text)
        return super().render_str("".join(part if part == "\n" else clean(part) for part in lines), **options)

    def plain(self, text: str) -> None:
        """Print text on lines that are not wrapped: for scripts, and for messages that name paths."""
        self.print(text, soft_wrap=True)


def say(text: str, *, error: bool = False) -> None:
    """Print lines as they are, on the error stream if asked; a program's own console does it for its commands."""
    Terminal(stderr=error).plain(text)


class _Cleaned(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Clean a record, and let it pass."""
        record.msg, record.args = clean(record.getMessage()), ()
        return True


def logger(name: str) -> logging.Logger:
    """Return a logger whose lines are single and cleaned: they tell of names in datasets, and what stores answered."""
    found = logging.getLogger(name)
    if not any(isinstance(one, _Cleaned) for one in found.filters):
        found.addFilter(_Cleaned())
    return found
