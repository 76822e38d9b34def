"""Every option of a build, written once: the command line, its help, dataset.json and the check of a resume follow.

A field of `DatasetOptions`, `Rules` or `RunOptions` is an option: name, type, default, help, and the unit it is typed
in. A dataset's first run fixes all that decides its bytes, which is what `DatasetOptions` holds; the rest is the run's.
Only light modules are imported here, because the command line needs this one for its help.
"""

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from cyclopts import Group, Parameter, Token, convert

if TYPE_CHECKING:
    from shardkit.sources.base import ImageSource
    from shardkit.sources.files import FileTree

TIME_LIMIT = 30.0
"""Seconds a file may take to decode and encode."""
MEMORY_LIMIT = 4 << 30
"""Bytes of address space a child may take beyond what its libraries need."""

Format = Literal["webdataset", "zarr"]
Codec = Literal["htj2k", "png", "raw", "blosc"]


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _mebibytes(_: Any, tokens: Sequence[Token]) -> int:
    return int(convert(int, tokens)) << 20


def _gibibytes(_: Any, tokens: Sequence[Token]) -> int:
    number = convert(float, tokens)
    if not math.isfinite(number):
        raise ValueError("no number of GiB")
    return int(number * (1 << 30))


SHARD_SIZE = Parameter(name="--shard-size", converter=_mebibytes, show_default=lambda size: f"{size / (1 << 20):.12g}")
_GIB = Parameter(converter=_gibibytes, metavar="FLOAT", show_default=lambda size: str(size / (1 << 30)))
_WORDS = Parameter(consume_multiple=True, show_default=" ".join)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a build accepts. `modalities` may hold `shardkit.triage.NO_MODALITY`.

    Measured: content fills 0-0.014 of images that hold a border or a label only, 0.5 and more of clinical ones.

    Parameters
    ----------
    modalities
        DICOM modalities to take. The SOP class stands in for one that is absent; NONE takes files for which it cannot.
    min_side
        Drop images with a side below this, in pixels.
    max_side
        Images with a side above this are dropped or halved, in pixels.
    min_content
        Drop images of which all but borders and padding fill less than this share.
    oversize
        What to do with images above --max-side.
    secondary_capture
        Whether to take secondary captures.
    missing_patient_id
        Without a PatientID, let the study stand for the patient, or quarantine.
    near_duplicates
        Report near-duplicates and keep them in one split, or drop all but one.
    burned_in
        Images with text in their pixels, side markers apart: flag them, drop them, or paint the text over. The last two
        need the extra ocr.
    """

    modalities: Annotated[tuple[str, ...], _WORDS] = ("CR", "DX", "MG", "PX", "IO", "RG")
    min_side: int = 64
    max_side: int = 3072
    min_content: float = 0.05
    oversize: Literal["drop", "halve"] = "drop"
    secondary_capture: Literal["keep", "drop"] = "keep"
    missing_patient_id: Literal["study", "quarantine"] = "study"
    near_duplicates: Literal["report", "drop"] = "report"
    burned_in: Literal["flag", "drop", "blank"] = "flag"

    def __post_init__(self) -> None:
        """Take modalities in any case."""
        object.__setattr__(self, "modalities", tuple(name.upper() for name in self.modalities))


@Parameter(name="*", group=Group("Fixed by a dataset's first run", sort_key=1))
@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOptions:
    """What may not change from run to run, because it decides bytes; in the order in which dataset.json names it.

    An option that is added needs as its default what builds did before: their records lack it.

    Parameters
    ----------
    format
        webdataset (tars) or zarr (arrays).
    codec
        Image format of the samples, default htj2k, which holds every resolution in one stream; in Zarr always blosc.
    levels
        Zarr only: how many smaller images (1/2, 1/4, ...) to store beside each, as arrays pixels_1, pixels_2, ...
    bins
        auto:K, thesis, or a JSON file of [height, width] pairs.
    patch
        Patch size in pixels that bins are multiples of.
    shard_bytes
        Size aimed at for a shard, in MiB.
    invert
        full inverts as 2^bits - 1 - x; imagemax as max(image) - x, the thesis' variant.
    demographics
        Keep sex and age (five-year steps).
    follow_symlinks
        Read what symbolic links point to.
    collection
        The public collection that the source is a copy of, such as nih14: says whom and what its images show, and its
        labels. `shardkit collections` lists them.
    image_files
        Take PNG, JPEG, TIFF and NIfTI files, as well as DICOM. Files that --facts names are taken in any case.
    frames
        What to do with files of several frames: drop them, or take each frame as an image.
    slices
        Which slices of a NIfTI volume to take: axis=0, 1 or 2, and from, to (which is left out) and step.
    """

    format: Format = "webdataset"
    codec: Codec | None = None
    levels: int = 0
    bins: str = "auto:36"
    patch: int = 48
    shard_bytes: Annotated[int, SHARD_SIZE] = 512 << 20
    invert: Literal["full", "imagemax"] = "full"
    demographics: bool = False
    follow_symlinks: bool = False
    collection: str | None = None
    image_files: bool = False
    frames: Literal["drop", "each"] = "drop"
    slices: str = "axis=2"
    rules: Rules = Rules()

    def __post_init__(self) -> None:
        """Take the modalities of a collection."""
        if self.collection is not None:
            from shardkit.sources.collections import collection

            known = collection(self.collection).modalities
            taken = tuple(dict.fromkeys((*self.rules.modalities, *known)))
            object.__setattr__(self, "rules", replace(self.rules, modalities=taken))

    @property
    def codec_name(self) -> str:
        """The codec, or the usual one of the format."""
        return self.codec or usual_codec(self.format)

    def record(self) -> dict[str, Any]:
        """Return the options as dataset.json has them: plain JSON values, with what a file of bins says."""
        from shardkit.dataset.bin_choice import read_json

        values = flat(self)
        values["codec"] = self.codec_name
        values["bins"] = read_json(Path(self.bins)) if self.bins.endswith(".json") else self.bins
        values["modalities"] = sorted(self.rules.modalities)
        return dict(json.loads(json.dumps(values)))


@Parameter(name="*", group=Group("May change from run to run", sort_key=2))
@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What decides no byte of the dataset.

    Parameters
    ----------
    source_moved
        The export of the earlier runs now lies here.
    max_quarantine
        Share of files that may be quarantined before the exit code is 3.
    accept_outcome
        Do not end with exit code 4 for a dataset that nobody can want.
    workers
        Processes that decode; default one per core.
    time_limit
        Seconds a file may take: more than before, to retry decode_timeout.
    memory_limit
        GiB a decoder may take: more than before, to retry memory_limit.
    """

    source_moved: bool = False
    max_quarantine: float = 0.01
    accept_outcome: bool = False
    workers: Annotated[int, Parameter(show_default=False)] = field(default_factory=cores)
    time_limit: float = TIME_LIMIT
    memory_limit: Annotated[int, _GIB] = MEMORY_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What all shards of a build share; carried to every worker. Holds no key and no credentials."""

    source: "ImageSource"
    out: str
    dataset: DatasetOptions
    run: RunOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildConfig:
    """A build: from where, to where, and its options.

    Parameters
    ----------
    source
        Folder or bucket url of the export.
    out
        Folder or bucket url of the dataset.
    private
        Folder of the ledger and the pseudonym key.
    facts
        Table that says of files whom they are of and how they were taken.
    facts_columns
        Names of the table's columns by what they say, such as {"path": "Image", "patient": "PatientID"}, where they are
        others.
    dataset, run
        The options.
    children
        Decoding processes of each process that runs tasks; None: as many as there are workers.
    recorded
        What the first run recorded, where that is to be repeated whatever files it was read from.
    images
        Makes the source of images of the files at `source`; None: DICOM.
    """

    source: str
    out: str
    private: Path
    facts: str | Path | None = None
    facts_columns: dict[str, str] = field(default_factory=dict)
    dataset: DatasetOptions = DatasetOptions()
    run: RunOptions = field(default_factory=RunOptions)
    children: int | None = None
    recorded: dict[str, Any] | None = None
    images: "Callable[[FileTree], ImageSource] | None" = None

    @classmethod
    def of(cls, source: str, out: str, private: Path, **options: Any) -> "BuildConfig":
        """Make a build by the names of its options, e.g. ``codec="png", min_side=100, workers=2``."""
        own = {name: options.pop(name) for name in _OWN if name in options}
        run = RunOptions(**{f.name: options.pop(f.name) for f in fields(RunOptions) if f.name in options})
        rules = Rules(**{f.name: options.pop(f.name) for f in fields(Rules) if f.name in options})
        dataset = DatasetOptions(rules=rules, **options)
        return cls(source=source, out=out, private=private, dataset=dataset, run=run, **own)

    @classmethod
    def repeated(cls, source: str, out: str, private: Path, record: dict[str, Any], run: RunOptions) -> "BuildConfig":
        """Make a build with what an earlier one recorded."""
        recorded = completed(record)
        bins = recorded["bins"] if isinstance(recorded["bins"], str) else "auto"  # given bins are in the plans
        build = cls.of(source, out, private, **recorded | {"bins": bins}, recorded=recorded)
        return replace(build, run=run)

    @property
    def conversion(self) -> Conversion:
        """What workers need."""
        from shardkit.sources import image_source

        chosen = self.dataset
        source = image_source(
            self.source,
            chosen.follow_symlinks,
            self.images,
            indexes=self.private / "archives",
            image_files=chosen.image_files,
            frames=chosen.frames,
            slices=chosen.slices,
        )
        return Conversion(source=source, out=self.out, dataset=self.dataset, run=self.run)

    def fixed(self) -> dict[str, Any]:
        """Return the record that this build must agree with on every run."""
        return self.dataset.record() if self.recorded is None else self.recorded

    def with_workers(self, workers: int, children: int) -> "BuildConfig":
        """Return the same build on other workers; its bytes stay."""
        return replace(self, run=replace(self.run, workers=workers), children=children)


_OWN = ("facts", "facts_columns", "children", "recorded", "images")  # of a BuildConfig, beside places and records


def usual_codec(form: str) -> str:
    """Return the first of a format's codecs."""
    from shardkit.formats import codecs_of, shard_format

    return codecs_of(shard_format(form))[0]


def flat(options: Any) -> dict[str, Any]:
    """Return field -> value, through all records in records."""
    found: dict[str, Any] = {}
    for f in fields(options):
        value = getattr(options, f.name)
        found |= flat(value) if is_dataclass(value) else {f.name: value}
    return found


def completed(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of a build with the defaults of options that came after it."""
    return DatasetOptions().record() | record


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what two records differ in, each as it is typed, e.g. "--shard-size was 512, now 64"."""
    before, said = completed(before), []
    for name, parameter in _parameters(DatasetOptions).items():
        if before[name] != now[name]:
            option = next(iter(parameter.name or ()), f"--{name.replace('_', '-')}")
            said.append(f"{option} was {_typed(before[name], parameter)}, now {_typed(now[name], parameter)}")
    return said


def _parameters(kind: type) -> dict[str, Parameter]:
    """Return how each option is typed."""
    found: dict[str, Parameter] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if is_dataclass(hint):
            found |= _parameters(hint)  # type: ignore[arg-type]
        else:
            found[name] = next((m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Parameter)), Parameter())
    return found


def _typed(value: Any, parameter: Parameter) -> str:
    """Return a recorded value in the words and units of the command line."""
    return parameter.show_default(value) if callable(parameter.show_default) else str(value)
