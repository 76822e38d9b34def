"""How our objects show themselves: one line on a terminal, a small table in a notebook."""

from html import escape
from typing import Any

Facts = dict[str, Any]


def line(name: str, facts: Facts) -> str:
    """Format facts as `Name(fact=value, ...)`."""
    return f"{name}({', '.join(f'{fact}={value}' for fact, value in facts.items())})"


def table(name: str, facts: Facts) -> str:
    """Format facts as an HTML table, escaped."""
    rows = "".join(f"<tr><th>{escape(fact)}</th><td>{escape(str(value))}</td></tr>" for fact, value in facts.items())
    return f"<table><thead><tr><th>{escape(name)}</th><td></td></tr></thead><tbody>{rows}</tbody></table>"
