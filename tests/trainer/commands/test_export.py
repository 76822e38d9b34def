"""Exported files: timm, called as the command says, gives the features that the run's own encoder has."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from timm.models import register_model
from timm.models.hiera import Hiera, hiera_tiny_224
from torch import Tensor

from shardkit import prepare
from shardkit.dataset import contents
from shardkit.dataset.rounding import ceil_div
from shardkit.errors import ArgumentError
from shardkit.storage import Store
from trainer.commands.cli import run as command
from trainer.commands.export import Export, export
from trainer.commands.usage import image
from trainer.config import OptimConfig, flat
from trainer.models.formats import original_state
from trainer.models.hiera import HieraConfig, HieraMae
from trainer.models.initial import load_initial
from trainer.models.mae import Mae, MaeConfig
from trainer.models.masking import draw
from trainer.models.sequences import Sequences
from trainer.optim import optimizer
from trainer.parallel import World
from trainer.recipes.registry import RECIPES
from trainer.runs import folder
from trainer.runs.saving import Checkpoints
from trainer.runs.state import TrainingState

HIERA = HieraConfig(arch="hiera_nano", side=64, decoder_width=32, decoder_depth=1, decoder_heads=2)
VIT = MaeConfig(patch=8, width=48, depth=2, heads=3, decoder_width=32, decoder_depth=1, decoder_heads=2, mlp_ratio=2.5)


@register_model
def hiera_nano(pretrained: bool = False, **changes: Any) -> Hiera:
    """timm's own code with few parameters, by a name that only these tests know."""
    made = hiera_tiny_224(pretrained, **{"embed_dim": 16, "stages": (1, 1, 1, 1), **changes})
    assert isinstance(made, Hiera)
    return made


def _run(
    out: Path,
    config: MaeConfig | HieraConfig,
    data: str = "there",
    members: Any = (),
    **changes: str,
) -> Mae | HieraMae:
    """A run's folder with one checkpoint, of random weights; returns its model. Members: how they were normalised."""
    torch.manual_seed(3)
    model = config.build()
    adam = optimizer(model, OptimConfig(lr=1e-3))
    checkpoints = Checkpoints(out, 2, World(0, 1, torch.device("cpu")))
    checkpoints.save(7, TrainingState(model, adam, None, 0), {"step": 7})
    checkpoints.wait()
    options = {**flat(replace(RECIPES["tiny"].config, model=config)), **changes}
    facts = {"recipe": "tiny", "config": options, "baseline": None, "data": data, "digest": "0" * 64}
    trained = [{"name": name, "digest": "", "keys": [], "normalise": how} for name, how in dict(members).items()]
    folder.write(out, {**facts, "parameters": 1, "device": "CPU", "world_size": 1, "trained": trained})
    return model.eval()


def _called(said: str) -> torch.nn.Module:
    """What the printed lines of Python make."""
    names: dict[str, Any] = {}
    lines = said.splitlines()
    exec("\n".join(lines[lines.index("import functools, timm, torch") : lines.index("model.eval()") + 1]), names)
    found: torch.nn.Module = names["model"]
    return found


def _features(model: Mae, image: Tensor) -> Tensor:
    """The encoder's, of one image of whole patches with none hidden: class token first."""
    p = model.patch
    rows, cols = image.shape[0] // p, image.shape[1] // p
    count = rows * cols
    of = Sequences(
        patches=image.view(rows, p, cols, p).permute(0, 2, 1, 3).reshape(count, p * p),
        yx=torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).int(),
        image=torch.zeros(count, dtype=torch.int32),
        cu_seqlens=torch.tensor([0, count], dtype=torch.int32),
        hw=torch.tensor([image.shape], dtype=torch.int32),
        grid=torch.tensor([[rows, cols]], dtype=torch.int32),
        weight=torch.ones(1),
        seeds=torch.zeros(1, dtype=torch.int64),
        longest=count,
        filler=0,
    )
    mask = draw(of, 0.0)
    with torch.no_grad():
        return model.encode(of, mask)[mask.decoder]  # in the image's order


@pytest.mark.parametrize("grid", [(9, 5), (4, 13)])
@pytest.mark.parametrize("position", ["absolute", "centered", "stretch"])
@pytest.mark.parametrize(("channels", "suffix"), [(1, ".pth"), (3, ".safetensors")])
def test_the_printed_call_gives_the_run_s_own_features(
    tmp_path: Path, position: Any, grid: tuple[int, int], channels: Any, suffix: str
) -> None:
    own = _run(tmp_path / "run", replace(VIT, position=position, position_table=20, norm_eps=1e-3))
    assert isinstance(own, Mae)
    said = export(Export(run=tmp_path / "run", out=tmp_path / f"e{suffix}", grid=grid, channels=channels))
    image = torch.rand(grid[0] * 8, grid[1] * 8)
    with torch.no_grad():
        theirs = _called(said).forward_features(image.expand(1, channels, -1, -1))[0]  # type: ignore[operator]
    torch.testing.assert_close(theirs, _features(own, image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batching", ["resized:side=48,patch=8", "packed:tokens=4096,patch=8,level=1"])
@pytest.mark.deep
def test_without_a_grid_the_printed_call_is_for_images_as_the_run_has_them(
    tmp_path: Path, dataset_folder: Path, batching: str
) -> None:
    _run(tmp_path / "run", VIT, str(dataset_folder), **{"loader.batching": batching})
    model = _called(export(Export(run=tmp_path / "run", out=tmp_path / "e.safetensors")))
    rows, columns = model.patch_embed.grid_size  # type: ignore[union-attr, misc]
    if batching.startswith("resized"):
        assert (rows, columns) == (6, 6)
        return
    table = contents.samples(Store(str(dataset_folder)))
    bins = Counter(zip(table["bin_height"].to_pylist(), table["bin_width"].to_pylist(), strict=True))
    (height, width), most = bins.most_common(1)[0]
    assert bins[height, width] == most
    assert (rows, columns) in {(ceil_div(h, 16), ceil_div(w, 16)) for (h, w), count in bins.items() if count == most}


@pytest.mark.parametrize("normalise", ["zscore", "0.5,0.25"])
def test_an_image_is_prepared_by_what_the_file_says_of_itself(
    tmp_path: Path, dataset_folder: Path, normalise: str
) -> None:
    batching = "packed:tokens=4096,patch=8,level=1"
    _run(tmp_path / "run", VIT, **{"loader.batching": batching, "loader.normalise": normalise})
    asked = Export(run=tmp_path / "run", out=tmp_path / "e.safetensors", grid=(60, 60), channels=3)
    assert "trainer.commands.usage.image(pixels, bits, about)" in export(asked)
    with safe_open(asked.out, "pt") as file:
        about = file.metadata()
    store = Store(str(dataset_folder))
    row, facts = contents.samples(store).to_pylist()[0], contents.description(store)
    pixels, padded = contents.image(store, row, facts), row["padding"] > 0
    ready = image(pixels, row["bits"], about, padded)
    assert ready.shape == (1, 3, 480, 480)
    pair: Any = (0.5, 0.25) if "," in normalise else normalise
    own = prepare(pixels, row["bits"], batching=batching, normalise=pair, padded=padded)
    assert torch.equal(ready[0, 2, : own.shape[1], : own.shape[2]], own[0])
    assert not ready[..., own.shape[1] :, :].any()
    with pytest.raises(ArgumentError, match="export with a larger --grid"):
        image(pixels, row["bits"], {**about, "height": "8"})


@pytest.mark.parametrize("channels", [1, 3])
def test_the_printed_call_for_hiera_gives_the_encoder_as_it_was_trained(tmp_path: Path, channels: Any) -> None:
    own = _run(tmp_path / "run", HIERA)
    assert isinstance(own, HieraMae)
    said = export(Export(run=tmp_path / "run", out=tmp_path / "e.safetensors", channels=channels))
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        theirs = _called(said).forward_features(image.expand(1, channels, -1, -1))  # type: ignore[operator]
        torch.testing.assert_close(theirs, own.encoder.forward_features(image), rtol=1e-4, atol=1e-5)


def test_the_file_says_how_it_is_to_be_used(tmp_path: Path) -> None:
    _run(tmp_path / "run", replace(VIT, position="stretch"))
    said = export(Export(run=tmp_path / "run", out=tmp_path / "e.safetensors", grid=(3, 4)))
    with safe_open(tmp_path / "e.safetensors", "pt") as file:
        about = file.metadata()
    wanted = {"model.patch": "8", "grid": "3x4", "model.position": "stretch", "model.position_table": "64"}
    wanted |= {"loader.normalise": "percentile", "model.norm_eps": "1e-06", "step": "7", "channels": "1"}
    assert about.items() >= wanted.items()
    assert about["call"] in said
    assert about["image"] in said
    assert "halved 3 times" in about["image"]
    assert "(8 i, 8 j)" in about["image"]


def test_an_image_of_a_mixture_s_member_is_prepared_as_that_member_was(tmp_path: Path) -> None:
    batching = {"loader.batching": "packed:tokens=4096,patch=8", "loader.normalise": "minmax"}
    _run(tmp_path / "run", VIT, members={"one": "0.5,0.25", "two": "minmax"}, **batching)
    said = export(Export(run=tmp_path / "run", out=tmp_path / "e.safetensors", grid=(3, 4)))
    assert "do not count); of one instead, (x / (2**bits - 1) - 0.5) / 0.25 of grey levels x; padded" in said
    assert "usage.image(pixels, bits, about, member=NAME)" in said
    with safe_open(tmp_path / "e.safetensors", "pt") as file:
        about = file.metadata()
    pixels = np.random.default_rng(0).integers(0, 1 << 12, (24, 32)).astype(np.uint16)
    for member, normalise in (("", "minmax"), ("one", (0.5, 0.25)), ("two", "minmax")):
        own = prepare(pixels, 12, batching=batching["loader.batching"], normalise=normalise)  # type: ignore[arg-type]
        assert torch.equal(image(pixels, 12, about, member=member)[0], own)
    with pytest.raises(ArgumentError, match="the file names no member three of a mixture: one, two"):
        image(pixels, 12, about, member="three")


@pytest.mark.parametrize("channels", [1, 3])
def test_a_whole_model_goes_out_and_comes_back(tmp_path: Path, channels: Any) -> None:
    own = _run(tmp_path / "run", replace(VIT, position="centered"))
    asked = Export(run=tmp_path / "run", out=tmp_path / "all.pth", grid=(3, 4), whole=True, channels=channels)
    export(asked)
    state = torch.load(asked.out, weights_only=True)["model"]
    assert state["patch_embed.proj.weight"].shape[1] == channels
    assert state["decoder_pred.weight"].shape[0] == channels * 64
    assert isinstance(own, Mae)
    assert torch.equal(state["decoder_pos_embed"], original_state(own, (3, 4))["decoder_pos_embed"])
    again = Mae(VIT)
    assert "at random" not in load_initial(again, str(asked.out))
    for name, value in own.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, msg=name)


def test_a_whole_hiera_comes_back_from_under_any_wrapper(tmp_path: Path) -> None:
    own, again = _run(tmp_path / "run", HIERA), HieraMae(HIERA)
    state = {f"module.{name}": value for name, value in own.state_dict().items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "hiera.pth")
    assert "at random" not in load_initial(again, str(tmp_path / "hiera.pth"))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in own.state_dict().items())


@pytest.mark.parametrize(
    ("config", "words", "told"),
    [
        (VIT, [], "--grid ROWS COLUMNS is needed"),
        (VIT, ["--grid", "0", "4"], "--grid ROWS COLUMNS is needed"),
        (VIT, ["--grid", "3", "4", "--average"], "holds no average"),
        (
            HieraConfig(side=64, decoder_width=32, decoder_depth=1, decoder_heads=2),
            ["--grid", "4", "4"],
            "leave it out",
        ),
    ],
)
def test_what_cannot_be_exported_is_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: MaeConfig | HieraConfig, words: list[str], told: str
) -> None:
    _run(tmp_path / "run", config)
    assert command(["export", str(tmp_path / "run"), "--out", str(tmp_path / "e.pth"), *words]) == 1
    assert told in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "e.pth").exists()


def test_a_run_of_another_version_is_not_half_understood(tmp_path: Path) -> None:
    _run(tmp_path / "run", VIT)
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    about["config"]["model.twist"] = 3
    (tmp_path / "run" / "run.json").write_text(json.dumps(about))
    assert command(["export", str(tmp_path / "run"), "--out", str(tmp_path / "e.pth"), "--grid", "3", "4"]) == 1
