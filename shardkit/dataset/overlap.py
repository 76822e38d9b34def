"""Samples of one dataset inside another: equal pixels, almost equal pictures, and negatives; and what splits they part.

Found from what datasets hold: hashes of pixels, perceptual hashes, and, where these are close, small levels of both
images, which must correlate as near-duplicates within a dataset do. Keys alone are named.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit import content
from shardkit.dataset import contents, near
from shardkit.dataset.description import DatasetDescription
from shardkit.errors import ArgumentError
from shardkit.storage import Store, shown

KINDS = ("equal", "near", "negative")
"""How two samples are the same: all pixels, almost the picture, or almost its negative."""
TRAIN = "train"
PAIRS = pa.schema([(name, pa.string()) for name in ("key", "split", "other_key", "other_split", "kind")])
"""Columns of pairs of samples: one of the first dataset, one of the other. A split may be null."""
_SIDE = 4 * content.THUMB  # pixels from which a thumbnail is what it is from the whole image
_AT_ONCE = 1 << 12  # images whose thumbnails are made before the next are asked for
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Overlap:
    """What two datasets share.

    Attributes
    ----------
    first, other : str
        Places of the datasets, as they were named, without credentials.
    samples, other_samples : int
        How many samples each has.
    pairs : pyarrow.Table
        A row for each two samples that are the same, of the columns in `PAIRS`, sorted by keys.
    """

    first: str
    other: str
    samples: int
    other_samples: int
    pairs: pa.Table

    @property
    def shared(self) -> tuple[int, int]:
        """How many samples of the first lie in the other, and of the other in the first."""
        first, other = (len(pc.unique(self.pairs[name])) for name in ("key", "other_key"))
        return first, other

    def counts(self) -> Counter[tuple[str, str]]:
        """Return the pairs by split in the first and in the other; "" for a sample without one."""
        names = ([name or "" for name in self.pairs[column].to_pylist()] for column in ("split", "other_split"))
        return Counter(zip(*names, strict=True))

    def kinds(self) -> dict[str, int]:
        """Return the pairs by `KINDS`."""
        found = Counter(self.pairs["kind"].to_pylist())
        return {kind: found[kind] for kind in KINDS}

    @property
    def leaks(self) -> int:
        """How many pairs lie in the training split of one dataset and in another split of the other."""
        return sum(count for splits, count in self.counts().items() if leaks(*splits))


def leaks(split: str, other: str) -> bool:
    """Return whether training would see what is tested: one of two splits is train, the other is a split, too."""
    return bool(split and other) and (split == TRAIN) != (other == TRAIN)


@dataclass(frozen=True, slots=True)
class _Member:
    """A dataset with the columns that overlaps are found by."""

    url: str
    store: Store
    description: DatasetDescription
    samples: pa.Table

    @classmethod
    def opened(cls, url: str) -> "_Member":
        store = Store(url)
        described = contents.description(store)
        names = [*contents.IMAGE_COLUMNS, "pixel_hash", "phash", "split"]
        return cls(url, store, described, contents.samples(store, names, described))

    @property
    def hashes(self) -> near.Hashes:
        return np.asarray(self.samples["phash"].to_numpy(), np.uint64)

    def thumbnails(self, rows: Iterable[int]) -> Iterator[content.Thumbnail]:
        """Make the thumbnails of rows from small levels, in their order."""
        narrow = self.samples.select(contents.IMAGE_COLUMNS)

        def thumbnail(row: int) -> content.Thumbnail:
            sample = narrow.slice(row, 1).to_pylist()[0]
            level = contents.smallest_level(sample, _SIDE)
            pixels = contents.image(self.store, sample, self.description, level)
            return content.thumbnail(content.reduce(pixels, content.ANALYSIS))

        with ThreadPoolExecutor(_THREADS) as threads:
            yield from threads.map(thumbnail, rows)


def overlaps(urls: Sequence[str]) -> list[Overlap]:
    """Find the samples that datasets share, for each two of them.

    Perceptual hashes are compared within buckets, so that the time grows with the samples and not with their pairs;
    then one small level is read and decoded of each sample whose hash is close to another's.

    Parameters
    ----------
    urls : sequence of str
        Places of at least two datasets.

    Returns
    -------
    list of Overlap
        One for each two datasets, in their order; those that share nothing are there, too.

    Raises
    ------
    ArgumentError
        There are less than two datasets, or one is named twice.
    StorageError, IntegrityError
        A dataset cannot be read, or is damaged.
    """
    if len(urls) < 2:
        raise ArgumentError("overlaps are looked for between datasets: name at least two")
    members = [_Member.opened(url) for url in urls]
    places = Counter(member.store.url for member in members)
    if twice := [place for place, count in places.items() if count > 1]:
        raise ArgumentError(f"{twice[0]} is named twice: name each dataset once")
    return [_overlap(a, b) for a, b in combinations(members, 2)]


def _overlap(a: _Member, b: _Member) -> Overlap:
    equal = _equal(a.samples["pixel_hash"], b.samples["pixel_hash"])
    same = _confirmed(a, b, _without(near.near_pairs(a.hashes, b.hashes), equal), 1)
    inverse = _confirmed(a, b, near.inverted_pairs(a.hashes, b.hashes), -1)
    found = np.concatenate([equal, same, inverse])
    kinds = np.repeat(KINDS, [len(equal), len(same), len(inverse)])
    columns = [member.samples[name].take(pa.array(found[:, side]))
               for side, member in enumerate((a, b)) for name in ("key", "split")]  # fmt: skip
    pairs = pa.table([*columns, pa.array(kinds, pa.string())], schema=PAIRS)
    order = [(name, "ascending") for name in ("key", "other_key", "kind")]
    return Overlap(shown(a.url), shown(b.url), a.samples.num_rows, b.samples.num_rows, pairs.sort_by(order))


def _equal(first: pa.ChunkedArray, other: pa.ChunkedArray) -> near.Pairs:
    """Pairs of equal hashes; a dataset has none twice."""
    at = pc.index_in(other, first.combine_chunks())
    rows = np.flatnonzero(pc.is_valid(at).to_numpy())
    return np.stack([at.drop_null().to_numpy().astype(np.int64), rows], 1)


def _without(pairs: near.Pairs, known: near.Pairs) -> near.Pairs:
    shift = np.int64(1 << 31)
    new = ~np.isin(pairs[:, 0] * shift + pairs[:, 1], known[:, 0] * shift + known[:, 1])
    return pairs[new]


def _confirmed(a: _Member, b: _Member, pairs: near.Pairs, sign: int) -> near.Pairs:
    """Keep the pairs whose thumbnails correlate, with that sign. A sample in many pairs may be read a few times."""
    kept = np.zeros(len(pairs), np.bool_)
    for start in range(0, len(pairs), _AT_ONCE):
        part = pairs[start : start + _AT_ONCE]
        r = near.correlation(_thumbs(a, part[:, 0]), _thumbs(b, part[:, 1]))
        kept[start : start + _AT_ONCE] = sign * r >= near.MIN_CORRELATION
    return pairs[kept]


def _thumbs(member: _Member, rows: npt.NDArray[np.int64]) -> near.Thumbs:
    once, at = np.unique(rows, return_inverse=True)
    made = np.stack([thumb.ravel() for thumb in member.thumbnails(once.tolist())])
    return np.asarray(made[at], np.uint8)
