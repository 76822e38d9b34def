"""The graph that a loader keeps: built once, lent to one iteration at a time, closed with the program."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from shardkit import Loader, Packed
from shardkit.loader import graph
from shardkit.loader.graph import GraphConfig
from shardkit.loader.graphs import Graphs

CONFIG = GraphConfig(None, decode=True, slice=False, flip=False, resize=False, max_images=4, threads=1)


def test_epochs_whole_and_broken_off_share_a_graph(dataset_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, build = list[GraphConfig](), graph._build

    def counted(config: GraphConfig) -> Any:
        built.append(config)
        return build(config)

    monkeypatch.setattr(graph, "_build", counted)
    batching = Packed(tokens=512, patch=16, per_step=1)
    loader = Loader(dataset_folder, batching=batching, split=None, device="cpu", decoder="dali")
    first = [batch.rows.tolist() for batch in loader]
    loader.load_state_dict({**loader.state_dict(), "epoch": 0, "step": 0})
    for _ in loader:
        break
    loader.load_state_dict({**loader.state_dict(), "epoch": 0, "step": 0})
    assert [batch.rows.tolist() for batch in loader] == first
    assert len(built) == 1


def test_what_an_error_leaves_in_a_graph_is_not_shown_in_the_next_epoch(
    dataset_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded() -> list[torch.Tensor]:
        loader.load_state_dict({**loader.state_dict(), "epoch": 0, "step": 0})
        return [batch["patches"].clone() for batch in loader]

    floats, calls = graph._floats, list[int]()

    def failing(*values: float) -> Any:
        calls.append(1)
        if len(calls) == 3:  # some of a batch's inputs are fed
            raise MemoryError
        return floats(*values)

    batching = Packed(tokens=512, patch=16, per_step=1)
    loader = Loader(dataset_folder, batching=batching, split=None, device="cpu", decoder="dali")
    sound = loaded()
    monkeypatch.setattr(graph, "_floats", failing)
    with pytest.raises(MemoryError):
        loaded()
    assert all(map(torch.equal, loaded(), sound))


def test_a_loader_that_is_dropped_gives_its_graph_back_whatever_became_of_its_iterations(dataset_folder: Path) -> None:
    batching = Packed(tokens=512, patch=16, per_step=1)
    gc.collect()
    gc.disable()  # what was cut short lies in a cycle
    try:
        before = _built()
        for _ in range(3):
            loader = Loader(dataset_folder, batching=batching, split=None, device="cpu", decoder="dali", threads=1)
            batches = iter(loader)
            next(batches)
            batches.close()  # type: ignore[attr-defined]
            assert _built() == before + 1
            del loader, batches
        assert _built() == before
    finally:
        gc.enable()


def _built() -> int:
    return sum(each._pipeline is not None for each in list(graph._graphs))


def test_a_graph_is_lent_to_one_at_a_time_and_for_what_it_was_built_for() -> None:
    graphs = Graphs()
    one = graphs.take(CONFIG)
    other = graphs.take(CONFIG)
    assert other is not one
    graphs.give_back(other)
    graphs.give_back(one)
    assert graphs.take(replace(CONFIG, max_images=2)) is one
    graphs.give_back(one)
    larger = graphs.take(replace(CONFIG, max_images=8))
    assert larger is not one
    graphs.give_back(larger)
    assert graphs.take(replace(CONFIG, flip=True, max_images=8)) is not larger


def test_what_is_given_back_after_the_end_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = list[object]()
    monkeypatch.setattr(graph.Graph, "close", lambda self: closed.append(self))
    graphs = Graphs()
    lent = graphs.take(CONFIG)
    graphs.close()
    assert not closed
    graphs.give_back(lent)
    assert closed == [lent]
