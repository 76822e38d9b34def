"""What a newcomer adds in one file works everywhere, with a line in its registry and no other change."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np
import pytest

from shardkit import Loader, Packed, codecs, config, formats
from shardkit.build.transcode import Target, transcode
from shardkit.dataset import contents
from shardkit.dataset.description import DatasetDescription
from shardkit.dataset.verify import Summary, verify
from shardkit.errors import ArgumentError
from shardkit.storage import Store
from shardkit.testing.codecs import assert_codec
from shardkit.testing.formats import assert_shard_format

DEFLATED = '''
"""A codec in one file: rows of pixels, deflated."""
import zlib

import numpy as np

from shardkit.codecs import raw
from shardkit.errors import IntegrityError

NAME, EXTENSION, LEVELS_IN_STREAM, NEEDS_PLACEMENT = "deflated", "npz1", (0, 0), False


def encode(pixels, frame=None):
    return zlib.compress(raw.encode(pixels), 1)


def prefixes(data):
    return [len(data)]


def check(data, frame):
    raw.check(_inflated(data), frame)


def decode(data, level=0, bits=16, frame=None):
    return raw.decode(_inflated(data), level, bits, frame)


def _inflated(data):
    try:
        return zlib.decompress(data)
    except zlib.error as error:
        raise IntegrityError(f"not a deflated image ({error})") from None
'''


@pytest.fixture
def deflated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """A codec of one file, registered."""
    (tmp_path / "deflated.py").write_text(DEFLATED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "deflated", raising=False)
    module = importlib.import_module("deflated")
    monkeypatch.setitem(codecs.CODECS, module.NAME, module)
    return module


def test_a_codec_of_one_file_keeps_the_contract_and_is_one_that_tars_take(deflated: Any, tmp_path: Path) -> None:
    assert_codec(deflated)
    assert formats.codecs_of(formats.FORMATS["webdataset"])[-1] == "deflated"
    assert "deflated" not in formats.codecs_of(formats.FORMATS["zarr"])


def test_a_dataset_in_a_codec_of_one_file_is_made_verified_shown_and_loaded(
    deflated: Any, dataset_folder: Path, tmp_path: Path
) -> None:
    done = transcode(str(dataset_folder), Target(str(tmp_path / "new"), "webdataset", "deflated", 0, None), 1)
    assert done.samples > 10
    store, before = Store(str(tmp_path / "new")), Store(str(dataset_folder))
    facts, rows = contents.description(store), contents.samples(store).to_pylist()
    assert (facts.codec, facts.extension, facts.transfer_syntax) == ("deflated", "npz1", None)
    *problems, summary = verify(store.url, True, 1)
    assert problems == []
    assert isinstance(summary, Summary)
    was = {row["key"]: row for row in contents.samples(before).to_pylist()}
    images = {row["key"]: contents.image(store, row, facts) for row in rows}
    for key in list(images)[:3]:
        np.testing.assert_array_equal(images[key], contents.image(before, was[key], contents.description(before)))
    seen = 0
    packed = Packed(tokens=1 << 14, patch=16, level=0, per_step=1)
    for batch in Loader(store.url, batching=packed, split=None, normalise="none", device="cpu"):
        for at, row in enumerate(batch.rows.tolist()):
            if row >= 0:
                np.testing.assert_array_equal(batch.pixels(at).float().numpy(), images[rows[row]["key"]])
                seen += 1
        if seen > 5:
            break
    with pytest.raises(ArgumentError, match="decoder=dali decodes htj2k"):
        Loader(store.url, batching=packed, split=None, device="cpu", decoder="dali")


def test_a_format_of_one_file_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    form = ModuleType("boxes")
    form.__dict__.update(
        {name: value for name, value in vars(formats.FORMATS["webdataset"]).items() if not name.startswith("__")},
        NAME="boxes",
    )
    with pytest.raises(ArgumentError, match="unknown format 'boxes'"):
        formats.shard_format("boxes")
    monkeypatch.setitem(formats.FORMATS, "boxes", form)
    described = DatasetDescription.from_content({"shard_format": "boxes", "bins": [[48, 48]], "patch": 48})
    assert formats.form_of(described) is form
    assert_shard_format(formats.shard_format("boxes"), tmp_path)


def test_the_command_line_offers_every_codec_and_format_there_is() -> None:
    assert get_args(config.Codec) == tuple(codecs.CODECS)
    assert get_args(config.Format) == tuple(formats.FORMATS)
