"""Every peer has its place, and what peers do with a sample gives the stored image, for processes and for threads."""

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import imagecodecs
import numpy as np
import pytest

from benchmarks import peers
from benchmarks.loader import Program, _checked
from benchmarks.loader_data import Data
from benchmarks.loader_summary import LINES, Name
from benchmarks.peers import PEERS
from benchmarks.peers.work import Work, collate
from shardkit.codecs import htj2k

ROOT = Path(__file__).resolve().parents[2]
LOW, HIGH, BITS = 100, 3000, 12
VARIANTS: dict[str, Any] = {"png": imagecodecs.png_encode, "htj2k": htj2k.encode}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    y, x = np.mgrid[:600, :500]
    return np.asarray(2000 + 1500 * np.sin(x / 90) * np.cos(y / 70), np.uint16)


def done(pixels: np.ndarray, variant: str, task: str, shared: bool) -> Any:
    facts = {"low": LOW, "high": HIGH, "bits": BITS, "height": 600, "width": 500}
    return Work(variant, task, shared)("key", bytes(VARIANTS[variant](pixels)), facts)


def test_every_peer_can_be_asked_for_and_has_lines_in_the_table_and_a_package_to_install() -> None:
    assert set(get_args(Program)) == {"shardkit", *PEERS}
    named = {(name, variant) for name, peer in PEERS.items() for variant in (VARIANTS if peer.write else [name])}
    assert named | {("shardkit", ""), ("read", ""), ("decode", "")} == set(LINES)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    words = [*project["dependencies"], *extras["peers"], *extras["webdataset"]]
    there = {re.split(r"[^\w.-]", word)[0] for word in words}
    assert {peer.distribution for peer in PEERS.values()} <= there


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_worker_hands_over_the_stored_image_normalised(pixels: np.ndarray, variant: str, shared: bool) -> None:
    key, image = done(pixels, variant, "full", shared)
    expected = np.clip((pixels.astype(np.float64) - LOW) / (HIGH - LOW), 0, 1)
    assert key == "key"
    assert image.is_shared() == shared
    np.testing.assert_allclose(image.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_threads_get_what_processes_get_at_224(pixels: np.ndarray, variant: str) -> None:
    (_, one), (_, other) = (done(pixels, variant, "224", shared) for shared in (True, False))
    expected = np.clip((pixels[50:550].astype(np.float64) - LOW) / (HIGH - LOW), 0, 1).mean()
    assert tuple(one.shape) == (224, 224)
    np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert float(one.mean()) == pytest.approx(expected, abs=0.01)


def test_a_batch_is_a_tensor_only_where_all_images_have_one_size(pixels: np.ndarray) -> None:
    small, large = ([done(pixels, "png", task, False)] * 2 for task in ("224", "full"))
    assert tuple(collate("224")(small)[1].shape) == (2, 224, 224)
    keys, images = collate("full")(large)
    assert keys == ["key", "key"]
    assert [tuple(image.shape) for image in images] == [(600, 500)] * 2


@pytest.mark.parametrize("program", [name for name, peer in PEERS.items() if peer.write])
def test_images_that_are_not_the_stored_ones_end_the_benchmark(program: str) -> None:
    data = Data(Path(), [{"key": "a", "means": {"full": 0.5, "224": 0.5}}], {}, {})
    name = Name(program, "png", "disk", "full")
    assert _checked(name, {"a": 0.5}, data) == 1
    with pytest.raises(RuntimeError, match=r"mean is 0\.5100 instead of 0\.5000"):
        _checked(name, {"a": 0.51}, data)


def test_a_peer_without_a_format_of_its_own_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dicom has no format of its own"):
        peers.write("dicom", [], {"png": ""}, {"png": str(tmp_path / "out")}, 1)
