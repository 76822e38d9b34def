"""The manifest's digest covers values and nothing of how Parquet holds them."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit.dataset import manifest
from shardkit.errors import StorageError
from shardkit.storage import Store, spill

ROWS = 5


def value(kind: pa.DataType, i: int) -> Any:
    if pa.types.is_list(kind):
        return None if i == 1 else [value(kind.value_type, i + k) for k in range(i % 3)]
    if pa.types.is_string(kind):
        return None if i == 3 else f"wört{i}"
    if pa.types.is_fixed_size_binary(kind):
        return bytes([i + 1]) * kind.byte_width
    if pa.types.is_boolean(kind):
        return i % 2 == 0
    return i + 1.5 if pa.types.is_floating(kind) else i + 1


def table() -> pa.Table:
    return pa.table(
        {f.name: pa.array([value(f.type, i) for i in range(ROWS)], f.type) for f in manifest.SCHEMA}, manifest.SCHEMA
    )


def with_value(base: pa.Table, name: str, row: int, new: Any) -> pa.Table:
    at, kind = base.schema.get_field_index(name), base.schema.field(name)
    values = base[name].to_pylist()
    assert values[row] != new
    values[row] = new
    return base.set_column(at, kind, pa.array(values, kind.type))


@pytest.mark.parametrize("name", manifest.SCHEMA.names)
def test_the_digest_changes_with_any_value(name: str) -> None:
    base, kind = table(), manifest.SCHEMA.field(name).type
    seen = {manifest.digest(base)}
    news: list[Any] = [value(kind, 40)]
    if pa.types.is_boolean(kind):
        news = [False]
    if pa.types.is_list(kind):
        news = [[value(kind.value_type, 7)], [value(kind.value_type, 7)] * 2, []]
    row = 2 if pa.types.is_list(kind) else 0
    for new in [*news, None]:
        seen.add(manifest.digest(with_value(base, name, row, new)))
    assert len(seen) == len(news) + 2


def test_null_and_empty_are_different_values() -> None:
    digests = {manifest.digest(with_value(table(), "flags", 2, new)) for new in (None, [], [None], [""])}
    digests |= {manifest.digest(with_value(table(), "view", 0, new)) for new in (None, "")}
    assert len(digests) == 6


def test_characters_moved_between_neighbours_change_the_digest() -> None:
    def named(a: str, b: str) -> str:
        return manifest.digest(with_value(with_value(table(), "view", 0, a), "view", 1, b))

    def listed(a: list[str], b: list[str]) -> str:
        return manifest.digest(with_value(with_value(table(), "flags", 2, a), "flags", 3, b))

    assert len({named("ab", "c"), named("a", "bc")}) == 2
    assert len({listed(["a"], ["b", "c"]), listed(["a", "b"], ["c"])}) == 2


def test_the_order_and_number_of_rows_change_the_digest() -> None:
    base = table()
    others = [base.take([1, 0, 2, 3, 4]), base.slice(0, 4), base.slice(0, 0)]
    assert len({manifest.digest(t) for t in [base, *others]}) == 4


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "none"},
        {"compression": "zstd", "row_group_size": 2},
        {"use_dictionary": False},
        {"version": "1.0"},
        {"data_page_version": "2.0"},
    ],
)
def test_the_digest_does_not_depend_on_parquets_encoding(options: dict[str, Any]) -> None:
    buffer = BytesIO()
    pq.write_table(table(), buffer, **options)
    assert manifest.digest(pq.read_table(buffer).cast(manifest.SCHEMA)) == manifest.digest(table())


def test_the_digest_does_not_depend_on_chunks_slices_or_column_order() -> None:
    base = table()
    want = manifest.digest(base)
    assert manifest.digest(pa.concat_tables([base.slice(0, 1), base.slice(1, 3), base.slice(4)])) == want
    assert manifest.digest(pa.concat_tables([base, base]).slice(ROWS)) == want
    assert manifest.digest(base.select(sorted(base.column_names))) == want


def _read(store: Store) -> pa.Table:
    return manifest.typed(pq.read_table(BytesIO(store.get(manifest.NAME))), manifest.SCHEMA.names)


def test_what_is_written_is_read_back_and_a_changed_value_is_noticed(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    digest = manifest.write(table(), store)
    assert _read(store).equals(table())
    assert manifest.digest(_read(store)) == digest
    manifest.write(with_value(table(), "split", 0, "test"), store)
    assert manifest.digest(_read(store)) != digest


def test_a_table_of_wider_types_is_read_back_under_the_digest_it_was_written_with(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    at = table().schema.get_field_index("height")
    wide = table().set_column(at, "height", table()["height"].cast(pa.int64()))
    digest = manifest.write(wide, store)
    assert manifest.digest(_read(store)) == digest


def _as_one(base: pa.Table) -> tuple[str, bytes]:
    """Digest and file of a manifest as they are defined: made of whole columns, in one call."""
    sha = hashlib.sha256(f"shardkit manifest 1, {base.num_rows} rows".encode())

    def feed(column: pa.Array) -> None:
        sha.update(np.packbits([value is None for value in column.to_pylist()]).tobytes() if len(column) else b"")
        there = column.drop_null()
        if pa.types.is_list(column.type):
            sha.update(np.array([len(value or ()) for value in column.to_pylist()], "<i4").tobytes())
            feed(column.flatten())
        elif pa.types.is_string(column.type) or pa.types.is_fixed_size_binary(column.type):
            data = [value.encode() if isinstance(value, str) else value for value in there.to_pylist()]
            sha.update(np.array([len(value) for value in data], "<i4").tobytes() + b"".join(data))
        else:
            kind = there.type.to_pandas_dtype()
            sha.update(np.array(there.to_pylist(), np.dtype(kind).newbyteorder("<")).tobytes())

    for field in manifest.SCHEMA:
        if field.name in manifest.LATER and base[field.name].null_count == base.num_rows:
            continue
        sha.update(f"\n{field.name} {field.type} ".encode())
        feed(pa.concat_arrays(base[field.name].chunks) if base.num_rows else pa.array([], field.type))
    named = manifest.plain(base).replace_schema_metadata({"shardkit.digest": sha.hexdigest()})
    buffer = BytesIO()
    size = manifest.row_group(base.num_rows)
    pq.write_table(named, buffer, compression="zstd", row_group_size=size, write_page_checksum=True)
    return sha.hexdigest(), buffer.getvalue()


@pytest.mark.parametrize("rows", [0, 1, 8, 9, 50])
@pytest.mark.parametrize("spilled", [False, True])
def test_a_manifest_in_pieces_has_the_digest_and_the_bytes_of_one_that_is_whole(
    rows: int, spilled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "ROW_GROUP", 16)
    monkeypatch.setattr(spill, "BATCH", 8)
    base = pa.concat_tables([table()] * 10).slice(0, rows).combine_chunks()
    given: pa.Table | spill.Spill = pa.concat_tables([base.slice(0, 3), base.slice(3)])
    if spilled:
        with spill.writing(tmp_path / "rows", manifest.SCHEMA) as sink:
            sink.write(base)
        given = spill.Spill(tmp_path / "rows")
    want, data = _as_one(base)
    store = Store(str(tmp_path / "out"))
    assert manifest.digest(given) == want
    assert manifest.write(given, store) == want
    assert store.get(manifest.NAME) == data


def test_a_manifest_whose_writing_fails_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    manifest.write(table(), store)
    before = store.get(manifest.NAME)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(StorageError, match="no space left"):
        manifest.write(with_value(table(), "split", 0, "test"), store)
    assert store.get(manifest.NAME) == before
    assert [path.name for path in tmp_path.iterdir()] == [manifest.NAME]
