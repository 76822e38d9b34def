"""Texts are found as one by one, however many there are, in whatever parts they come, and whatever hashes alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit.errors import ArgumentError
from shardkit.labels import lookup
from shardkit.labels.joining.join import joined
from shardkit.labels.lookup import Names, Texts
from shardkit.labels.rows import By, LabelRows
from shardkit.labels.targets import read_targets
from shardkit.storage import growing
from shardkit.storage.growing import Growing, Strings, Words
from tests.labels.conftest import Place
from tests.labels.test_join import opened

TEXTS = st.lists(
    st.none() | st.sampled_from(["", "a", "b", "abcdefgh", "abcdefgi", "abcdefgh\0", "🩻"]) | st.text(max_size=20)
)


@pytest.mark.parametrize("bits", [(1 << 64) - 1, 3 << 32, 0, None], ids=["hashed", "few slots", "all alike", "arrow"])
@settings(max_examples=40)
@given(texts=TEXTS, wanted=TEXTS, skipped=st.integers(0, 3))
def test_texts_are_numbered_and_found_as_one_by_one(
    bits: int | None, texts: list[str | None], wanted: list[str | None], skipped: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup, "_FEW", -1 if bits is not None else 1 << 17)
        patch.setattr(lookup, "_BITS", bits)
        names = Names(pa.array(texts, pa.string()).slice(skipped))
        found = names.find(pa.array(wanted, pa.string()).slice(skipped))
        counts, members = names.members(found)
    texts, wanted = texts[skipped:], wanted[skipped:]
    distinct = list(dict.fromkeys(text for text in texts if text is not None))
    place = {text: i for i, text in enumerate(distinct)}
    assert names.codes.tolist() == [place.get(text, -1) if text is not None else -1 for text in texts]
    assert [texts[row] for row in names.first] == distinct
    assert found.tolist() == [place.get(text, -1) if text is not None else -1 for text in wanted]
    rows = [[i for i, text in enumerate(texts) if text == one and text is not None] for one in wanted]
    assert (counts.tolist(), members.tolist()) == ([*map(len, rows)], [i for found in rows for i in found])


@pytest.mark.parametrize("by", ["path", "name", "sop", "study", "accession", "patient", "key"])
def test_a_join_in_many_small_parts_is_that_in_one(
    place: Place, built: Path, by: By, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled loops, blocks of three references and columns of two words, against Arrow's look-up in one part."""
    of, text = opened(built), _TEXTS[by]
    written = place.written()
    references = [text(spec, written) for spec in place.specs for _ in range(2)] + ["", "nowhere", " x "]
    values = pa.table({"n": pa.array([float(i // 2 % 7) for i in range(len(references))])})
    rows = LabelRows(by, references, values, vote="first", split=[*"abc"] + [None] * (len(references) - 3))

    def done() -> tuple[Any, ...]:
        found = [
            joined("x", rows, of["samples"], read_targets(built / "dataset.private", of["samples"], needed), of["name"])
            for needed in (None, by)
        ]
        assert found[0][1:] == found[1][1:]
        assert found[0][0].digest == found[1][0].digest
        return found[0][0].digest, *found[0][1:]

    whole = done()
    assert whole[1].rows["matched"] >= 8
    monkeypatch.setattr(lookup, "_FEW", -1)
    monkeypatch.setattr(lookup, "BLOCK", 3)
    assert done() == whole


def _path(spec: Any) -> str:
    """A path as tables spell it: whole, with folders above or below the export, as on Windows, without extension."""
    path, how = str(spec.path), sum(map(ord, spec.path)) % 5
    spelled = [f"/data/{path}", "/".join(path.split("/")[1:]), path.replace("/", "\\"), path.removesuffix(".dcm")]
    return [path, *spelled][how]


_TEXTS: dict[By, Any] = {
    "path": lambda spec, _: _path(spec),
    "name": lambda spec, _: spec.path.rpartition("/")[2],
    "sop": lambda spec, _: f" {spec.sop_uid}",
    "study": lambda spec, _: spec.study.uid,
    "accession": lambda spec, _: spec.study.accession,
    "patient": lambda spec, _: spec.study.patient.number,
    "key": lambda spec, written: written.get(spec.path, "none"),
}


@settings(max_examples=60)
@given(pieces=st.lists(TEXTS, max_size=5), skipped=st.integers(0, 2), most=st.integers(0, 4))
def test_columns_grow_to_what_their_pieces_are(pieces: list[list[str | None]], skipped: int, most: int) -> None:
    whole = [text for piece in pieces for text in piece[skipped:]]
    for kind in (Strings, Words, Growing):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(growing, "MANY", most)
            column = kind()
            for piece in pieces:
                column.add(pa.array(piece, pa.string()).slice(skipped))
            found = column.array()
        found.validate(full=True)
        assert found.to_pylist() == whole
        assert pa.types.is_dictionary(found.type) == (
            kind is Words or (kind is Growing and len({*whole} - {None}) <= most)
        )


def test_codes_are_as_narrow_as_their_words_allow() -> None:
    found = Words()
    for words, bits in ((["a", "b", None], 8), ([str(i) for i in range(125)], 8), (["c"], 16), (["d", None, "a"], 16)):
        found.add(pa.array(words, pa.string()))
        assert found.array().type.index_type.bit_width == bits
    assert found.array().to_pylist() == ["a", "b", None, *map(str, range(125)), "c", "d", None, "a"]


def test_more_text_than_an_array_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "_MOST", 9)
    column = Strings()
    column.add(pa.array(["12345", "6789"]))
    with pytest.raises(ArgumentError, match="a column of texts holds more than 2 GiB: take a table of fewer rows"):
        column.add(pa.array(["0"]))


def test_rows_are_counted_into_order(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.array([2, -1, 0, 2, 0, 4, -1], np.int32)
    for few in (100, -1):
        monkeypatch.setattr(lookup, "_FEW", few)
        starts, rows = lookup.grouped(codes, 5)
        assert (starts.tolist(), rows.tolist()) == ([0, 2, 2, 4, 4, 5], [2, 4, 0, 3, 5])
    assert Texts(pa.array([], pa.string())).find(pa.array(["a"])).tolist() == [-1]
