"""Every error shardkit raises on purpose. A message is one sentence: what is wrong, where, and what to do."""

import unicodedata

_STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of what moves, hides or turns around text instead of showing: ESC, NUL, right-to-left marks."""


def clean(text: str) -> str:
    r"""Put text on one line, with escapes like \x1b for characters that would steer a terminal.

    Parameters
    ----------
    text : str
        What may come from a file or a store.

    Returns
    -------
    str
        Text that may be printed.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in _STEERING else c for c in text)


class ShardkitError(Exception):
    """Base of all errors a user is meant to read; the command line prints the message without a traceback."""

    def __str__(self) -> str:
        """Return one line without control characters, whatever the names in it hold."""
        return clean(super().__str__())


class ArgumentError(ShardkitError, ValueError):
    """An argument, a file of arguments or a combination of them cannot be used."""


class RowError(ShardkitError, IndexError):
    """A number is none of a dataset's manifest rows."""


class StorageError(ShardkitError, OSError):
    """A store refused, vanished or is full."""


class BuildError(ShardkitError):
    """A build cannot start, continue or be added to."""


class IntegrityError(ShardkitError):
    """Bytes on storage differ from what the manifest says."""


class BadDataError(ShardkitError):
    """More samples than allowed cannot be read or decoded."""


class StateError(ShardkitError, ValueError):
    """A saved state belongs to another dataset or another plan."""


class Verdict(Exception):
    """Ends the work on one input file.

    Parameters
    ----------
    reason : str
        A code of `shardkit.triage`.
    message : str
        Free of what may identify a person.

    Attributes
    ----------
    modality : str or None
        What made the image, where a header that tells was read before.
    """

    verdict = ""
    modality: str | None = None

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message


class Dropped(Verdict):
    """A rule leaves the file out, by design.

    Parameters
    ----------
    reason, message : str
        As for `Verdict`.
    """

    verdict = "dropped"


class Quarantined(Verdict):
    """Something is wrong with the file; a person should look.

    Parameters
    ----------
    reason, message : str
        As for `Verdict`.
    """

    verdict = "quarantined"
