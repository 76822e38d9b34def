"""A mixture of datasets of any format, codec, bins and patch, as one loader: rows, pixels, states, labels, splits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shardkit import Binned, Loader, Packed, PackedBatch, Resized
from shardkit.dataset import mixture
from shardkit.dataset.mixture import MemberSpec
from shardkit.errors import ArgumentError, BadDataError, IntegrityError, RowError, StateError
from shardkit.loader.manifest_index import ManifestIndex
from shardkit.loader.mixture_index import MixtureIndex, open_index
from shardkit.loader.plan_report import costs
from shardkit.testing.faults import FaultStore
from shardkit.testing.resume import assert_any_world_size, assert_resumes_exactly

BATCHINGS = [
    Packed(tokens=512, patch=16, per_step=4),
    Binned(batch_size=2, patch=16, per_step=4),
    Resized(48, batch_size=4, per_step=4, crop=(0.5, 1.0), flip=0.5, level="auto"),
]
SMALL: dict[str, Any] = {"split": None, "device": "cpu", "seed": 11, "window": 8}
WEIGHTS = {"tars": 1.0, "zarr": 2.5, "png": 0.25}


def _images(loader: Loader) -> dict[str, list[Any]]:
    """Key -> the images of it, without their padding."""
    found: dict[str, list[Any]] = {}
    for batch in loader:
        for at, row in enumerate(batch.rows.tolist()):
            if row >= 0:
                found.setdefault(loader.key(row), []).append(batch.pixels(at).float().numpy().copy())
    return found


# ------------------------------------------------------------------------------------------- what an epoch consists of


@pytest.mark.parametrize("normalise", ["percentile", pytest.param("none", marks=pytest.mark.deep)])
def test_images_are_those_of_the_members_as_often_as_weights_say_each_with_its_grey_levels(
    members: dict[str, Path], mixed: Callable[..., Path], normalise: Any
) -> None:
    asked: dict[str, Any] = {"tars": None, "zarr": "minmax", "png": (0.4, 0.2)}
    file = mixed(**{name: (WEIGHTS[name], how) for name, how in asked.items()})
    batching = Packed(tokens=512, patch=16, per_step=4)
    loader = Loader(file, batching=batching, normalise=normalise, **SMALL)
    of_epoch = loader.account().samples, len(loader.plan.draws)  # of another epoch after it
    found = _images(loader)
    for name, how in asked.items():
        alone = Loader(members[name], batching=batching, normalise=how or normalise, **SMALL)
        wanted = _images(alone)
        times = [len(found.get(key, ())) for key in wanted]
        assert set(times) <= {int(WEIGHTS[name]), int(np.ceil(WEIGHTS[name]))}
        assert sum(times) == pytest.approx(WEIGHTS[name] * len(wanted), abs=1)
        for key, (image,) in wanted.items():
            assert all(np.array_equal(image, other) for other in found.get(key, ()))
    assert {*of_epoch} == {sum(map(len, found.values()))}


def test_without_weights_each_image_is_shown_once_as_where_something_is_measured(mixed: Callable[..., Path]) -> None:
    loader = Loader(mixed(**WEIGHTS), batching=BATCHINGS[0], weighted=False, **SMALL)
    found = _images(loader)
    assert [len(images) for images in found.values()] == [1] * sum(map(len, loader.members.values()))
    plain = Loader(mixed(**dict.fromkeys(WEIGHTS, 1.0)), batching=BATCHINGS[0], **SMALL)
    assert loader.state_dict()["manifest_digest"] == plain.state_dict()["manifest_digest"]


def test_images_are_cut_off_as_their_member_is_normalised_before_they_are_augmented(
    mixed: Callable[..., Path],
) -> None:
    file = mixed(tars=(1, "percentile"), png=(1, "zscore"))
    given: list[float] = []

    def look(image: Any, seed: int) -> Any:
        given.append(float(image.max()))
        return image

    augmented = Loader(file, batching=BATCHINGS[0], augment=look, **SMALL)
    plain = _images(Loader(file, batching=BATCHINGS[0], **SMALL))
    found = _images(augmented)
    assert found.keys() == plain.keys()
    assert all(np.array_equal(image, found[key][0]) for key, (image,) in plain.items())
    assert sorted(given) == sorted(float(image.max()) for (image,) in plain.values())


def test_rows_are_those_of_one_member_after_another_s(members: dict[str, Path], mixed: Callable[..., Path]) -> None:
    loader = Loader(mixed(**WEIGHTS), batching=BATCHINGS[0], **SMALL)
    single = {name: ManifestIndex(str(folder)) for name, folder in members.items()}
    assert list(loader.members) == list(members)
    keys = loader.columns("key")["key"].to_pylist()
    names, bins = loader.bins()
    for name, rows in loader.members.items():
        index = single[name]
        assert keys[rows.start : rows.stop] == index.columns("key")["key"].to_pylist()
        assert [loader.key(row) for row in rows] == keys[rows.start : rows.stop]
        mine = index.columns("bin_height", "bin_width").to_pylist()
        stored = [f"{row['bin_height']:04d}x{row['bin_width']:04d}" for row in mine]
        assert [names[number] for number in bins[rows.start : rows.stop]] == stored
    for split in ("train", "val", "test"):
        assert loader.splits.get(split, 0) == sum(index.splits.get(split, 0) for index in single.values())
    assert loader.columns("view", "age").num_rows == len(keys)
    with pytest.raises(ArgumentError, match="has no column colour"):
        loader.columns("colour")
    with pytest.raises(RowError, match=rf"row {len(keys)} is none of .*cocktail.json's manifest rows"):
        loader.key(len(keys))


def test_a_split_and_a_filter_choose_among_all_members(members: dict[str, Path], mixed: Callable[..., Path]) -> None:
    arguments = {**SMALL, "split": "train", "needs": ("width",), "where": lambda t: t["width"].to_numpy() > 100}
    loader = Loader(mixed(tars=1, zarr=1), batching=BATCHINGS[0], **arguments)
    wanted = {
        key for name in ("tars", "zarr") for key in _images(Loader(members[name], batching=BATCHINGS[0], **arguments))
    }
    assert set(_images(loader)) == wanted
    assert " rows=" in loader.state_dict()["format"]


def test_levels_are_those_that_all_members_have(mixed: Callable[..., Path]) -> None:
    assert open_index(str(mixed(tars=1, zarr=1))).levels == 3
    file = mixed(tars=1, zarr=1, png=1)
    with pytest.raises(ArgumentError, match="level=1 is not in this dataset: it holds levels 0 to 0"):
        Loader(file, batching=Packed(tokens=512, patch=16, level=1), **SMALL)
    smaller = Loader(mixed(tars=1, zarr=2.5), batching=Packed(tokens=512, patch=8, level=2, per_step=2), **SMALL)
    assert all(max(image.shape) < 90 for images in _images(smaller).values() for image in images)


def test_bins_of_the_datasets_hold_the_images_of_all_members(mixed: Callable[..., Path]) -> None:
    index = open_index(str(mixed(**WEIGHTS)))
    assert index.bins.patch == 8
    assert set(index.bins.bins) == {bin for member in index.members for bin in member.index.bins.bins}
    assert len(_images(Loader(mixed(**WEIGHTS), batching=BATCHINGS[1], **SMALL)))


def test_one_bound_holds_for_images_of_all_members_in_every_epoch(mixed: Callable[..., Path]) -> None:
    loader, most, bounds = Loader(mixed(**WEIGHTS), batching=Packed(tokens=2048, patch=8), **SMALL), 0, set()
    for _ in range(3):
        for batch in loader:
            assert isinstance(batch, PackedBatch)
            bounds.add(batch.longest)
            most = max(most, *(batch.cu_seqlens.diff() * (batch.rows >= 0)).tolist())
    (bound,) = bounds
    assert bound - 128 < most <= bound < 2048


# ------------------------------------------------------------------------------------------------------ exact resume


def test_a_mixture_resumes_exactly(mixed: Callable[..., Path]) -> None:
    file = mixed(tars=0.3, zarr=0.5, png=1.5)
    assert_resumes_exactly(lambda: Loader(file, batching=BATCHINGS[0], **SMALL), steps=1)


@pytest.mark.deep
@pytest.mark.parametrize("batching", BATCHINGS, ids=str)
def test_a_mixture_resumes_exactly_at_every_step(mixed: Callable[..., Path], batching: Any) -> None:
    file = mixed(**WEIGHTS)
    assert_resumes_exactly(lambda: Loader(file, batching=batching, **SMALL))


@pytest.mark.deep
def test_one_state_gives_the_same_global_steps_on_any_world_size(mixed: Callable[..., Path]) -> None:
    file, found = mixed(**WEIGHTS), list[Any]()
    state = {**Loader(file, batching=BATCHINGS[2], **SMALL).state_dict(), "step": 2, "epoch": 1}
    for world in (1, 4):
        batches = []
        for rank in range(world):
            loader = Loader(file, batching=BATCHINGS[2], rank=rank, world_size=world, **SMALL)
            loader.load_state_dict(state)
            batches += [(b.position.step, b.position.micro, b.rows.tolist(), b.seeds.tolist()) for b in loader]
            assert loader.state_dict() == {**state, "epoch": 2, "step": 0}
        found.append(sorted(batches))
    assert found[0] == found[1] != []


@pytest.mark.deep
def test_so_does_every_state_of_an_epoch(mixed: Callable[..., Path]) -> None:
    file, batching = mixed(tars=0.25, zarr=0.3, png=0.5), Resized(16, batch_size=8, per_step=4)
    assert_any_world_size(
        lambda rank, size: Loader(file, batching=batching, rank=rank, world_size=size, **SMALL), worlds=(1, 2, 4)
    )


def test_the_digest_is_of_members_and_weights_alone(mixed: Callable[..., Path]) -> None:
    def state(**weights: Any) -> Any:
        return Loader(mixed(**weights), batching=BATCHINGS[0], **SMALL).state_dict()

    one = state(tars=1, zarr=2)
    assert list(one) == ["format", "manifest_digest", "seed", "epoch", "step"]
    assert state(tars=1, zarr=(2, "zscore")) == one
    digests = [mixture.digest([replace(m, name="x")]) for m in mixture.read(str(mixed(tars=2)))]
    assert digests == [mixture.digest(mixture.read(str(mixed(tars=2))))], "whatever a member is called"
    changed = [state(tars=1, zarr=2.001), state(tars=1), state(zarr=2, tars=1)]
    assert len({s["manifest_digest"] for s in [one, *changed]}) == 4
    loader = Loader(mixed(tars=1, zarr=2), batching=BATCHINGS[0], **SMALL)
    with pytest.raises(StateError, match="belongs to the dataset"):
        loader.load_state_dict(changed[0])


# ------------------------------------------------------------------------------------------------ reading and faults


def test_a_disk_cache_holds_each_shard_once_for_mixtures_and_their_members_alike(
    members: dict[str, Path], mixed: Callable[..., Path], tmp_path: Path
) -> None:
    arguments = {**SMALL, "batching": BATCHINGS[0], "cache": tmp_path / "cache", "cache_bytes": 1 << 30}
    file = mixed(tars=2, png=1)
    plain = _images(Loader(file, batching=BATCHINGS[0], **SMALL))
    shards = {name: set(ManifestIndex(str(members[name])).shards) for name in ("tars", "png")}
    for name in shards:
        list(Loader(members[name], **arguments))
    loader = Loader(file, **arguments)
    found = _images(loader)
    assert {key: len(images) for key, images in found.items()} == {key: len(images) for key, images in plain.items()}
    assert all(np.array_equal(found[key][0], plain[key][0]) for key in plain)
    cache = loader.stats()["cache"]
    assert cache["fills"] == 0
    assert cache["hits"] > 0
    with pytest.raises(ArgumentError, match="holds no shard"):
        Loader(file, **{**arguments, "cache_bytes": 100})


def test_members_whose_shards_have_the_same_names_are_kept_apart(
    members: dict[str, Path], mixed: Callable[..., Path], tmp_path: Path
) -> None:
    one, other = members["tars"], members["png"]
    assert set(ManifestIndex(str(one)).shards) & set(ManifestIndex(str(other)).shards)
    file, arguments = mixed(tars=1, png=1), {**SMALL, "batching": BATCHINGS[0]}
    wanted = _images(Loader(one, **arguments)) | _images(Loader(other, **arguments))
    settings: list[dict[str, Any]] = [{}, {"cache": tmp_path / "cache", "cache_bytes": 1 << 30}]
    for caching in settings:
        found = _images(Loader(file, **arguments, **caching))
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[key][0], wanted[key][0]) for key in wanted)


def test_a_bad_sample_is_replaced_and_named_with_its_member(
    members: dict[str, Path], mixed: Callable[..., Path], tmp_path: Path
) -> None:
    broken = shutil.copytree(members["png"], tmp_path / "broken")
    detail = ManifestIndex(str(broken)).detail(0)
    path = broken / detail.object(0)
    data = bytearray(path.read_bytes())
    data[detail.start(0) + 30 : detail.start(0) + 60] = bytes(30)
    path.write_bytes(data)
    file = mixed({**members, "png": broken}, tars=1, png=1)
    loader = Loader(file, batching=BATCHINGS[0], max_bad=0.5, **SMALL)
    assert detail.key not in _images(loader)
    assert loader.stats()["bad"] == 1
    with pytest.raises(BadDataError, match=f"png/{detail.object(0)}: the image {detail.key}"):
        list(Loader(file, batching=BATCHINGS[0], max_bad=0.0, **SMALL))


def test_a_store_that_misbehaves_is_survived(mixed: Callable[..., Path]) -> None:
    names: set[str] = set()

    def wrap(reader: Any) -> Any:
        faults = FaultStore(reader, 3, 0.2, ["reset", "wrong"])
        inner = faults.read

        async def read(name: str, start: int, length: int, *, fresh: bool = False) -> bytes:
            names.add(name.partition("/")[0])
            return await inner(name, start, length, fresh=fresh)

        faults.read = read  # type: ignore[method-assign]
        return faults

    file = mixed(tars=1, zarr=1)
    shaky = _images(Loader(file, batching=BATCHINGS[0], wrap=wrap, **SMALL))
    assert {k: len(v) for k, v in shaky.items()} == {
        k: len(v) for k, v in _images(Loader(file, batching=BATCHINGS[0], **SMALL)).items()
    }
    assert names == {"tars", "zarr"}


def test_dali_decodes_a_mixture_of_its_codec_and_refuses_others_by_name(mixed: Callable[..., Path]) -> None:
    with pytest.raises(ArgumentError, match=r"decoder=dali decodes htj2k, and .*png holds png: shardkit transcode"):
        Loader(mixed(tars=1, png=1), batching=BATCHINGS[0], decoder="dali", **SMALL)
    loader = Loader(mixed(tars=(2, "zscore")), batching=BATCHINGS[0], decoder="dali", **SMALL)
    by_threads = _images(Loader(mixed(tars=(2, "zscore")), batching=BATCHINGS[0], **SMALL))
    for key, images in _images(loader).items():
        assert all(np.array_equal(image, by_threads[key][0]) for image in images)


def test_what_an_epoch_reads_is_counted_as_often_as_it_is_shown(mixed: Callable[..., Path]) -> None:
    file = mixed(tars=2, zarr=1)
    loader = Loader(file, batching=Packed(tokens=2048, patch=8, per_step=2, level=1), **SMALL)
    found = costs(index := open_index(str(file)), loader.plan)
    rows = [row for row in range(index.rows) for _ in range(2 if row in loader.members["tars"] else 1)]
    assert found.range_bytes == sum(index.detail(row).prefix(1) for row in rows)
    assert found.all_bytes == sum(index.shard_bytes([1]).values())
    assert found.shard_bytes == found.all_bytes + sum(
        size for name, size in index.shard_bytes([1]).items() if name.startswith("tars/")
    )
    list(loader)
    assert loader.stats()["images"] == len(rows)


# ------------------------------------------------------------------------------------------------------- the file


def test_a_mixture_is_found_from_anywhere_and_moves_with_its_members(
    members: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "project"
    shutil.copytree(members["tars"], place / "shards" / "tars")
    monkeypatch.chdir(place)
    (place / "mixes").mkdir()
    mixture.write("mixes/one.json", [MemberSpec("tars", "shards/tars", 1.0, ManifestIndex("shards/tars").digest)])
    assert json.loads((place / "mixes" / "one.json").read_text())["members"][0]["url"] == "../shards/tars"
    monkeypatch.chdir(tmp_path)
    place.rename(tmp_path / "elsewhere")
    loader = Loader("elsewhere/mixes/one.json", batching=BATCHINGS[0], **SMALL)
    assert len(_images(loader)) == len(ManifestIndex("elsewhere/shards/tars").columns("key"))


def test_a_mixture_on_a_bucket_names_datasets_there(
    members: dict[str, Path], in_bucket: Callable[[Path, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = in_bucket(members["tars"], "mix/tars")
    there = url.removesuffix("/tars")
    mixture.write(f"{there}/all.json", [MemberSpec("tars", url, 1.5, ManifestIndex(url).digest)])
    loader = Loader(f"{there}/all.json", batching=BATCHINGS[0], **SMALL)
    assert set(_images(loader)) == set(ManifestIndex(str(members["tars"])).columns("key")["key"].to_pylist())


def test_a_member_that_has_changed_or_gone_is_named_with_the_remedy(
    members: dict[str, Path], mixed: Callable[..., Path], manifests: Any, tmp_path: Path
) -> None:
    copy = shutil.copytree(members["png"], tmp_path / "copy")
    file = mixed({**members, "png": copy}, tars=1, png=0.5)
    MixtureIndex(str(file)).close()
    manifests.rewrite(
        copy,
        lambda table: table.set_column(
            table.schema.get_field_index("view"), "view", pa.nulls(table.num_rows, table.schema.field("view").type)
        ),
    )
    with pytest.raises(IntegrityError, match=r"png of .*cocktail.json has changed since.*run shardkit mix again"):
        Loader(file, batching=BATCHINGS[0], **SMALL)
    assert not manifests.opened(tmp_path), "nothing stays open"
    copy.rename(tmp_path / "copy1")
    with pytest.raises(
        ArgumentError, match=r"member png of .*cocktail.json: the folder .*copy does not exist: mix aga"
    ):
        Loader(file, batching=BATCHINGS[0], **SMALL)


def test_a_member_that_has_moved_is_found_by_its_digest_and_not_by_its_name(
    members: dict[str, Path], mixed: Callable[..., Path], tmp_path: Path
) -> None:
    folders = {name: shutil.copytree(members[name], tmp_path / f"{name}_copy") for name in ("tars", "png")}
    shutil.copytree(members["zarr"], tmp_path / "png_cop")
    file = mixed(folders, tars=1, png=0.5)
    folders["png"].rename(tmp_path / "elsewhere")
    said = f"png_copy does not exist; {tmp_path}/elsewhere holds its dataset: mix again, or mend url in {file}"
    with pytest.raises(ArgumentError, match=f"^member png of {file}: the folder .*{said}$"):
        Loader(file, batching=BATCHINGS[0], **SMALL)
