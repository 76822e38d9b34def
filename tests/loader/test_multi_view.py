"""Views of a sample: each is the crop that Resized would make, from one read and one decode, on any number of ranks."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from shardkit import Loader, MultiView, Resized, View, prepare
from shardkit.codecs import htj2k
from shardkit.errors import ArgumentError
from shardkit.loader.graph import Graph, GraphConfig
from shardkit.loader.graph_input import prepared
from shardkit.loader.manifest_index import ManifestIndex
from shardkit.loader.photometric import changed
from shardkit.loader.replay import replay
from shardkit.plan import Crops, MicroBatch, Shape
from shardkit.plan.views import greys, view_seed
from shardkit.testing.resume import assert_resumes_exactly
from trainer.objectives.views import batched, views_of

LARGE, SMALL = View(48, (0.4, 1.0), n=2), View(16, (0.05, 0.4), n=3)
PLAIN = MultiView((LARGE, SMALL), batch_size=4, per_step=4)
GREYS = MultiView(
    (
        replace(LARGE, n=1, jitter=0.8, blur=1.0),
        replace(LARGE, n=1, jitter=0.8, blur=0.1, solarise=0.5),
        replace(SMALL, jitter=0.8, blur=0.5),
    ),
    batch_size=4,
    per_step=4,
)
OPTIONS: dict[str, Any] = {"split": None, "device": "cpu", "seed": 2, "window": 8}
Seen = dict[tuple[int, int], npt.NDArray[np.float32]]  # (manifest row, view) -> image


def _seen(batches: Iterable[Any]) -> Seen:
    """All views of all samples; checks on the way that a sample comes once, and that places without one are 0."""
    found: Seen = {}
    for batch in batches:
        for slot, row in enumerate(batch.rows.tolist()):
            views = batch.every_view(slot)
            if row < 0:
                assert not any(bool(view.any()) for view in views)
                assert batch.seeds[slot] == 0
                continue
            assert (row, 0) not in found
            found |= {(row, number): view.float().numpy().copy() for number, view in enumerate(views)}
    return found


def _equal(one: Seen, other: Seen) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def _single(loader: Loader, crops: Crops, side: int) -> list[npt.NDArray[np.float32]]:
    """What a graph of one view makes of some crops, each image read and decoded anew."""
    micro = MicroBatch.of(Shape(len(crops), side, side), 16, crops)
    graph = Graph(GraphConfig.of(Resized(side, flip=0.5).augmentation, torch.device("cpu"), False, len(crops), 1))
    index, given = loader._index, []
    for at, row in enumerate(crops.row.tolist()):
        detail, level = index.detail(row), int(crops.level[at])
        start, length = detail.start(level), detail.prefix(level)
        data = (Path(index.url) / detail.shard.shard).read_bytes()[start : start + length]
        bits = int(detail.number("bits"))
        pixels = htj2k.decode(data, level, bits, detail.placement)
        given.append(prepared(pixels, micro, at, detail, bits, "percentile"))
    try:
        return [image[0].clamp(0, 1).numpy().copy() for image in graph.run(given)]
    finally:
        graph.close()


# ------------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("batching", [PLAIN, GREYS], ids=["plain", "greys"])
@pytest.mark.parametrize("decoder", ["threads", "dali"])
def test_every_view_is_what_a_single_crop_of_the_plan_gives(synthetic: Any, batching: MultiView, decoder: Any) -> None:
    loader = Loader(synthetic("webdataset"), batching=batching, decoder=decoder, **OPTIONS)
    micro = loader.plan[0][0]
    batch: Any = next(iter(loader))
    kinds = [view for view in batching.views for _ in range(view.n)]
    for number, (view, crops) in enumerate(zip(kinds, micro.views(), strict=True)):
        drawn = greys(view, crops.seed)
        wanted = np.stack(_single(loader, crops, view.side))[:, None]
        wanted = changed(wanted, drawn, np.tile((1.0, 0.0), (len(crops), 1)), view)[:, 0]
        found = np.stack([batch.every_view(slot)[number].numpy() for slot in range(len(crops))])
        near = (1e-6 if view.changes_greys else 0) if decoder == "dali" else 1e-5  # two resamplers
        np.testing.assert_allclose(found, wanted, rtol=0, atol=near)


def test_the_first_view_is_what_a_loader_of_single_crops_shows(dataset_folder: Path) -> None:
    level = 1
    views = MultiView((LARGE,), batch_size=4, per_step=4, level=level)
    single = Resized(48, 4, per_step=4, level=level, crop=LARGE.crop, flip=LARGE.flip)
    wanted = {
        (row, 0): batch.pixels(slot).numpy().copy()
        for batch in Loader(dataset_folder, batching=single, **OPTIONS)
        for slot, row in enumerate(batch.rows.tolist())
        if row >= 0
    }
    found = _seen(Loader(dataset_folder, batching=views, **OPTIONS))
    assert _equal({key: image for key, image in found.items() if key[1] == 0}, wanted)


def test_views_of_a_view_are_a_batch_with_the_plan_s_seeds(dataset_folder: Path) -> None:
    loader = Loader(dataset_folder, batching=PLAIN, **OPTIONS)
    micros = [micro for step in loader.plan for micro in step]
    batch: Any
    for micro, batch in zip(micros, loader, strict=True):
        views = micro.views()
        for number, (first, view) in enumerate(((0, LARGE), (2, SMALL))):
            binned = batch.binned(number)
            assert binned.images.shape == (view.n * 4, 1, view.side, view.side)
            for i, crops in enumerate(views[first : first + view.n]):
                own = slice(i * 4, i * 4 + len(crops))
                assert binned.rows[own].tolist() == crops.row.tolist()
                assert np.array_equal(binned.seeds[own].numpy().astype(np.uint64), crops.seed)
                assert binned.images[own].equal(batch.views[number][i][: len(crops)])
            assert binned.sizes.equal((binned.rows >= 0)[:, None] * torch.tensor([view.side, view.side]))
            assert not binned.seeds[binned.rows < 0].any()


def test_the_cpu_knows_the_rows_and_seeds_of_every_view(dataset_folder: Path) -> None:
    """As on a GPU, where the tensors cannot be asked without waiting."""
    plan = replace(PLAIN, batch_size=5, per_step=1, remainder="fill")
    batches: list[Any] = [*Loader(dataset_folder, batching=plan, **OPTIONS)]
    assert any(bool((batch.rows < 0).any()) for batch in batches)
    plain: list[Any] = [*Loader(dataset_folder, batching=Resized(48, batch_size=5, per_step=1), **OPTIONS)]
    for of in (one for batch in batches for one in (batch, batch.binned(0), batch.binned(1))):
        assert np.array_equal(of.kept.rows, of.rows.numpy())
        assert np.array_equal(of.kept.seeds, of.seeds.numpy())
    for of in (*plain, *(part for batch in batches for part in views_of(batch)), batched(views_of(batches[-1])[:2])):
        assert np.array_equal(of.kept.rows, of.rows.numpy())
        assert np.array_equal(of.kept.seeds, of.seeds.numpy())
        assert "kept" not in {**of}


@pytest.mark.parametrize("normalise", ["percentile", "fullscale", (0.4, 0.2)])
def test_grey_levels_stay_in_their_range(dataset_folder: Path, normalise: Any) -> None:
    found = _seen(Loader(dataset_folder, batching=GREYS, normalise=normalise, **OPTIONS))
    low, high = (0.0, 1.0) if isinstance(normalise, str) else (-2.0, 3.0)
    slack = 0.0 if isinstance(normalise, str) else 1e-5
    assert low - slack <= min(image.min() for image in found.values())
    assert max(image.max() for image in found.values()) <= high + slack


def test_jitter_is_refused_without_black_and_white_before_anything_is_read(dataset_folder: Path) -> None:
    with pytest.raises(ArgumentError, match="jitter and solarise of a View need black and white, which normalise=none"):
        Loader(dataset_folder, batching=GREYS, normalise="none", **OPTIONS)


def test_a_member_of_a_mixture_without_black_and_white_is_refused_too(mixed: Any) -> None:
    with pytest.raises(ArgumentError, match="normalise=zscore does not know"):
        Loader(mixed(tars=1, png=(1, "zscore")), batching=GREYS, **OPTIONS)


def test_members_of_a_mixture_are_each_changed_by_their_own_black_and_white(mixed: Any) -> None:
    both = Loader(mixed(tars=(1, (0.4, 0.2)), png=1), batching=GREYS, **OPTIONS)
    limits: dict[str, list[float]] = {name: [] for name in both.members}
    for (row, _), image in _seen(both).items():
        name = next(name for name, rows in both.members.items() if row in rows)
        limits[name] += [float(image.min()), float(image.max())]
    assert min(limits["tars"]) == pytest.approx(-2.0, abs=0.2)
    assert max(limits["tars"]) > 1.5
    assert 0 <= min(limits["png"]) < max(limits["png"]) <= 1


# -------------------------------------------------------------------------------------- one read and one decode


@pytest.mark.parametrize("decoder", ["threads", "dali"])
def test_a_sample_is_read_and_decoded_once(synthetic: Any, decoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = list[int](), htj2k.decode

    def counted(data: bytes, level: int, *more: Any) -> Any:
        calls.append(level)
        return real(data, level, *more)

    monkeypatch.setattr(htj2k, "decode", counted)
    loader = Loader(synthetic("webdataset"), batching=GREYS, decoder=decoder, **OPTIONS)
    micros = [micro for step in loader.plan for micro in step]
    samples = len(_seen(loader)) // 5
    stats = loader.stats()
    assert len(calls) == (samples if decoder == "threads" else 0)
    assert stats["images"] == samples
    assert stats["decodes_per_sample"] == 1.0
    details = [
        (loader._index.detail(row), level)
        for micro in micros
        for row, level in zip(micro.crops.row.tolist(), micro.crops.level.tolist(), strict=True)
    ]
    assert stats["read_bytes"] <= sum(detail.prefix(level) for detail, level in details) * 1.2
    assert sum(row["bytes"] for row in stats["bins"].values()) == sum(d.prefix(level) for d, level in details)
    assert stats["augment_s"] > 0


def test_a_level_is_read_that_covers_all_views_and_no_more(dataset_folder: Path) -> None:
    def read(views: tuple[View, ...], level: Any = "auto") -> int:
        loader = Loader(dataset_folder, batching=MultiView(views, batch_size=4, per_step=4, level=level), **OPTIONS)
        list(loader)
        return sum(row["bytes"] for row in loader.stats()["bins"].values())

    least = View(16, (0.5, 1.0))
    assert read((least,)) < read((least,), level=0)
    assert read((least, View(16, (0.05, 1.0)))) >= read((least,))
    assert read((least, View(512))) == read((least,), level=0)


def test_other_batchings_count_their_decodes_too(dataset_folder: Path) -> None:
    loader = Loader(dataset_folder, batching="packed:tokens=512,patch=16,per_step=2", **OPTIONS)
    assert loader.stats()["decodes_per_sample"] == 0.0
    list(loader)
    assert loader.stats()["decodes_per_sample"] == 1.0


# ------------------------------------------------------------------------------------------------- any world size


def test_an_epoch_shows_the_same_on_any_number_of_ranks_and_threads(dataset_folder: Path) -> None:
    whole = _seen(Loader(dataset_folder, batching=GREYS, **OPTIONS))
    assert len(whole) == 5 * len(Loader(dataset_folder, batching=GREYS, **OPTIONS).plan.draws)
    for size in (2, 4):
        ranks = [
            Loader(dataset_folder, batching=GREYS, rank=rank, world_size=size, threads=1 + rank, **OPTIONS)
            for rank in range(size)
        ]
        parts = [_seen(rank) for rank in ranks]
        assert sum(map(len, parts)) == len(whole)
        assert _equal({key: image for part in parts for key, image in part.items()}, whole)


def test_it_resumes_exactly(dataset_folder: Path) -> None:
    assert_resumes_exactly(lambda: Loader(dataset_folder, batching=GREYS, **OPTIONS), steps=3)


def test_a_state_carries_the_views_in_its_text(dataset_folder: Path) -> None:
    state = Loader(dataset_folder, batching=str(GREYS), **OPTIONS).state_dict()
    assert state["format"].endswith(str(GREYS))
    Loader(dataset_folder, batching=GREYS, **OPTIONS).load_state_dict(state)


# ------------------------------------------------------------------------------------------ bad samples, programs


def test_a_sample_that_cannot_be_read_is_replaced_with_all_its_views(synthetic: Any, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(synthetic("webdataset"), folder)
    micro = Loader(folder, batching=GREYS, **OPTIONS).plan[0][0]
    detail, level = ManifestIndex(str(folder)).detail(int(micro.crops.row[3])), int(micro.crops.level[3])
    data = bytearray((folder / detail.shard.shard).read_bytes())
    data[detail.start(level) + detail.prefix(level) // 2] ^= 1
    (folder / detail.shard.shard).write_bytes(bytes(data))
    sound: Any = next(iter(Loader(synthetic("webdataset"), batching=GREYS, **OPTIONS)))
    found: Any = next(iter(Loader(folder, batching=GREYS, max_bad=0.5, **OPTIONS)))
    source = micro.substitutes(3)[0]
    rows = sound.rows.tolist()
    assert found.rows.tolist() == [*rows[:3], rows[source]]
    assert found.seeds[3] == sound.seeds[source]
    assert found.binned(1).seeds[3] == sound.binned(1).seeds[source]
    for slot, shown in enumerate((0, 1, 2, source)):
        assert all(map(torch.equal, found.every_view(slot), sound.every_view(shown)))


def test_where_nothing_can_be_read_places_count_for_nothing(synthetic: Any, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(synthetic("webdataset"), folder)
    for shard in folder.rglob("*.tar"):
        shard.write_bytes(bytes(shard.stat().st_size))
    loader = Loader(folder, batching=GREYS, max_bad=1.0, **OPTIONS)
    batch: Any = next(iter(loader))
    assert _seen([batch]) == {}
    assert not batch.weight.any()
    assert loader.stats()["decodes_per_sample"] == 0.0


def test_a_program_changes_every_view_by_its_own_seed(dataset_folder: Path) -> None:
    given: dict[int, tuple[int, ...]] = {}

    def augment(image: torch.Tensor, seed: int) -> torch.Tensor:
        assert seed not in given
        given[seed] = tuple(image.shape)
        return image + 2.0

    loader = Loader(dataset_folder, batching=GREYS, augment=augment, **OPTIONS)
    plain = _seen(Loader(dataset_folder, batching=GREYS, **OPTIONS))
    batch: Any = next(iter(loader))
    micro = loader.plan[0][0]
    for number, crops in enumerate(micro.views()):
        side = 48 if number < 2 else 16
        assert all(given[int(seed)] == (1, side, side) for seed in crops.seed)
        assert np.array_equal(crops.seed, view_seed(micro.crops.seed, number))
    for slot, row in enumerate(batch.rows.tolist()):
        for number, view in enumerate(batch.every_view(slot)):
            np.testing.assert_allclose(view.numpy(), plain[row, number] + 2.0, atol=1e-6)


def test_a_batch_travels_whole_and_says_what_it_holds(dataset_folder: Path) -> None:
    batch: Any = next(iter(Loader(dataset_folder, batching=PLAIN, dtype=torch.bfloat16, **OPTIONS)))
    assert [view.dtype for view in batch.views] == [torch.bfloat16] * 2
    other = batch.to("meta")
    assert {view.device.type for view in other.views} == {"meta"}
    assert "views=bfloat16 (2, 4, 1, 48, 48); (3, 4, 1, 16, 16)" in repr(batch)
    assert "holds=4 images in 4 places" in repr(batch)


def test_an_image_is_prepared_as_the_central_square_of_the_largest_view() -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (90, 70)).astype(np.uint16)
    found = prepare(pixels, 12, batching=GREYS)
    assert found.equal(prepare(pixels, 12, batching=Resized(48, level="auto")))


# ------------------------------------------------------------------------------------------------------- replay


def test_a_replay_shows_all_views_of_a_sample_side_by_side(dataset_folder: Path, tmp_path: Path) -> None:
    batching = replace(GREYS, per_step=1)
    loader = Loader(dataset_folder, batching=batching, rank=0, world_size=1, **OPTIONS)
    line = replay(loader, 1, tmp_path / "page.png")
    assert line.endswith(": 4 images of step 1 of epoch 0, 5 views of each")
    page = np.asarray(Image.open(tmp_path / "page.png")).astype(np.float64)
    cell, pitch = 224, 232
    line_height = max(view.side for view in GREYS.views) + 30 + 8
    assert page.shape == (4 * line_height + 8, 5 * pitch + 8), "a caption is by its own image, not by the next line"
    again = Loader(dataset_folder, batching=batching, rank=0, world_size=1, **OPTIONS)
    batch = next(batch for batch in again if batch.position.step == 1)
    for slot in range(4):
        views = [view.numpy() for view in batch.every_view(slot)]
        low, high = min(view.min() for view in views), max(view.max() for view in views)
        for number, view in enumerate(views):
            top, left = 8 + slot * line_height, 8 + number * pitch + (cell - len(view)) // 2
            shown = page[top : top + len(view), left : left + len(view)]
            np.testing.assert_allclose(shown, (view - low) * 255 / (high - low), atol=0.51)
