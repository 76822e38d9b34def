"""What a build is asked to do, and which combinations of places are refused."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from shardkit.build import isolation
from shardkit.codecs.base import LEVELS
from shardkit.dataset import bins as resolution_bins
from shardkit.errors import ArgumentError
from shardkit.formats import codecs_of, shard_format
from shardkit.sources.dicom.grayscale import Invert
from shardkit.sources.dicom.triage import Rules
from shardkit.sources.listing import Source
from shardkit.storage.store import is_remote, local_path, shown

MAX_LEVELS = LEVELS  # which every image has


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What all shards of a build share; carried to every worker. Holds no key and no credentials."""

    source: Source
    out: str
    format: str = "webdataset"
    codec: str = "htj2k"
    levels: int = 0  # smaller images stored beside those of codecs that have none inside
    rules: Rules = field(default_factory=Rules)
    invert: Invert = "full"
    demographics: bool = False
    time_limit: float = isolation.TIME_LIMIT
    memory_limit: int = isolation.MEMORY_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """A build. All but workers, limits and `max_quarantine` are fixed by a dataset's first run."""

    conversion: Conversion
    private: Path
    bins: str = "auto:36"
    patch: int = 48
    shard_bytes: int = 512 << 20
    max_quarantine: float = 0.01
    source_moved: bool = False  # the export is the one of the first run, in another place
    workers: int = 1  # tasks at a time
    children: int | None = None  # decoding processes of each process that runs tasks; None: as many as workers
    recorded: dict[str, Any] | None = None  # what `fixed` was in the first run, where that is to be repeated

    def fixed(self) -> dict[str, Any]:
        """What may not change from run to run, because it decides bytes; plain JSON values."""
        if self.recorded is not None:
            return self.recorded
        spec = self.conversion
        values = {
            "format": spec.format,
            "codec": spec.codec,
            "levels": spec.levels,
            "bins": resolution_bins.read_json(Path(self.bins)) if self.bins.endswith(".json") else self.bins,
            "patch": self.patch,
            "shard_bytes": self.shard_bytes,
            "invert": spec.invert,
            "demographics": spec.demographics,
            "follow_symlinks": spec.source.follow_symlinks,
            **asdict(spec.rules),
            "modalities": sorted(spec.rules.modalities),
        }
        return dict(json.loads(json.dumps(values)))

    def with_workers(self, workers: int, children: int) -> "Arguments":
        """The same build on other workers; never changes its bytes."""
        return replace(self, workers=workers, children=children)

    def check_values(self) -> None:
        """Raises ArgumentError for numbers that cannot be used."""
        rules, spec = self.conversion.rules, self.conversion
        for name, sound, wanted in (
            ("--patch", self.patch >= 1, "at least 1"),
            ("--shard-size", self.shard_bytes >= 1, "at least 1"),
            ("--workers", self.workers >= 1, "at least 1"),
            ("--max-quarantine", 0 <= self.max_quarantine <= 1, "a share between 0 and 1"),
            ("--min-side", 1 <= rules.min_side <= rules.max_side, "between 1 and --max-side"),
            ("--min-content", 0 <= rules.min_content < 1, "a share of at least 0 and below 1"),
            ("--time-limit", spec.time_limit > 0, "above 0 seconds"),
            ("--memory-limit", spec.memory_limit > 0, "above 0 GiB"),
            ("--modalities", len(rules.modalities) > 0, "one code or more"),
        ):
            if not sound:
                raise ArgumentError(f"{name} must be {wanted}")
        check_format(spec.format, spec.codec, spec.levels)

    def check_places(self) -> None:
        """Raises ArgumentError where the dataset would lie in the export, or private files in the dataset."""
        out, source, private = self.conversion.out, self.conversion.source.url, _place(str(self.private))
        if not is_remote(out) and local_path(out).exists() and not local_path(out).is_dir():
            raise ArgumentError(f"--out {out} is a file: name a folder")
        place, export = _place(out), _place(source)
        if private.startswith(place):
            raise ArgumentError(f"--private {private} lies inside --out: keys and paths must stay outside the dataset")
        if private.startswith(export):
            raise ArgumentError(f"--private {private} lies inside --source: choose a folder outside the export")
        if place.startswith(export):
            raise ArgumentError(f"--out {shown(out)} lies inside --source: the next build would read its own shards")
        if export.startswith(place):
            raise ArgumentError(
                f"--source {shown(source)} lies inside --out: choose a folder of its own for the dataset"
            )


def check_format(form: str, codec: str, levels: int) -> None:
    """Raises ArgumentError for a codec or levels that shards of this format do not have."""
    codecs = codecs_of(shard_format(form))
    if codec not in codecs:
        raise ArgumentError(f"codec {codec} is not stored in {form} shards: choose one of {', '.join(codecs)}")
    if not 0 <= levels <= MAX_LEVELS:
        raise ArgumentError(f"--levels must be between 0 and {MAX_LEVELS}")
    if levels and shard_format(form).NESTED:
        raise ArgumentError("--levels is for Zarr shards: htj2k in tars holds all levels in one copy")


def _place(url: str) -> str:
    """A url or path, resolved and with a slash at its end, so that what lies inside it starts with it."""
    return f"{url.rstrip('/') if is_remote(url) else local_path(url).resolve()}/".replace("//", "/")
