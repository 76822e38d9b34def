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

from shardkit import content, labels
from shardkit.dataset import contents, near
from shardkit.dataset.description import DatasetDescription
from shardkit.errors import ArgumentError
from shardkit.labels.store import object_name
from shardkit.storage import Store, shown

KINDS = ("equal", "near", "negative")
"""How two samples are the same: all pixels, almost the picture, or almost its negative."""
TRAIN = "train"
PAIRS = pa.schema([(name, pa.string()) for name in ("key", "split", "other_key", "other_split", "kind")])
"""Columns of pairs of samples: one of the first dataset, one of the other. A split may be null."""
_SIDE = 8 * content.THUMB  # pixels from which a thumbnail correlates at .998 with that of the whole image
_COLUMNS = ("pixel_hash", "phash", "split", "patient")
_AT_ONCE = 1 << 12  # images whose thumbnails are made before the next are asked for
_THREADS = 16  # most of them wait for a store


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
    patients : int
        Patients of the first with samples in the training split of one dataset and in another split of the other. They
        are known to be one by a shared sample, or by their pseudonym where both datasets were built with one key.
    """

    first: str
    other: str
    samples: int
    other_samples: int
    pairs: pa.Table
    patients: int

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
    def opened(cls, url: str, split: str | None) -> "_Member":
        store = Store(url)
        described = contents.description(store)
        samples = contents.samples(store, [*contents.IMAGE_COLUMNS, *_COLUMNS], described)
        if split is not None and store.exists(object_name(split)):
            official = pa.array(labels.read(store, split).aligned(samples["key"]).split, pa.string())
            samples = samples.set_column(samples.column_names.index("split"), "split", official)
        return cls(url, store, described, samples)

    def patients(self) -> dict[str, tuple[bool, bool]]:
        """Whether each patient has samples in the training split, and in another."""
        found: dict[str, tuple[bool, bool]] = {}
        groups = self.samples.select(["patient", "split"]).group_by(["patient", "split"]).aggregate([])
        for row in groups.to_pylist():
            trained, held = found.get(row["patient"], (False, False))
            trains = row["split"] == TRAIN
            found[row["patient"]] = (trained or trains, held or bool(row["split"] and not trains))
        return found

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


def overlaps(urls: Sequence[str], split: str | None = None, equal_only: bool = False) -> list[Overlap]:
    """Find the samples that datasets share, for each two of them.

    Perceptual hashes are compared within buckets, so that the time grows with the samples and not with their pairs;
    then one small level is read and decoded of each sample whose hash is close to another's.

    Parameters
    ----------
    urls : sequence of str
        Places of at least two datasets.
    split : str, optional
        Name of a labels table: datasets that have it are judged by its official split. Default: the split by patient.
    equal_only : bool
        Compare hashes of pixels only, which reads no image.

    Returns
    -------
    list of Overlap
        One for each two datasets, in their order; those that share nothing are there, too.

    Raises
    ------
    ArgumentError
        There are less than two datasets, one is named twice, or none has the labels table.
    StorageError, IntegrityError
        A dataset cannot be read, or is damaged.
    """
    if len(urls) < 2:
        raise ArgumentError("overlaps are looked for between datasets: name at least two")
    places = Counter(Store(url).url for url in urls)
    if twice := [place for place, count in places.items() if count > 1]:
        raise ArgumentError(f"{twice[0]} is named twice: name each dataset once")
    if split is not None and not any(Store(url).exists(object_name(split)) for url in urls):
        raise ArgumentError(
            f"none of the datasets has labels named {split}: shardkit labels DATASET lists those it has"
        )
    members = [_Member.opened(url, split) for url in urls]
    return [_overlap(a, b, equal_only) for a, b in combinations(members, 2)]


def _overlap(a: _Member, b: _Member, equal_only: bool) -> Overlap:
    equal = _equal(a.samples["pixel_hash"], b.samples["pixel_hash"])
    same = inverse = equal[:0]
    if not equal_only:
        same = _confirmed(a, b, _without(near.near_pairs(a.hashes, b.hashes), equal), 1)
        inverse = _confirmed(a, b, near.inverted_pairs(a.hashes, b.hashes), -1)
    found = np.concatenate([equal, same, inverse])
    kinds = np.repeat(KINDS, [len(equal), len(same), len(inverse)])
    columns = [member.samples[name].take(pa.array(found[:, side]))
               for side, member in enumerate((a, b)) for name in ("key", "split")]  # fmt: skip
    pairs = pa.table([*columns, pa.array(kinds, pa.string())], schema=PAIRS)
    order = [(name, "ascending") for name in ("key", "other_key", "kind")]
    sizes, patients = (a.samples.num_rows, b.samples.num_rows), _parted_patients(a, b, found)
    return Overlap(shown(a.url), shown(b.url), *sizes, pairs.sort_by(order), patients)


def _parted_patients(a: _Member, b: _Member, pairs: near.Pairs) -> int:
    """Count patients of the first dataset who are trained on in one and tested in the other."""
    here, there = a.patients(), b.patients()
    sides = [member.samples["patient"].take(pa.array(pairs[:, side])).to_pylist()
             for side, member in enumerate((a, b))]  # fmt: skip
    same = set(zip(*sides, strict=True))
    if a.description.key_fingerprint == b.description.key_fingerprint:
        same |= {(name, name) for name in here.keys() & there.keys()}
    return len({p for p, q in same if (here[p][0] and there[q][1]) or (here[p][1] and there[q][0])})


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
