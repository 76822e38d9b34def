"""A file of several images: each has a verdict, a sample and a place of its own, in the first build and later."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from shardkit.build import ledger
from shardkit.build.outcome import Outcome
from shardkit.config import BuildConfig
from shardkit.dataset import contents
from shardkit.errors import Dropped, Quarantined
from shardkit.privacy import Pseudonyms, Stated, load_key
from shardkit.sources.base import Decoded, Identity, ImageFacts, LoadedImage, OneImageAFile
from shardkit.sources.entries import Entry
from shardkit.sources.facts import FactsRow
from shardkit.storage import Store, parquet
from shardkit.synthetic.radiographs import radiograph
from shardkit.testing.sources import assert_image_source
from tests.one_process import build


@dataclass(frozen=True)
class Stacks(OneImageAFile):
    """NumPy files, each a stack of images; an image of ones cannot be read, and a table names the patients."""

    KIND: ClassVar[str] = "stacks"

    def list(self) -> Any:
        for entry in self.files.list():
            patient = entry.path.partition(b"_")[0].decode()
            facts = FactsRow(patient=patient, study=f"study {patient}", accession="A77", view="PA", modality="DX")
            yield replace(entry, facts=facts, unpacked=b"folder/" + entry.path)

    def split(self, entry: Entry) -> Sequence[Entry]:
        return [entry.at(part) for part in range(len(self._stack(self.read(entry))))]

    def inspect(self, entry: Entry) -> ImageFacts:
        return self.load(entry, self.read(entry)).facts

    def load(self, entry: Entry, data: bytes) -> LoadedImage:
        stack, part = self._stack(data), entry.part
        if part is None or part >= len(stack):
            raise Quarantined("truncated", "the stack ends before it")
        image, identity = stack[part], Identity(patient="another", device="camera")
        if not image.any():
            raise Dropped("empty_slice", "nothing in it")
        facts = ImageFacts(height=image.shape[0], width=image.shape[1], bits=12, modality=None, identity=identity)
        return LoadedImage(facts, Stated(view="AP", body_part="chest"), lambda invert: _decoded(image))

    def _stack(self, data: bytes) -> Any:
        try:
            stack = np.load(BytesIO(data))
        except Exception:
            raise Quarantined("unknown_format", "no stack of images") from None
        if stack.ndim != 3 or stack.dtype != np.uint16:
            raise Quarantined("bad_value", "no stack of 16-bit images")
        return stack


def _decoded(image: Any) -> Decoded:
    if image.max() == 1:
        raise Quarantined("decode_error", "an image of ones")
    return Decoded(pixels=image & 0xFFF, bits=12, decoder="numpy")


def _stack(seed: int, count: int = 4, bad: int | None = None) -> Any:
    rng = np.random.default_rng(seed)
    images = np.stack([radiograph(96, 80, 12, rng, "chest") for _ in range(count)])
    if bad is not None:
        images[bad] = 1
    images[-1] = 0  # nothing in it
    return images


@pytest.fixture
def stacks(tmp_path: Path) -> Path:
    (tmp_path / "export").mkdir()
    for number in range(3):
        np.save(tmp_path / "export" / f"P{number}_stack.npy", _stack(number, bad=1 if number == 2 else None))
    (tmp_path / "export" / "notes.txt").write_text("no stack")
    return tmp_path


@pytest.fixture
def run(stacks: Path) -> Callable[..., Outcome]:
    config = BuildConfig.of(
        str(stacks / "export"), str(stacks / "out"), stacks / "private", bins="auto:2", workers=1, images=Stacks
    )
    return lambda **options: build(config, **options)


def _ledger(place: Path) -> dict[str, Any]:
    return {row["path"]: row for row in parquet.read(place / "private" / ledger.NAME).to_pylist()}


def test_the_contract_holds_image_by_image(stacks: Path) -> None:
    from shardkit.sources import FileTree

    assert_image_source(Stacks(FileTree(str(stacks / "export"))), least=8)


@pytest.mark.deep
def test_every_image_has_a_verdict_and_a_name_of_its_own(stacks: Path, run: Callable[..., Outcome]) -> None:
    outcome = run()
    found = {path: row["reason"] for path, row in _ledger(stacks).items()}
    assert found == {
        "notes.txt": "unknown_format",
        **{f"P{n}_stack.npy#{i:03d}": "ok" for n in range(3) for i in range(3) if (n, i) != (2, 1)},
        **{f"P{n}_stack.npy#003": "empty_slice" for n in range(3)},
        "P2_stack.npy#001": "decode_error",
    }
    assert (outcome.samples, outcome.new_files) == (8, 13)
    store = Store(str(stacks / "out"))
    described, samples = contents.description(store), contents.samples(store).to_pylist()
    wanted = {_stack(n, bad=1 if n == 2 else None)[i].tobytes() for n in range(3) for i in range(3) if (n, i) != (2, 1)}
    assert {contents.image(store, sample, described).tobytes() for sample in samples} == wanted


def test_a_table_counts_before_what_the_file_says_and_its_identifiers_are_hashed(
    stacks: Path, run: Callable[..., Outcome]
) -> None:
    run()
    name, rows = Pseudonyms(load_key(stacks / "private" / "pseudonym.key")), _ledger(stacks)
    samples = {row["key"]: row for row in contents.samples(Store(str(stacks / "out"))).to_pylist()}
    sample = samples[rows["P1_stack.npy#002"]["key"]]
    assert sample["patient"] == rows["P1_stack.npy#002"]["patient"] == name("patient", "id P1")
    assert sample["study"] == rows["P1_stack.npy#002"]["study"] == name("study", "study P1")
    assert rows["P1_stack.npy#002"]["accession"] == name("accession", "A77")
    assert sample["source"] == name("source", "folder/P1_stack.npy#002")
    assert sample["key"].startswith(rows["P1_stack.npy#002"]["sop"][:20])
    assert (sample["view"], sample["body_part"], sample["modality"]) == ("PA", "CHEST", "DX")
    assert sample["device"] == name("device", "camera")
    stored = b"".join(path.read_bytes() for path in (stacks / "out").rglob("*") if path.is_file())
    private = b"".join(path.read_bytes() for path in (stacks / "private").rglob("*.parquet"))
    assert b"A77" not in stored + private
    assert b"study P1" not in stored + private


def test_images_of_a_file_lie_side_by_side(stacks: Path, run: Callable[..., Outcome]) -> None:
    run()
    samples = contents.samples(Store(str(stacks / "out")), ["patient"])["patient"].to_pylist()
    assert len([None for a, b in itertools.pairwise(samples) if a != b]) == 2


def test_the_same_build_again_takes_nothing_in(stacks: Path, run: Callable[..., Outcome]) -> None:
    run()
    before = _ledger(stacks)
    again = run()
    assert (again.new_files, again.changed, again.missing) == (0, 0, 0)
    assert _ledger(stacks) == before


@pytest.mark.deep
def test_a_file_that_is_new_changed_or_gone_is_so_image_by_image(stacks: Path, run: Callable[..., Outcome]) -> None:
    run()
    np.save(stacks / "export" / "P9_stack.npy", _stack(9, count=3))
    np.save(stacks / "export" / "P0_stack.npy", _stack(0, count=6))
    (stacks / "export" / "P1_stack.npy").unlink()
    again = run()
    assert (again.new_files, again.changed, again.missing, again.samples) == (3, 4, 4, 10)
    flagged = {path: row["flags"] for path, row in _ledger(stacks).items()}
    assert all("source_changed" in flagged[f"P0_stack.npy#{i:03d}"] for i in range(4))
    assert all("source_missing" in flagged[f"P1_stack.npy#{i:03d}"] for i in range(4))
    assert "source_changed" not in flagged["P2_stack.npy#000"]


@pytest.mark.deep
def test_a_retry_takes_in_the_one_image_and_leaves_its_neighbours(stacks: Path, run: Callable[..., Outcome]) -> None:
    run()
    before = _ledger(stacks)
    whole = _stack(2)
    np.save(stacks / "export" / "P2_stack.npy", whole)
    again = run(retry="decode_error")
    after = _ledger(stacks)
    assert again.retried == {"ok": 1}
    assert after["P2_stack.npy#001"]["verdict"] == "written"
    assert {k: (v["verdict"], v["key"]) for k, v in after.items() if k != "P2_stack.npy#001"} == {
        k: (v["verdict"], v["key"]) for k, v in before.items() if k != "P2_stack.npy#001"
    }
    assert again.samples == 9
