"""What a run says of each sample of a split, beside what is known: one Parquet file, all that scores are made from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.errors import ArgumentError
from shardkit.storage import parquet
from trainer.evaluate.kinds import Floats, Kind, Mask, probabilities

FACTS = {"view": pa.string(), "sex": pa.string(), "body_part": pa.string(), "age": pa.float64()}
"""What the manifest says of a sample; null where it does not. Ages are in years."""
UNREAD = "could not be read"
"""What a note of images says that are not among the predictions."""
_NAME = r"\A[0-9a-f-]{1,128}\z"  # as keys and pseudonyms of a dataset are
_ABOUT = b"about"


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionsAbout:
    """What predictions are of.

    Attributes
    ----------
    run : str
        The run's name.
    seed : int or None
        Its seed, where it is one of several.
    step : int
        Update that the weights are of.
    site, data, digest, split : str
        Name of the dataset for tables, the dataset, its digest, and its split.
    labels, labels_digest : str
        Table of labels, and its digest.
    kind : {"multilabel", "multiclass", "regression"}
        Kind of the task.
    classes : tuple of str
        What the head's outputs are.
    select_split, select_metric, select_value
        How the step was chosen; None where it is the last.
    weights : str
        Where the weights began, in words.
    notes : tuple of str
        Warnings that a reader should see.
    checkpoint : str
        Digest of the checkpoint's files.
    split_digest : str
        Digest of the labels table that says who is in the split; empty where the manifest says it.
    origin : str
        Digest of the path of the run's folder, which tells runs of one name apart; empty where it is not known.
    normalise : str
        What happened to grey levels, as `--loader.normalise` has it; older files may leave it empty where that is what
        the run's says.
    """

    run: str
    seed: int | None
    step: int
    site: str
    data: str
    digest: str
    split: str
    labels: str
    labels_digest: str
    kind: Kind
    classes: tuple[str, ...]
    select_split: str | None = None
    select_metric: str | None = None
    select_value: float | None = None
    weights: str = ""
    notes: tuple[str, ...] = ()
    checkpoint: str = ""
    split_digest: str = ""
    origin: str = ""
    normalise: str = ""

    @classmethod
    def from_json(cls, text: str | bytes) -> "PredictionsAbout":
        """Return what `to_json` wrote.

        Raises
        ------
        ArgumentError
            It is not that.
        """
        try:
            values = json.loads(text)
            made = cls(**{**values, "classes": tuple(values["classes"]), "notes": tuple(values["notes"])})
        except (ValueError, TypeError, KeyError):
            raise ArgumentError("its `about` is not what this version writes: predict again") from None
        if made.kind not in get_args(Kind):
            raise ArgumentError(f"its kind is {made.kind!r}, not one of {', '.join(get_args(Kind))}: predict again")
        return made

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Predictions:
    """Scores and targets of samples, each once, in the order of their keys.

    Parameters
    ----------
    about
        What they are of.
    table
        Columns `key`, `patient`, those of `FACTS`, then `score.CLASS` and `target.CLASS` of each class; a target is
        null where it is unknown. In any order of rows.

    Raises
    ------
    ArgumentError
        The table is not like that.
    """

    about: PredictionsAbout
    table: pa.Table

    def __post_init__(self) -> None:
        """Check the table, and sort it."""
        wanted = schema(self.about)
        _check_columns(self.table, wanted)
        try:
            table = self.table.select(wanted.names).cast(wanted.remove_metadata()).combine_chunks()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise ArgumentError("a column has another type than predictions have: predict again") from None
        table = table.sort_by("key").replace_schema_metadata(wanted.metadata)
        object.__setattr__(self, "table", table)
        _check_names(table)
        if not np.isfinite(self.scores).all():
            raise ArgumentError("a score is not a finite number: the weights are broken, or the run diverged")
        _check_targets(self.about.kind, self.targets)

    def __len__(self) -> int:
        """Return the number of samples."""
        return int(self.table.num_rows)

    @property
    def classes(self) -> tuple[str, ...]:
        """What the head's outputs are."""
        return self.about.classes

    @cached_property
    def scores(self) -> Floats:
        """float64 (n, K), raw outputs of the head."""
        return self._columns("score")

    @cached_property
    def targets(self) -> Floats:
        """float64 (n, K), NaN where unknown."""
        return self._columns("target")

    @property
    def known(self) -> Mask:
        """Bool (n, K), whether the target is known."""
        return ~np.isnan(self.targets)

    @property
    def probabilities(self) -> Floats:
        """float64 (n, K): sigmoid or softmax of the scores; of a regression the scores."""
        return probabilities(self.about.kind, self.scores)

    @property
    def keys(self) -> list[str]:
        """Keys of the samples."""
        return self.table["key"].to_pylist()  # type: ignore[no-any-return]

    @cached_property
    def patients(self) -> npt.NDArray[np.int64]:
        """int64 (n,), a number for each patient; a sample of an unknown one counts as a patient of its own."""
        names = pc.coalesce(self.table["patient"], pc.binary_join_element_wise("key", self.table["key"], " "))
        return np.unique(names.to_numpy(), return_inverse=True)[1].astype(np.int64)

    @property
    def patients_unknown(self) -> int:
        """How many samples are of an unknown patient."""
        return int(self.table["patient"].null_count)

    def fact(self, name: str) -> npt.NDArray[Any]:
        """Return what is known of samples: text or None, and for age float64 with NaN.

        Parameters
        ----------
        name
            One of `FACTS`.
        """
        return np.asarray(self.table[name].to_numpy())

    def take(self, rows: npt.NDArray[Any]) -> "Predictions":
        """Return some of the samples, by a mask or by numbers."""
        at = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Predictions(self.about, self.table.take(pa.array(at)))

    def _columns(self, kind: str) -> Floats:
        columns = [self.table[f"{kind}.{name}"].to_numpy() for name in self.classes]
        return np.stack(columns, axis=1).astype(np.float64) if columns else np.empty((len(self), 0))


def schema(about: PredictionsAbout) -> pa.Schema:
    """Return the columns of a table of predictions.

    Parameters
    ----------
    about
        What they are of; the schema's metadata hold it as JSON.
    """
    columns = [("key", pa.string()), ("patient", pa.string()), *FACTS.items()]
    columns += [(f"{kind}.{name}", pa.float64()) for name in about.classes for kind in ("score", "target")]
    return pa.schema(columns, {_ABOUT: about.to_json().encode()})


def table_of(
    about: PredictionsAbout,
    keys: Sequence[str],
    scores: npt.NDArray[Any],
    targets: npt.NDArray[Any],
    facts: Mapping[str, Sequence[Any]],
) -> pa.Table:
    """Return a table of predictions, or one process's piece of it.

    Parameters
    ----------
    about
        What they are of.
    keys
        Keys of n samples.
    scores, targets
        float (n, K); NaN where a target is unknown.
    facts
        `patient` and those of `FACTS`, each n values; null where one is not given.
    """
    unknown = facts.keys() - {"patient", *FACTS}
    if unknown:
        raise ArgumentError(f"predictions have no column {', '.join(sorted(unknown))}: leave it out")
    arrays: dict[str, pa.Array] = {"key": pa.array(keys, pa.string())}
    for name, kind in {"patient": pa.string(), **FACTS}.items():
        values = facts.get(name)
        arrays[name] = pa.nulls(len(keys), kind) if values is None else pa.array(values, kind, from_pandas=True)
    for at, name in enumerate(about.classes):
        arrays[f"score.{name}"] = pa.array(np.asarray(scores[:, at], np.float64))
        arrays[f"target.{name}"] = pa.array(np.asarray(targets[:, at], np.float64), from_pandas=True)
    return pa.table(arrays, schema(about))


def merged(about: PredictionsAbout, pieces: Sequence[pa.Table]) -> Predictions:
    """Put the pieces of several processes together.

    Parameters
    ----------
    about
        What they are of.
    pieces
        Tables as `table_of` returns them, one or more.

    Raises
    ------
    ArgumentError
        A sample is in two of them, or twice in one, or the whole is no table that `Predictions` takes.
    """
    return Predictions(about, pa.concat_tables([piece.replace_schema_metadata(None) for piece in pieces]))


def write(predictions: Predictions, path: Path) -> None:
    """Write predictions; the file appears whole or not at all, and only its owner may read it.

    Parameters
    ----------
    predictions
        What to write.
    path
        The Parquet file; its folder is made, and a file of that name is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write(predictions.table, path)


def read(path: Path) -> Predictions:
    """Read predictions.

    Parameters
    ----------
    path
        A file that `write` wrote.

    Raises
    ------
    ArgumentError
        There is no such file, or it holds something else.
    IntegrityError
        The file is damaged.
    """
    if not path.is_file():
        raise ArgumentError(f"{path} is not there: write it with `python -m trainer evaluate RUN`")
    with parquet.legible(str(path)):
        table = parquet.read(path)
    try:
        about = (table.schema.metadata or {}).get(_ABOUT)
        if about is None:
            raise ArgumentError("it has no `about`, so it is no file of predictions")
        return Predictions(PredictionsAbout.from_json(about), table)
    except ArgumentError as error:
        raise ArgumentError(f"{path} cannot be used: {error}") from None


def _check_columns(table: pa.Table, wanted: pa.Schema) -> None:
    names = table.column_names
    if len(set(wanted.names)) < len(wanted.names) or len(wanted.names) == len(FACTS) + 2:
        raise ArgumentError("classes have to be named, each once: look at the columns of the labels")
    if more := [name for name in names if name not in wanted.names]:
        raise ArgumentError(f"the column {more[0]!r} is none that predictions have: leave it out")
    if less := [name for name in wanted.names if name not in names]:
        raise ArgumentError(f"the column {less[0]!r} is missing: predict again")
    if len(names) != len(wanted.names):
        raise ArgumentError("a column is there twice: predict again")


def _check_names(table: pa.Table) -> None:
    """Keys are there once, and neither they nor patients are anything but pseudonyms. Values are not printed."""
    for name in ("key", "patient"):
        if not pc.all(pc.match_substring_regex(table[name], _NAME), min_count=0).as_py():
            raise ArgumentError(f"a {name} is no pseudonym of a dataset: predict from the dataset's manifest")
    if table["key"].null_count:
        raise ArgumentError("a key is missing: predict from the dataset's manifest")
    if (times := len(table) - pc.count_distinct(table["key"]).as_py()) > 0:
        raise ArgumentError(f"{times:,} rows repeat a sample that is there already: each has to be predicted once")


def _check_targets(kind: Kind, targets: Floats) -> None:
    known = ~np.isnan(targets)
    if np.isinf(targets).any():
        raise ArgumentError("a target is not a finite number: look at the labels")
    if kind == "regression":
        return
    if not np.isin(targets[known], (0.0, 1.0)).all():
        raise ArgumentError("a target is neither 0, 1 nor unknown: look at the policy of the labels")
    if kind == "multiclass":
        whole = known.all(axis=1)
        if (known.any(axis=1) & ~whole).any() or (targets[whole].sum(axis=1) != 1).any():
            raise ArgumentError("a sample is not of exactly one class, nor unknown: look at the labels")
