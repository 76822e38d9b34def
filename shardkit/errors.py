"""Every error shardkit raises on purpose. A message is one sentence: what is wrong, where, and what to do."""


class ShardkitError(Exception):
    """Base of all errors a user is meant to read; the command line prints the message without a traceback."""


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
    """Ends the work on one input file. `reason` is a code of `shardkit.dicom.triage`, `message` is free of PHI."""

    verdict = ""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message


class Dropped(Verdict):
    """A rule leaves the file out, by design."""

    verdict = "dropped"


class Quarantined(Verdict):
    """Something is wrong with the file; a human should look."""

    verdict = "quarantined"
