"""The manifest's digest covers values and nothing of how Parquet holds them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit.dataset import manifest
from shardkit.storage import Store

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
    return manifest.typed(pq.read_table(BytesIO(store.get(manifest.NAME))))


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
