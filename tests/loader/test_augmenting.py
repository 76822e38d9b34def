"""`Loader(augment=...)`: a program's own change of each image, by the plan's seed, whoever loads it."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from shardkit import Binned, Exact, Fixed, Loader, Packed, Resized
from shardkit.errors import ArgumentError, IntegrityError
from shardkit.loader.manifest_index import ManifestIndex

PACKED = Packed(tokens=512, patch=16, per_step=4, crop=(0.5, 1.0), flip=0.5)
BATCHINGS = [
    PACKED,
    Binned(batch_size=2, patch=16, per_step=4),
    Fixed(side=512, patch=16, level=1, per_step=4),
    Resized(64, batch_size=3, per_step=4, fit="pad", level="auto"),
]
SMALL: dict[str, Any] = {"split": None, "device": "cpu", "seed": 11, "window": 8}

Seen = dict[tuple[int, int, int], Tensor]


def noisy(image: Tensor, seed: int) -> Tensor:
    """Half of what it was, and noise by the seed: still between 0 and 1."""
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(seed))
    return image / 2 + noise / 2


def _seen(batches: Any) -> Seen:
    """(epoch, manifest row, seed) -> image, for which padding must be 0."""
    found: Seen = {}
    for batch in batches:
        total, inside = (batch.patches if "patches" in batch else batch.images).double().sum(), 0.0
        for slot, (row, seed) in enumerate(zip(batch.rows.tolist(), batch.seeds.tolist(), strict=True)):
            if row >= 0:
                found[batch.position.epoch, row, seed % 2**64] = image = batch.pixels(slot).clone()
                inside += float(image.double().sum())
        assert inside == pytest.approx(float(total), rel=1e-9), "padding is not 0"
    return found


def _load(folder: Path, **options: Any) -> Seen:
    return _seen(Loader(folder, **{**SMALL, "batching": PACKED, "augment": noisy, **options}))


def _equal(one: Seen, other: Seen) -> bool:
    return one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)


@pytest.mark.parametrize("batching", BATCHINGS, ids=str)
def test_each_image_is_what_the_callable_makes_of_its_true_pixels_and_its_seed(
    dataset_folder: Path, batching: Any
) -> None:
    plain = _load(dataset_folder, batching=batching, augment=None)
    given: dict[int, Tensor] = {}

    def keep(image: Tensor, seed: int) -> Tensor:
        given[seed] = image
        return noisy(image, seed)

    found = _load(dataset_folder, batching=batching, augment=keep)
    assert found.keys() == plain.keys()
    assert {key[2] for key in found} == given.keys()
    for key, image in found.items():
        assert given[key[2]].shape == (1, *plain[key].shape)
        assert given[key[2]][0].equal(plain[key]), "kept by the callable, it stays what it was"
        assert image.equal(noisy(plain[key], key[2]))


@pytest.mark.parametrize("batching", BATCHINGS, ids=str)
def test_nothing_is_written_outside_an_image_s_true_size(dataset_folder: Path, batching: Any) -> None:
    found = _load(dataset_folder, batching=batching, augment=lambda image, seed: torch.ones_like(image))
    assert all(image.eq(1).all() for image in found.values())


@pytest.mark.parametrize("batching", [PACKED, BATCHINGS[1]], ids=str)
def test_an_image_is_the_same_for_any_number_of_ranks_and_of_threads(dataset_folder: Path, batching: Any) -> None:
    alone = _load(dataset_folder, batching=batching, threads=1)
    shared: Seen = {}
    for rank in range(4):
        shared |= _load(dataset_folder, batching=batching, rank=rank, world_size=4, threads=3, prefetch=3)
    assert _equal(alone, shared)


def test_an_image_is_the_same_in_another_pack_and_after_a_resumption(dataset_folder: Path) -> None:
    whole = _load(dataset_folder)
    assert _equal(whole, _load(dataset_folder, batching=Packed(tokens=700, patch=16, crop=(0.5, 1.0), flip=0.5)))
    first, parts = Loader(dataset_folder, batching=PACKED, augment=noisy, **SMALL), []
    for batch in first:
        parts.append(batch)
        if batch.position.last:
            break
    rest = Loader(dataset_folder, batching=PACKED, augment=noisy, **{**SMALL, "seed": 0})
    rest.load_state_dict(first.state_dict())
    assert _equal(whole, _seen(parts) | _seen(rest))


def test_another_epoch_draws_anew_and_the_same_epoch_does_not(dataset_folder: Path) -> None:
    loader = Loader(dataset_folder, batching=Exact(patch=16), augment=noisy, **SMALL)
    first, second = _seen(loader), _seen(loader)
    assert _equal(second, _seen(Loader(dataset_folder, batching=Exact(patch=16), augment=noisy, epoch=1, **SMALL)))
    earlier = {row: image for (_, row, _), image in first.items()}
    assert all(not image.equal(earlier[row]) for (_, row, _), image in second.items())


def test_a_substitute_is_changed_by_the_seed_of_what_it_shows(dataset_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(dataset_folder, folder)
    bad = ManifestIndex(str(folder)).rows // 2
    detail = ManifestIndex(str(folder)).detail(bad)
    data = bytearray((folder / detail.shard.shard).read_bytes())
    data[detail.start(0) + detail.prefix(0) // 2] ^= 1
    (folder / detail.shard.shard).write_bytes(bytes(data))
    batching, twice = Fixed(side=1024, batch_size=4, patch=16), 0
    plain = _load(dataset_folder, batching=batching, augment=None)
    for batch in Loader(folder, batching=batching, augment=noisy, max_bad=0.5, **SMALL):
        shown = [(row, seed % 2**64) for row, seed in zip(batch.rows.tolist(), batch.seeds.tolist(), strict=True)]
        twice += len(shown) - len({row for row, _ in shown if row >= 0}) - sum(row < 0 for row, _ in shown)
        for slot, (row, seed) in enumerate(shown):
            if row >= 0:
                assert batch.pixels(slot).equal(noisy(plain[0, row, seed], seed))
    assert twice == 1, "one image stands in for the bad one"


@pytest.mark.parametrize("normalise", ["percentile", "minmax", "zscore"])
def test_images_are_cut_off_before_it_and_what_it_returns_is_not(dataset_folder: Path, normalise: Any) -> None:
    plain = _load(dataset_folder, normalise=normalise, augment=None)
    found = _load(dataset_folder, normalise=normalise, augment=lambda image, seed: 2 * image - 5)
    assert all(image.equal(2 * plain[key] - 5) for key, image in found.items())
    assert (max(float(image.max()) for image in plain.values()) <= 1) == (normalise != "zscore")


@pytest.mark.parametrize("error", [ValueError("mine"), IntegrityError("mine too"), KeyboardInterrupt()], ids=repr)
def test_what_the_callable_raises_reaches_the_consumer_as_it_is_and_another_iteration_goes_on(
    dataset_folder: Path, error: BaseException
) -> None:
    failing, where = threading.Event(), set()

    def fails(image: Tensor, seed: int) -> Tensor:
        where.add(threading.current_thread().name)
        if failing.is_set():
            raise error
        return image

    loader = Loader(dataset_folder, batching=PACKED, augment=fails, **SMALL)
    failing.set()
    with pytest.raises(type(error)) as caught:
        list(loader)
    assert caught.value is error
    if isinstance(error, Exception):
        assert "augment, for the image " in error.__notes__[0]
    assert loader.stats()["bad"] == 0, "it is no bad sample"
    failing.clear()
    assert loader.step == 0
    assert len(list(loader)) == len(loader)
    assert where == {"shardkit-producer"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda image: image[:, 1:], "torch.float32 (1, "),
        (lambda image: image[0], "torch.float32 ("),
        (lambda image: image.double(), "torch.float64 (1, "),
        (lambda image: image.byte(), "torch.uint8 (1, "),
        (lambda image: image.numpy(), "ndarray"),
        (lambda image: None, "NoneType"),
    ],
    ids=["cropped", "axis gone", "float64", "8 bit", "NumPy", "nothing"],
)
def test_what_is_no_image_of_the_same_size_is_refused(dataset_folder: Path, change: Any, told: str) -> None:
    loader = Loader(dataset_folder, batching=PACKED, augment=lambda image, seed: change(image), **SMALL)
    with pytest.raises(ArgumentError, match="return a tensor of the same shape and type") as caught:
        next(iter(loader))
    assert f"augment returned {told}" in str(caught.value)


def test_a_change_in_place_a_view_and_a_module_with_gradients_will_do(dataset_folder: Path) -> None:
    squares = {"batching": Resized(64, batch_size=3, level="auto")}
    plain = _load(dataset_folder, augment=None, **squares)
    module = torch.nn.Conv2d(1, 1, 1)
    cases: list[tuple[Any, Any]] = [
        (lambda image, seed: image.mul_(0.5), lambda image: image / 2),
        (lambda image, seed: image.mT, lambda image: image.mT),
        (lambda image, seed: module(image), lambda image: module(image[None])[0].detach()),
    ]
    for augment, wanted in cases:
        found = _load(dataset_folder, augment=augment, **squares)
        assert all(torch.allclose(image, wanted(plain[key]), atol=1e-6) for key, image in found.items())
        assert not any(image.requires_grad for image in found.values())


def test_the_state_is_the_same_and_the_time_is_counted(dataset_folder: Path) -> None:
    plain = Loader(dataset_folder, batching=PACKED, **SMALL)
    changed = Loader(dataset_folder, batching=PACKED, augment=noisy, **SMALL)
    assert len(list(plain)) == len(list(changed))
    assert plain.state_dict() == changed.state_dict()
    assert plain.plan_spec == changed.plan_spec
    assert 10 * plain.stats()["augment_s"] < changed.stats()["augment_s"]
