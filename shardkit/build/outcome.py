"""What a build ended with, and what of it nobody can want: a sentence each, because counts are overlooked."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from shardkit.build.ledger import WRITTEN
from shardkit.config import Rules
from shardkit.storage.spill import Spill, blocks, matching
from shardkit.triage import DROPS

MOST = 0.5
"""Above this share of the samples, or of the images, something has most of them."""
FEW = 20
"""Samples below which one patient may well have most of them."""
BY_DESIGN = frozenset(
    ("apple_double", "not_an_image", "no_pixel_data", "duplicate_exact", "duplicate_near", "for_processing",
     "secondary_capture", "not_in_collection", "empty_slice", "burned_in_text")
)  # fmt: skip
"""Drops that are no loss however many: what is no image, what is kept in another file, what was asked for."""
_TIES = {
    "patient": "if one PatientID stands for many, give each their own, or none (then studies stand for them),",
    "study": "if one StudyInstanceUID stands for many, give each study its own,",
    "group of near-duplicates": "if they are no copies, choose what to export by the report's pictures,",
}

Counts = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run ended with.

    Attributes
    ----------
    counts : dict
        Files by verdict and reason, over all generations.
    samples : int
        Samples of the dataset.
    new_files, changed, missing : int
        Files that this run took in, that have another size now, that are gone.
    quarantine_share : float
        Share of files that are quarantined.
    within_quarantine : bool
        Whether that is at most --max-quarantine.
    unwanted : tuple of str
        A sentence for each thing that nobody can want.
    retried : dict or None
        Files taken in again, by reason.
    told : tuple of str
        Sentences on the facts and labels of a collection, or of a table, on flags, and on copies across patients.
    """

    counts: dict[str, dict[str, int]]
    samples: int
    new_files: int
    changed: int
    missing: int
    quarantine_share: float
    within_quarantine: bool
    unwanted: tuple[str, ...] = ()  # sentences
    retried: dict[str, int] | None = None  # files taken in again by reason
    told: tuple[str, ...] = ()


def unwanted(
    samples: pa.Table | Spill, counts: Counts, rules: Rules, modalities: Callable[[], Counter[str]]
) -> tuple[str, ...]:
    """Return a sentence for each thing about a dataset that nobody can want.

    Parameters
    ----------
    samples : pyarrow.Table or Spill
        Has the manifest's columns patient, study, group and split.
    counts : mapping
        Files by verdict and reason.
    rules : Rules
        What the build accepted.
    modalities : callable
        Counts the export's files by modality.
    """
    dropping = _dropping(counts, rules, modalities)
    if not samples.num_rows:
        return (_no_sample(counts, None if dropping else modalities()), *dropping)
    return (*_no_train(samples), *_one_for_most(samples), *dropping)


def _no_sample(counts: Counts, modalities: Counter[str] | None) -> str:
    dropped, quarantined = (sum(counts.get(verdict, {}).values()) for verdict in ("dropped", "quarantined"))
    export = f"; by modality the export has {listed(modalities)}" if modalities else ""
    return f"no sample was written: {dropped:,} files were dropped and {quarantined:,} quarantined{export}"


def _no_train(samples: pa.Table | Spill) -> list[str]:
    splits = Counter({one["values"]: one["counts"] for one in pc.value_counts(samples["split"]).to_pylist()})
    if splits["train"]:
        return []
    found = ", ".join(f"{name} has {count:,}" for name, count in sorted(splits.items()))
    return [f"no sample is in the train split ({found}): a keyed hash assigns patients, so bring more of them"]


def _one_for_most(samples: pa.Table | Spill) -> list[str]:
    """Images of one patient, study or group share a split: with most of the samples it makes splits useless."""
    for what, remedy in _TIES.items():
        column = what.partition(" ")[0]
        value, count = _majority(samples, column)
        if count >= FEW:
            one = matching(samples.select([column, "split"]), column, pa.array([value]))
            split, share = one["split"][0], f"{count:,} of {samples.num_rows:,} samples"
            return [f"one {what} has {share}, all in the {split} split: {remedy} and build into another --out"]
    return []


def _majority(samples: pa.Table | Spill, column: str) -> tuple[str, int]:
    """Return the value that more than `MOST` of the samples have, and how many have it; 0 where there is none.

    Such a value has more than that share of some block, so that no table of all values is needed.
    """
    one, likely = samples.select([column]), set[str]()
    for block in blocks(one):
        found = pc.value_counts(block[column].drop_null())
        likely.update(
            found.filter(pc.greater(found.field("counts"), MOST * block.num_rows)).field("values").to_pylist()
        )
    counts = Counter[str]()
    for block in blocks(one):
        values = block[column].filter(pc.is_in(block[column], pa.array(sorted(likely), pa.string())))
        counts.update({found["values"]: found["counts"] for found in pc.value_counts(values).to_pylist()})
    ((value, count),) = counts.most_common(1) or [("", 0)]
    return value, count if count > MOST * samples.num_rows else 0


def _dropping(counts: Counts, rules: Rules, modalities: Callable[[], Counter[str]]) -> list[str]:
    """Of the rules that may be wrong about an image, or set wrongly, the one that dropped most images."""
    dropped = {reason: n for reason, n in counts.get("dropped", {}).items() if reason not in BY_DESIGN}
    images = sum(counts.get("written", {}).values()) + sum(dropped.values())
    reason = max(dropped, key=lambda name: dropped[name], default="")
    if not reason or dropped[reason] <= MOST * images:
        return []
    start = f"the rule {reason} dropped {dropped[reason]:,} of {images:,} images"
    if reason != "modality_excluded":
        return [f"{start} ({DROPS[reason]}): look at some of them"]
    found = f"by modality the export has {listed(modalities())}, --modalities takes {' '.join(rules.modalities)}"
    return [f"{start}: {found}; name what you want, and build into another --out"]


def listed(counts: Mapping[str, int]) -> str:
    """Return names with counts as text, most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count:,}" for name, count in ranked) or "none was read"


def recovered(reasons: Mapping[str, int]) -> str:
    """Say how many of the files that were taken in again got written, and what the rest ended as."""
    rest = {reason: count for reason, count in reasons.items() if reason not in WRITTEN}
    taken = sum(reasons.values())
    words = f"{taken - sum(rest.values()):,} of {taken:,} recovered"
    return f"{words}; the rest: {listed(rest)}" if rest else words
