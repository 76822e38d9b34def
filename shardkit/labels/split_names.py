"""Names of splits: "train", a labels table's official "nih14:train", and "nih14:train/val", held out of that one.

An official split often has no val. `nih14:train/val` are its training images whose patients are in val by patients'
hashes, and `nih14:train/train` are all its others.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.errors import ArgumentError

_ALL: Final = "all"
_TRAIN, _VAL = PARTS = ("train", "val")
_OWN: Final = (*PARTS, "test")  # splits by patients' hashes
_GIVE: Final = "give train, val, test, all, or a labels table's, as nih14:train"


@dataclass(frozen=True, slots=True)
class Choice:
    """A split's name.

    Attributes
    ----------
    table : str
        The labels table whose official split it is; empty for the one by patients' hashes.
    word : str
        The split.
    part : str
        val for those of an official split that are in val by patients' hashes, train for all others of it; empty for
        both.
    """

    table: str
    word: str
    part: str = ""

    @classmethod
    def read(cls, text: str) -> "Choice":
        """Read what `str` writes.

        Raises
        ------
        ArgumentError
            A name is missing, or the part is no part.
        """
        table, colon, rest = text.partition(":")
        if not colon:
            return cls("", table)
        word, slash, part = rest.partition("/")
        if not word:
            raise ArgumentError(f"split={text!r}: {_GIVE}")
        if slash and part not in PARTS:
            raise ArgumentError(
                f"split={text!r}: an official split has the parts {table}:{word}/val, which are those of our own val,"
                f" and {table}:{word}/train, which are all others"
            )
        return cls(table, word, part)

    def __str__(self) -> str:
        """Write it as it is typed."""
        name = f"{self.table}:{self.word}" if self.table else self.word
        return f"{name}/{self.part}" if self.part else name

    def called(self, word: str) -> "Choice":
        """Return the one with another word: a part of a split has train and val beside it, all others are official."""
        return Choice(self.table, self.word, word) if self.part and word in PARTS else Choice(self.table, word)

    def of_part(self, own: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        """Return which rows are in the part, by the splits of patients' hashes."""
        held = equals(own, _VAL)
        return np.ones(len(held), np.bool_) if not self.part else held if self.part == _VAL else ~held


@dataclass(frozen=True, slots=True)
class Split:
    """A split, or one for each of some labels tables, as in "nih14:train,covidx:train".

    A dataset takes the first whose table it has. A member of a mixture that has none of the tables takes its split by
    patients' hashes, if all the names say the same of train, val and test.

    Attributes
    ----------
    choices : tuple of Choice
        One or more.
    """

    choices: tuple[Choice, ...]

    @classmethod
    def read(cls, text: str) -> "Split":
        """Read what `str` writes.

        Raises
        ------
        ArgumentError
            A name is missing.
        """
        choices = list[Choice]()
        for name in map(str.strip, text.split(",")):
            if not name or name.startswith(":"):
                raise ArgumentError(f"split={text!r}: {_GIVE}")
            if choices and not choices[-1].table:
                raise ArgumentError(
                    f"split={text!r}: a list is of labels tables' splits, of which each dataset takes its own, as"
                    " nih14:train,covidx:train; for several splits together give split='all' and where"
                )
            choices.append(Choice.read(name))
        return cls(tuple(choices))

    @classmethod
    def named(cls, text: str | None) -> "Split | None":
        """Read a split as it is typed; None for all samples."""
        return None if text in (None, _ALL) else cls.read(text)

    def __str__(self) -> str:
        """Write it as it is typed."""
        return ",".join(map(str, self.choices))

    @property
    def official(self) -> bool:
        """Whether labels tables say which samples it has."""
        return any(choice.table for choice in self.choices)

    @property
    def tables(self) -> list[str]:
        """Names of the labels tables, each once."""
        return list(dict.fromkeys(choice.table for choice in self.choices if choice.table))

    def called(self, word: str) -> "Split":
        """Return the split of the same tables with another word: val of nih14:train/train is nih14:train/val."""
        return Split(tuple(choice.called(word) for choice in self.choices))

    @property
    def elsewhere(self) -> Choice | None:
        """What a dataset takes that has none of the tables: its own split of the word that all names say."""
        words = {choice.part or choice.word for choice in self.choices}
        return Choice("", words.pop()) if len(words) == 1 and words <= {*_OWN} else None

    def of(self, tables: Iterable[str]) -> Choice | None:
        """Return the choice for a dataset with these labels tables; None where it has none."""
        return next((choice for choice in self.choices if not choice.table or choice.table in tables), None)


def equals(column: pa.ChunkedArray, word: str) -> npt.NDArray[np.bool_]:
    """Return which values of a column of words, in clear or as codes, are this one; none of the nulls."""
    if not pa.types.is_dictionary(column.type):
        return np.asarray(pc.fill_null(pc.equal(column, word), False).to_numpy(), np.bool_)
    found = [np.zeros(0, np.bool_)]
    for chunk in column.chunks:
        code = pc.index(chunk.dictionary, word).as_py()
        found.append(chunk.indices.fill_null(-1).to_numpy() == (code if code >= 0 else len(chunk.dictionary)))
    return np.concatenate(found)
