"""Pages from templates: what comes from outside is escaped, and every page has the same head, styles and contents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from shardkit.report import theme
from shardkit.report.numbers import number, percent


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline number.

    Parameters
    ----------
    name, value, note
        What it is, the number with its unit, and a few words below. Plain text.
    alert
        Whether the number asks for attention.
    """

    name: str
    value: str
    note: str = ""
    alert: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """Labelled bars.

    Parameters
    ----------
    title
        Above them.
    rows
        (label, count) of each, as they come.
    whole
        What the counts are shares of.
    note
        A few words below.
    """

    title: str
    rows: Sequence[tuple[str, int]]
    whole: int
    note: str = ""

    @property
    def top(self) -> int:
        """The largest count."""
        return max((count for _, count in self.rows), default=0) or 1


def render(template: str, package: str, **values: Any) -> bytes:
    """Return a whole page as UTF-8; what UTF-8 cannot hold is spelled with backslashes.

    Parameters
    ----------
    template
        File in the folder `templates` of `package`. It extends `base.html`, which asks for `title` (of the window),
        `kind` and `name` (above the page) and `contents` (id -> title of each section).
    package
        Importable name, such as "trainer.report".
    **values
        What the template shows. Text is escaped; `markupsafe.Markup`, as of `svg`, is not.

    Returns
    -------
    bytes
        The page. The same values give the same bytes.
    """
    loader = ChoiceLoader([PackageLoader(package), PackageLoader(__package__)])
    env = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    env.filters["number"] = number
    env.globals["percent"] = percent
    env.globals["schemes"] = (theme.variables(0), theme.variables(1))
    return env.get_template(template).render(**values).encode("utf-8", "backslashreplace")
