"""A mixture as one index: the members' samples one after another, each with its weight. Nothing is held twice."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cached_property
from math import gcd

import numpy as np
import pyarrow as pa

from shardkit.dataset import contents, mixture
from shardkit.dataset.bins import Bins
from shardkit.dataset.mixture import MemberSpec
from shardkit.errors import ArgumentError, IntegrityError, ShardkitError
from shardkit.labels import Labels
from shardkit.loader.graph_input import check_normalise
from shardkit.loader.index import Index, Member
from shardkit.loader.manifest_index import ManifestIndex
from shardkit.loader.member_labels import joined
from shardkit.loader.sample_index import Detail
from shardkit.loader.stream.cache import Contents
from shardkit.plan.samples import Samples
from shardkit.storage import Store, is_remote, local_path, shown
from shardkit.storage.waiting import DEADLINE


def open_index(url: str, deadline: float = DEADLINE, weighted: bool = True) -> Index:
    """Open a dataset, or a mixture by its file.

    Parameters
    ----------
    url : str
        Folder or bucket of a dataset, or path or url of a mixture's file.
    deadline : float
        Seconds that a read waits for a store that is away.
    weighted : bool
        Whether the weights of a mixture's members count; else all are 1.

    Raises
    ------
    ArgumentError
        Where there is nothing.
    IntegrityError
        Where it is not whole, or a member is not what it was when it was mixed in.
    StorageError
        Where a store cannot be read in time.
    """
    if not mixture.is_mixture(url):
        return ManifestIndex(url, deadline)
    members = mixture.read(url, deadline)
    return MixtureIndex(url, deadline, members if weighted else [replace(spec, weight=1.0) for spec in members])


class MixtureIndex(Index):
    """What a loader needs of a mixture; see `Index`, and `open_index` for what is raised.

    Objects of a member are called by its name, as nih/shards/0480x0480/00000.tar.

    Parameters
    ----------
    url : str
        Path or url of its file.
    deadline : float
        Seconds that a read waits for a store that is away.
    members : list of MemberSpec, optional
        What the file says, where it is known already.
    """

    def __init__(self, url: str, deadline: float = DEADLINE, members: list[MemberSpec] | None = None) -> None:
        self.url, specs = shown(url), members if members is not None else mixture.read(url, deadline)
        with ExitStack() as opened:
            made, end = list[Member](), 0
            for number, spec in enumerate(specs):
                made.append(_opened(spec, number, end, self.url, deadline))
                opened.callback(made[-1].index.close)
                end = made[-1].rows.stop
            opened.pop_all()
        self._members = tuple(made)
        known = [replace(spec, digest=m.index.digest) for spec, m in zip(specs, made, strict=True)]
        mixture.check(known)
        self.digest = mixture.digest(known)
        self.shards = [f"{member.name}/{shard}" for member in made for shard in member.index.shards]
        starts = [member.rows.start + member.index.shard_starts[:-1] for member in made]
        self.shard_starts = np.concatenate([*starts, [end]]).astype(np.int64)
        self._ends = np.array([member.rows.stop for member in made])
        self._by_name = {member.name: member for member in made}

    @property
    def members(self) -> tuple[Member, ...]:
        """See `Index`."""
        return self._members

    @cached_property
    def bins(self) -> Bins:
        """See `Index`. All bins of the members, in whole patches of a size that divides theirs."""
        bins = [member.index.bins for member in self.members]
        return Bins(tuple(sorted({bin for of in bins for bin in of.bins})), gcd(*(of.patch for of in bins)))

    @property
    def splits(self) -> Mapping[str, int]:
        """See `Index`. Each sample counts once, whatever its weight."""
        found: dict[str, int] = {}
        for member in self.members:
            for name, count in member.index.splits.items():
                found[name] = found.get(name, 0) + count
        return found

    @property
    def levels(self) -> int:
        """See `Index`. As many as the images of all members have."""
        return min((member.index.levels for member in self.members if member.rows), default=0)

    @property
    def stores(self) -> dict[str, Store]:
        """See `Index`."""
        return {f"{member.name}/": member.index.store for member in self.members}

    def close(self) -> None:
        """See `Index`."""
        for member in self.members:
            member.index.close()

    def columns(self, *names: str) -> pa.Table:
        """See `Index`."""
        return pa.concat_tables(member.index.columns(*names) for member in self.members)

    def labels(self, name: str) -> Labels:
        """See `Index`. Nothing is known of samples whose dataset has no such table."""
        return joined(self.members, name, self.url)

    def everything(self, boxes: bool = True) -> Samples:
        """See `Index`."""
        parts = [member.index.everything(boxes) for member in self.members]
        return Samples(
            digest=self.digest,
            starts=self.shard_starts,
            height=np.concatenate([part.height for part in parts]),
            width=np.concatenate([part.width for part in parts]),
            bins=self.bins,
            levels=self.levels,
            box=np.concatenate([part.box for part in parts if part.box is not None]) if boxes else None,
            weights=tuple(member.weight for member in self.members),
            members=np.array([0, *self._ends], np.int64),
        )

    def detail(self, row: int) -> Detail:
        """See `Index`."""
        self.check_row(row)
        member = self.members[int(np.searchsorted(self._ends, row, side="right"))]
        return member.index.detail(row - member.rows.start)

    def contents(self, shard: str) -> Contents:
        """See `Index`. The id is the one that the shard has in its dataset, so that a disk cache holds it once."""
        name, _, rest = shard.partition("/")
        return self._by_name[name].index.contents(rest)

    def shard_bytes(self, levels: Iterable[int]) -> dict[str, int]:
        """See `Index`."""
        wanted = list(levels)
        return {
            f"{member.name}/{shard}": size
            for member in self.members
            for shard, size in member.index.shard_bytes(wanted).items()
        }


def _opened(spec: MemberSpec, number: int, first: int, url: str, deadline: float) -> Member:
    """Open a member, and hold it against its digest where one is known; errors name it."""
    if spec.digest and not is_remote(spec.url) and not local_path(spec.url).exists():
        raise ArgumentError(
            f"member {spec.name} of {url}: the folder {spec.url} does not exist{_moved(spec)}: mix again, or mend url"
            f" in {url}"
        )
    try:
        normalise = None if spec.normalise is None else check_normalise(spec.normalise)
        index = ManifestIndex(spec.url, deadline, f"{spec.name}/", number)
    except ShardkitError as error:
        raise type(error)(f"member {spec.name} of {url}: {error}") from error
    if spec.digest and index.digest != spec.digest:
        index.close()
        raise IntegrityError(
            f"member {spec.name} of {url} has changed since it was mixed in: {index.url} was {spec.digest[:12]} and is"
            f" {index.digest[:12]}; run shardkit mix again, and begin an epoch anew, as for a dataset that grew"
        )
    return Member(spec.name, index, range(first, first + index.rows), spec.weight, normalise)


def _moved(spec: MemberSpec) -> str:
    """Say which folder beside a member's place holds its dataset now, if any does."""
    for found in sorted(local_path(spec.url).parent.glob(f"*/{contents.NAME}")):
        with suppress(ShardkitError):
            if contents.description(Store(str(found.parent))).digest == spec.digest:
                return f"; {found.parent} holds its dataset"
    return ""
