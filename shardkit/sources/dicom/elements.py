"""Access to elements of a header: `value` for what an image cannot do without, `text` and `numbers` for the rest."""

from typing import Any

from pydicom.charset import python_encoding
from pydicom.dataset import Dataset

from shardkit.errors import Quarantined


def value(dataset: Dataset, keyword: str) -> Any:
    """Return an element's value, None where it is absent.

    Raises
    ------
    Quarantined
        bad_value, where the parser cannot read it.
    """
    try:
        return dataset.get(keyword)
    except MemoryError:
        raise
    except Exception:  # pydicom converts on access and raises whatever the bytes lead to
        raise Quarantined("bad_value", f"{keyword} cannot be read") from None


def text(dataset: Dataset, keyword: str) -> str:
    """Return a trimmed value as text; empty where absent or unreadable. It may identify a person."""
    try:
        found = dataset.get(keyword)
        return "" if found is None else str(found).strip()
    except Exception:  # any undecodable value counts as absent
        return ""


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...] | None:
    """Return a value as numbers; None where it is absent, unreadable or none."""
    try:
        found = dataset.get(keyword)
        if found is None or found == "":
            return None
        several = hasattr(found, "__iter__") and not isinstance(found, str)
        return tuple(float(v) for v in (found if several else [found]))
    except Exception:
        return None


def charset_problem(dataset: Dataset) -> bool:
    """Return whether SpecificCharacterSet names an encoding that does not exist."""
    declared = dataset.get("SpecificCharacterSet")
    terms = [declared] if isinstance(declared, str) else list(declared or [])
    return any(term.strip() not in python_encoding for term in map(str, terms))
