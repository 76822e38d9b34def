"""What stores raise, as one sentence, and as kinds that say whether it is worth asking again."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError, NotSupportedError, PermissionDeniedError, UnauthenticatedError

from shardkit.errors import StorageError
from shardkit.storage import remote
from shardkit.storage.remote import shown

AWAY = (
    errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH,
    errno.ENETDOWN, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EREMOTEIO,
)  # fmt: skip
"""Errors of a mounted share that is away; a disk's own, as of a bad sector, are others."""


class Unanswered(StorageError):
    """The store is away, or failed: the same may go well soon."""


class AccessRefused(StorageError):
    """Credentials are wrong, or give no right to the object."""


class MissingObject(StorageError, FileNotFoundError):
    """The object is not there."""


class Unusable(StorageError):
    """A store that, as it is set up, will never do what is asked."""


@contextmanager
def translate_errors(where: str, writing: bool = False) -> Iterator[None]:
    """Turn what stores raise into one StorageError sentence, without debug dumps, passwords or signed urls.

    Parameters
    ----------
    where : str
        The file, folder or url that the sentence names.
    writing : bool
        Whether it is written to, which the sentence about missing rights says.

    Raises
    ------
    StorageError
        In place of a store's own error or an OSError; other errors pass.
    """
    try:
        yield
    except StorageError:
        raise
    except (BaseError, OSError) as error:
        raise _sentence(shown(where), "write" if writing else "read or write", error) from None


def _sentence(where: str, doing: str, error: BaseException) -> StorageError:
    said = str(error)
    if isinstance(error, PermissionError):
        return AccessRefused(f"cannot {doing} {where} as this user: change its rights, or name another place")
    if isinstance(error, NotSupportedError) or remote.advice(said):
        return Unusable(f"{where}: {reason(error)}")
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or re.search(
        r"40[13] (Forbidden|Unauthorized)|AccessDenied", said
    ):
        return AccessRefused(f"{where}: access refused; check the credentials and the rights on it")
    if re.search("NoSuchBucket|NoSuchContainer|ContainerNotFound|bucket does not exist", said):
        return MissingObject(f"{where}: the bucket does not exist; check its name and the endpoint")
    if isinstance(error, FileNotFoundError):
        return MissingObject(f"{where} does not exist")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"{where}: no space left; free some and run the same command again")
    kind = Unanswered if _may_mend(error) else StorageError
    return kind(f"{where}: {reason(error)}")


def _may_mend(error: BaseException) -> bool:
    """Return whether asking again may help: no answer came, or one of a server's own faults (5xx), or it is busy."""
    if isinstance(error, OSError):  # of a mounted share; a disk's own errors stay
        return error.errno in AWAY
    said = str(error)
    return not re.search(r"\b(3\d\d|4(?!08|25|29)\d\d) [A-Z]|redirect|certificate|builder error", said)


def reason(error: BaseException) -> str:
    """Return what a store's error says, in one line and without the secrets of urls.

    Parameters
    ----------
    error : BaseException
        What obstore or the system raised.

    Returns
    -------
    str
        The innermost message, or what to do about it where that is known.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if advice := remote.advice(str(error)):
        return advice
    if "404 Not Found" in str(error):
        return "there is no such bucket; check its name and the endpoint"
    first = str(error).split("\n\nDebug source")[0].replace("\n", " ").strip()
    return shown(first)[:300] or type(error).__name__
