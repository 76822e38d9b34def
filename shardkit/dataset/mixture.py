"""A mixture: a small JSON file that names datasets, and how often an epoch shows each of their samples."""

import hashlib
import json
import math
import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardkit.errors import ArgumentError, IntegrityError
from shardkit.storage import MissingObject, Store, is_remote, local_path, no_folder, shown
from shardkit.storage.waiting import DEADLINE, waited

FORMAT = 1
SUFFIX = ".json"
MOST = 1000
"""Greatest weight."""
_BYTES = 1 << 20  # of such a file, at most
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_DIGITS, _PORT = re.compile(r"[0-9.]+"), re.compile(r"https?://[^/:]+:[0-9]+")
_FIELDS = {"name", "url", "weight", "digest"}
_HOW = "write NAME=DATASET:WEIGHT, as nih=shards/nih:0.5"

Normalised = str | tuple[float, float]


@dataclass(frozen=True, slots=True)
class MemberSpec:
    """A dataset in a mixture.

    Attributes
    ----------
    name : str
        What it is called here: letters, digits, `.`, `_` and `-`, a letter first.
    url : str
        Folder or bucket; as it is written in the file, or as it is opened.
    weight : float
        How often an epoch shows each of its samples: floor(weight) or ceil(weight) times, weight on average.
    digest : str
        Digest of its manifest when it was mixed in; empty before.
    normalise : str or tuple of float, optional
        What happens to its grey levels, where that is not the loader's choice.

    Raises
    ------
    ArgumentError
        A value cannot be.
    """

    name: str
    url: str
    weight: float
    digest: str = ""
    normalise: Normalised | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        if not _NAME.fullmatch(self.name):
            raise ArgumentError(
                f"{self.name!r} is no name for a member of a mixture: begin with a letter, and take letters, digits, .,"
                " _ and -, at most 64"
            )
        if not 0 < self.weight <= MOST:
            raise ArgumentError(
                f"the weight {self.weight:g} of {self.name} must be above 0 and at most {MOST:,}: it is how often an"
                " epoch shows each sample"
            )
        if shown(self.url) != self.url:
            raise ArgumentError(
                f"the url of {self.name}, {shown(self.url)}, holds a password or a signature, and would be written to a"
                " file: give credentials in the environment"
            )
        if is_mixture(self.url):
            raise ArgumentError(f"{self.url} ({self.name}) is no dataset: of a mixture, name the members one by one")

    @classmethod
    def typed(cls, text: str) -> "MemberSpec":
        """Read a member as it is typed: nih=shards/nih:0.5; the weight is 1 where none is named.

        Raises
        ------
        ArgumentError
            It says something else.
        """
        name, equals, rest = text.partition("=")
        if not equals or not name or not rest:
            raise ArgumentError(f"{text!r} names no member: {_HOW}")
        url, colon, weight = rest.rpartition(":")
        if not colon or "/" in weight or re.fullmatch("https?://[^/:]+", url):  # that colon is the url's
            return cls(name, rest, 1.0)
        if not url:
            raise ArgumentError(f"{text!r} names no dataset: {_HOW}")
        try:
            number = float(weight)
        except ValueError:
            point = weight.replace(",", ".", 1)
            raise ArgumentError(
                f"{weight!r} is no weight of {name}: write a number with a decimal point, as"
                f" {name}={url}:{point if point != weight else 0.5}, or where that colon is the dataset's own,"
                f" {name}={rest}:1"
            ) from None
        before, colon, first = url.rpartition(":")
        if colon and _DIGITS.fullmatch(first) and not _PORT.fullmatch(url) and not Path(url).is_dir():
            raise ArgumentError(f"{text!r} has two weights: write one, as {name}={before}:{weight}")
        return cls(name, url, number)


def check(members: Sequence[MemberSpec]) -> None:
    """Refuse what is no mixture.

    Raises
    ------
    ArgumentError
        There is no member, or a name or a dataset is there twice.
    """
    if not members:
        raise ArgumentError(f"a mixture needs a member: {_HOW}")
    names = [member.name for member in members]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ArgumentError(f"two members are called {twice}: give each a name of its own")
    digests = [member.digest for member in members]
    for at, member in enumerate(members):
        if member.digest and (first := digests.index(member.digest)) < at:
            raise ArgumentError(
                f"{names[first]} and {member.name} are the same dataset: name it once, with the weight"
                f" {members[first].weight + member.weight:g}"
            )


def digest(members: Sequence[MemberSpec]) -> str:
    """Return the SHA-256, in hex, of the members' digests and weights, in order: what decides a plan."""
    sha = hashlib.sha256(f"shardkit mixture {FORMAT}".encode())
    for member in members:
        sha.update(f"\n{member.digest} {member.weight!r}".encode())
    return sha.hexdigest()


def is_mixture(url: str) -> bool:
    """Return whether a url names a mixture's file, and not a dataset: its name ends with .json."""
    return url.endswith(SUFFIX) and (is_remote(url) or not local_path(url).is_dir())


def read(url: str, deadline: float = DEADLINE) -> list[MemberSpec]:
    """Read a mixture's file.

    Parameters
    ----------
    url : str
        Path or url of the file.
    deadline : float
        Seconds that the read waits for a store that is away.

    Returns
    -------
    list of MemberSpec
        The members, with the urls that they are opened by.

    Raises
    ------
    ArgumentError
        There is no such file.
    IntegrityError
        It is no mixture, or says what none could.
    StorageError
        It cannot be read.
    """
    store, name = _placed(url)
    where = f"{store.url}/{name}"
    if store.root is not None and (absent := no_folder(store.root)):
        raise ArgumentError(f"{where} does not exist: {absent}")
    try:
        data = waited(lambda: store.get(name, most=_BYTES), where, deadline, "check it, or raise the deadline")
        content = json.loads(data)
    except MissingObject:
        raise ArgumentError(f"{where} does not exist: shardkit mix makes a mixture's file") from None
    except (ValueError, RecursionError):
        raise IntegrityError(f"{where} is no mixture: run shardkit mix again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("members"), list):
        raise IntegrityError(f"{where} is no mixture of this version of shardkit: run shardkit mix again")
    try:
        members = [_member(row, number, store) for number, row in enumerate(content["members"])]
        check(members)
    except ArgumentError as error:
        raise IntegrityError(f"{where}: {error}") from None
    return members


def _member(row: Any, number: int, store: Store) -> MemberSpec:
    if not isinstance(row, dict) or not _FIELDS <= row.keys() <= _FIELDS | {"normalise"}:
        raise ArgumentError(f"member {number} does not have {', '.join(sorted(_FIELDS))} and maybe normalise alone")
    normalise, weight = row.get("normalise"), row["weight"]
    if isinstance(normalise, list) and len(normalise) == 2 and all(map(_number, normalise)):
        normalise = (float(normalise[0]), float(normalise[1]))
    texts = [row[name] for name in ("name", "url", "digest")]
    if not all(isinstance(text, str) for text in texts) or not isinstance(normalise, str | tuple | None):
        raise ArgumentError(f"member {number} has a field of another type")
    if not _number(weight):
        raise ArgumentError(f"the weight of {row['name']} is no number")
    return MemberSpec(row["name"], _resolved(row["url"], store), float(weight), row["digest"], normalise)


def write(url: str, members: Sequence[MemberSpec]) -> None:
    """Write a mixture's file. Local datasets are named as seen from there, where their urls are relative.

    Raises
    ------
    ArgumentError
        The members are no mixture, or something else lies in that place.
    StorageError
        It cannot be written.
    """
    check(members)
    if not url.endswith(SUFFIX):
        raise ArgumentError(f"{shown(url)} is no name for a mixture: end it with {SUFFIX}, by which a Loader knows it")
    store, name = _placed(url)
    if store.exists(name):
        _check_replaced(url)
    rows = []
    for member in members:
        row: dict[str, Any] = {"name": member.name, "url": _written(member.url, store), "weight": _short(member.weight)}
        if member.normalise is not None:
            row["normalise"] = member.normalise
        rows.append(row | {"digest": member.digest})
    store.put(name, (json.dumps({"format": FORMAT, "members": rows}, indent=1) + "\n").encode())


def _check_replaced(url: str) -> None:
    try:
        read(url)
    except IntegrityError:
        raise ArgumentError(f"{shown(url)} is there and is no mixture: name another file, or remove it") from None


def _placed(url: str) -> tuple[Store, str]:
    """Return the folder that a file lies in, and its name there."""
    if is_remote(url):
        folder, _, name = url.rpartition("/")
        return Store(folder), name
    path = local_path(url).absolute()
    return Store(str(path.parent)), path.name


def _written(url: str, store: Store) -> str:
    """Return a typed url as it is written in a file of a store."""
    if is_remote(url):
        return url
    path = local_path(url)
    if store.root is None or path.is_absolute():
        return str(path.absolute())
    return Path(os.path.relpath(path.absolute(), store.root)).as_posix()


def _resolved(url: str, store: Store) -> str:
    """Return a url of a file in a store as it is opened, from wherever."""
    if is_remote(url) or local_path(url).is_absolute():
        return url
    if store.root is not None:
        return str(Path(os.path.normpath(store.root / local_path(url))))
    scheme, _, rest = store.url.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(rest, url))}"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(weight: float) -> float | int:
    """Return a whole number without a point."""
    return int(weight) if weight == int(weight) else weight
