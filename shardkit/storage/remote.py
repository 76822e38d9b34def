"""Opens buckets: what obstore must be told and whose credentials it uses, and where it would hang, one sentence.

A url may hold a password or a signature. It is opened as it was given and shown as `shown` gives it, everywhere.
"""

import os
import re
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import obstore

from shardkit.errors import ArgumentError, StorageError

SCHEMES = ("s3", "gs", "az", "azure", "abfs", "abfss", "http", "https", "memory")
_PLAIN = {"S3": "AWS_ALLOW_HTTP", "GCS": "GOOGLE_ALLOW_HTTP", "MicrosoftAzure": "AZURE_ALLOW_HTTP"}
_KEYS = {
    "S3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "GCS": "GOOGLE_SERVICE_ACCOUNT",
    "MicrosoftAzure": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_OTHER_KEYS = (  # each of them alone says who reads from S3
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
_home: int | None = None  # the process that obstore's threads run in, once there are some


def is_remote(url: str) -> bool:
    """Return whether a url names a bucket or a web server, and not a local path.

    Parameters
    ----------
    url : str
        What a user typed.

    Returns
    -------
    bool
        Whether it is remote.

    Raises
    ------
    ArgumentError
        The scheme is unknown, or the bucket is missing.
    """
    scheme, colon, _ = url.partition("://")
    if not colon or scheme == "file":
        return False
    if scheme not in SCHEMES:
        raise ArgumentError(f"{shown(url)}: unknown scheme {scheme!r}; use a local path or one of {', '.join(SCHEMES)}")
    if scheme != "memory" and not url[len(scheme) + 3 :].strip("/"):
        raise ArgumentError(f"{url} names no bucket: use {scheme}://bucket/path")
    return True


def shown(text: str) -> str:
    """Return a text without the secrets that urls in it may hold: user, password and query.

    Parameters
    ----------
    text : str
        A url, or a message with urls.

    Returns
    -------
    str
        The same, to be shown.
    """
    return re.sub(r"(\w://[^\s?\"']*)\?[^\s\"')]*", r"\1", re.sub(r"(\w://)[^/?#\s]*@", r"\1***@", text))


def opened(url: str, **options: Any) -> Any:
    """Open the obstore client of a url.

    Raises
    ------
    ArgumentError
        The profile that it asks for cannot be read.
    StorageError
        As `check_process` says.
    """
    check_process()
    scheme = url.partition("://")[0]
    if scheme in ("http", "https"):
        url, client = _web(url)
        if client:
            # Not for a bucket: they would replace those of its environment, a proxy or plain http among them.
            return obstore.store.HTTPStore.from_url(url, client_options=client, **options)
    if scheme == "s3" and (provider := _profile()) is not None:
        options["credential_provider"] = provider
    return obstore.store.from_url(url, **options)


def check_process() -> None:
    """Refuse to read a bucket in a process forked from one that has read a bucket: there a read would never end.

    Raises
    ------
    StorageError
        This is such a process.
    """
    global _home
    _home = _home or os.getpid()
    if _home != os.getpid():
        raise StorageError(
            "a bucket cannot be read in a process forked from one that has read a bucket, because the client's threads"
            " are not in it: start processes with the start method spawn, or with torchrun"
        )


def advice(error: str) -> str | None:
    """Say what to do about a client's error that is a setting's fault and will not go away; None for others."""
    kind = next((kind for kind in _KEYS if f"{kind} error" in error), None)
    if kind and "builder error" in error and "http://" in error:
        return f"the endpoint is plain http: set {_PLAIN[kind]}=true to allow that"
    if kind and re.search(r"169\.254\.169\.254|metadata\.google|Account must be specified", error):
        return f"there are no credentials for it: set {_KEYS[kind]}"
    if "Range request not supported" in error:
        return "this server ignores byte ranges: serve the folder with one that has them, as nginx does, or copy it"
    if "PROPFIND" in error:
        return "a plain web server cannot list its files, which this needs: use a bucket or a folder"
    return None


def _web(url: str) -> tuple[str, Any]:
    """Split a web address into one without its user, and what the client must be told of both."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    user, at, host = host.rpartition("@")
    client: dict[str, Any] = {"allow_http": True} if scheme == "http" else {}
    if at:
        client["default_headers"] = {"Authorization": f"Basic {b64encode(unquote(user).encode()).decode()}"}
    return f"{scheme}://{host}{slash}{path}", client


def _profile() -> Any:
    """Return boto3's keys of ~/.aws; None where the environment has keys, or there is no such file."""
    name = os.environ.get("AWS_PROFILE")
    file = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")).expanduser()
    if any(os.environ.get(variable) for variable in _OTHER_KEYS) or not (name or file.is_file()):
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider

        return Boto3CredentialProvider()
    except ImportError:
        if name is None:
            return None
        why = "boto3, which reads it, is not installed: run pip install boto3"
    except Exception as error:  # boto3 has no base of its own for what is wrong with a profile
        why = f"{' '.join(str(error).split())}: see the file {file}"
    raise ArgumentError(
        f"the profile {name or 'default'} of AWS_PROFILE cannot be used ({why}), or set AWS_ACCESS_KEY_ID and"
        " AWS_SECRET_ACCESS_KEY"
    )
