"""Counts and lists as words of a sentence."""

from collections.abc import Sequence


def counted(count: int, word: str, plural: str = "") -> str:
    """Return a count with its word, as in "1 box" and "1,200 boxes".

    Parameters
    ----------
    count : int
        How many.
    word : str
        What one is called.
    plural : str
        What several are called; default the word with an s.
    """
    return f"{count:,} {word if count == 1 else plural or word + 's'}"


def listed(words: Sequence[str]) -> str:
    """Return words as a list, as in "train, val and test"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def no_such_split(table: str, word: str, there: Sequence[str]) -> str:
    """Say that a labels table has no such official split, and which it has, or what to name instead."""
    if not there:
        return (
            f"{table} has no official split: name train, val or test alone, which are our own by patient, or label it"
            " again with --split-column"
        )
    return f"{table} has the split{'s' * (len(there) > 1)} {listed(sorted(there))}, not {word}"
