"""A training step gives a GPU its work without waiting for it, and no gradient is summed place after place.

A CPU runs the same operators: those are looked for here that a GPU would have to be waited for, or be slow at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.models.classifier import Classifier, HeadConfig
from trainer.models.hiera import HieraConfig
from trainer.models.mae import MaeConfig
from trainer.models.vit import VitConfig, VitEncoder
from trainer.objectives.masked import Masked

WAITS = ("_local_scalar_dense", "nonzero", "lift_fresh", "masked_select", "_unique2")
"""Operators that read a value of the device or, as `torch.tensor` does with a list, copy one to it and wait."""
MAE = MaeConfig(patch=4, width=16, depth=2, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
SIZES = [(16, 8), (12, 16), (9, 5)]


class Seen(TorchDispatchMode):
    """Counts operators by name, and remembers what `index_put` is asked to add up."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count: Counter[str] = Counter()
        self.repeated = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        self.count[name] += 1
        if name.startswith(("index_put", "_unsafe_index_put", "_index_put_impl")) and args[3:4] == (True,):
            places = [index.flatten() for index in args[1] if index is not None and index.dtype != torch.bool]
            self.repeated = max([self.repeated, *(int(one.bincount().max()) for one in places if len(one))])
        return func(*args, **(kwargs or {}))


def seen(run: Callable[[], object]) -> Seen:
    mode = Seen()
    with mode:
        run()
    return mode


@pytest.fixture(params=["packed", "binned"])
def batch(request: pytest.FixtureRequest, make_packed: Any, make_binned: Any) -> Any:
    packed, images = make_packed(SIZES, patch=4, tokens=64, sequences=5)
    return packed if request.param == "packed" else make_binned(images, SIZES, 16, 16, 5)


def test_what_is_looked_for_is_seen() -> None:
    values, place = torch.arange(3.0, requires_grad=True), torch.tensor(1)
    assert seen(lambda: values[place]).count["_local_scalar_dense"]
    assert seen(lambda: torch.tensor([1, 2])).count["lift_fresh"]
    assert not any(seen(lambda: values[place[None]]).count[name] for name in WAITS)
    same = torch.tensor([1, 1, 1, 0])
    assert seen(lambda: torch.autograd.backward(values[same].sum())).repeated == 3


@pytest.mark.parametrize("position", ["absolute", "centered", "stretch"])
def test_a_step_of_a_masked_autoencoder_waits_for_nothing_and_adds_nothing_up(position: Any, batch: Any) -> None:
    objective = Masked(replace(MAE, position=position, norm_pix=True).build())
    found = seen(lambda: torch.autograd.backward(objective.run(objective.model, batch).loss))
    assert not {name: found.count[name] for name in WAITS if found.count[name]}
    assert found.repeated <= 1


def test_a_step_of_a_masked_hiera_adds_nothing_up(make_binned: Any) -> None:  # timm's encoder waits for its masks
    images = list(torch.rand(2, 128, 128))
    batch = make_binned(images, [(128, 128)] * 2, 128, 128, 3)
    config = HieraConfig(arch="hiera_micro", side=128, decoder_width=32, decoder_depth=1, decoder_heads=4)
    objective = Masked(config.build())
    found = seen(lambda: torch.autograd.backward(objective.run(objective.model, batch).loss))
    assert found.repeated <= 1


@pytest.mark.parametrize("pool", ["mean", "token"])
def test_a_classifier_waits_for_nothing_and_adds_nothing_up(pool: Any, batch: Any) -> None:
    config = VitConfig(patch=4, width=16, depth=2, heads=2, drop_path=0.1)
    model = Classifier(VitEncoder(config), 3, HeadConfig(pool=pool))
    found = seen(lambda: torch.autograd.backward(model(batch).float().sum()))
    assert not {name: found.count[name] for name in WAITS if found.count[name]}
    assert found.repeated <= 1


@pytest.mark.parametrize("source", [[2, 5, 0, 5, 1], [5, 5], [0, 1, 2, 3, 4], []])
def test_mask_tokens_and_outputs_are_those_of_a_table_with_all_of_them(source: list[int]) -> None:
    decoder = replace(MAE, decoder_width=4, decoder_heads=1).build()
    nn.init.normal_(decoder.mask_token)
    x, places = torch.randn(5, 4, requires_grad=True), torch.tensor(source, dtype=torch.int64)
    weight = torch.randn(len(source), 4)

    def gradients(of: Tensor) -> list[Tensor]:
        torch.autograd.backward((of * weight).sum(), inputs=[x, decoder.mask_token])
        found = [x.grad, decoder.mask_token.grad]
        x.grad = decoder.mask_token.grad = None
        return [torch.zeros(1) if one is None else one for one in found]

    ours, table = decoder.with_mask_tokens(x, places), torch.cat([x, decoder.mask_token[0]])[places]
    assert torch.equal(ours, table)
    for one, other in zip(gradients(ours), gradients(table), strict=True):
        torch.testing.assert_close(one, other)
