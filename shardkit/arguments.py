"""What a build is asked to do, and which combinations of places are refused."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from shardkit import isolation
from shardkit.dicom.grayscale import Invert
from shardkit.dicom.triage import Rules
from shardkit.errors import ArgumentError
from shardkit.source import Source
from shardkit.storage import is_remote, local_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What all shards of a build share; carried to every worker. Holds no key and no credentials."""

    source: Source
    out: str
    codec: str = "htj2k"
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
    workers: int = 1  # tasks at a time
    children: int | None = None  # decoding processes of each process that runs tasks; None: as many as workers

    def fixed(self) -> dict[str, Any]:
        """What may not change from run to run, because it decides bytes; plain JSON values."""
        spec = self.conversion
        values = {
            "codec": spec.codec,
            "bins": self.bins,
            "patch": self.patch,
            "shard_bytes": self.shard_bytes,
            "invert": spec.invert,
            "demographics": spec.demographics,
            "follow_symlinks": spec.source.follow_symlinks,
            **asdict(spec.rules),
            "modalities": sorted(spec.rules.modalities),
        }
        return dict(json.loads(json.dumps(values)))

    def public(self) -> dict[str, Any]:
        """What dataset.json may tell of them: no path of this machine."""
        return {**self.fixed(), "bins": Path(self.bins).name}

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
            ("--time-limit", spec.time_limit > 0, "above 0 seconds"),
            ("--memory-limit", spec.memory_limit > 0, "above 0 GiB"),
            ("--modalities", len(rules.modalities) > 0, "one code or more"),
        ):
            if not sound:
                raise ArgumentError(f"{name} must be {wanted}")

    def check_places(self) -> None:
        """Raises ArgumentError where the dataset would lie in the export, or private files in the dataset."""
        out, source, private = self.conversion.out, self.conversion.source.url, self.private.resolve()
        if not is_remote(out):
            place = local_path(out).resolve()
            if place.exists() and not place.is_dir():
                raise ArgumentError(f"--out {out} is a file: name a folder")
            if private.is_relative_to(place):
                raise ArgumentError(
                    f"--private {private} lies inside --out: keys and paths must stay outside the dataset"
                )
            if not is_remote(source) and place.is_relative_to(local_path(source).resolve()):
                raise ArgumentError(f"--out {out} lies inside --source: the next build would read its own shards")
        if not is_remote(source) and private.is_relative_to(local_path(source).resolve()):
            raise ArgumentError(f"--private {private} lies inside --source: choose a folder outside the export")
