"""Which share of an epoch is this process's: asked when it matters, and never guessed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shardkit import Loader, Packed
from shardkit.errors import ArgumentError
from shardkit.loader.world import World, launched

PACKED = Packed(tokens=512, patch=16, per_step=4)
SMALL: dict[str, Any] = {"batching": PACKED, "split": None, "device": "cpu", "window": 8}
LAUNCHERS = ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS")


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Makes torch.distributed say that it is initialised, with this rank and size."""

    def start(rank: int, size: int) -> None:
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: size)

    return start


@pytest.mark.parametrize(
    ("variables", "rank", "size"),
    [
        ({}, 0, 1),
        ({"RANK": 3, "WORLD_SIZE": 4}, 3, 4),
        ({"WORLD_SIZE": 1}, 0, 1),
        ({"SLURM_PROCID": 1, "SLURM_NTASKS": 2, "SLURM_STEP_ID": 0, "SLURM_STEP_NUM_TASKS": 2}, 1, 2),
        ({"SLURM_PROCID": 1, "SLURM_NTASKS": 2, "SLURM_STEP_ID": 0}, 1, 2),
        # A batch script, and a shell that srun opened in a job of four tasks: each runs once.
        ({"SLURM_PROCID": 0, "SLURM_NTASKS": 4}, 0, 1),
        ({"SLURM_PROCID": 0, "SLURM_NTASKS": 4, "SLURM_STEP_ID": 0, "SLURM_STEP_NUM_TASKS": 1}, 0, 1),
        # torchrun, started once a node by srun
        ({"RANK": 5, "WORLD_SIZE": 8, "SLURM_PROCID": 1, "SLURM_STEP_NUM_TASKS": 2}, 5, 8),
    ],
)
def test_a_launcher_s_variables_name_the_share(variables: dict[str, int], rank: int, size: int) -> None:
    assert launched({name: str(value) for name, value in variables.items()}) == World(rank, size)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 is set and RANK is not"),
        ({"RANK": "0"}, "RANK=0 is set and WORLD_SIZE is not"),
        ({"RANK": "two", "WORLD_SIZE": "4"}, "RANK=two is no whole number"),
        ({"RANK": "4", "WORLD_SIZE": "4"}, "rank=4 is none of the 4 ranks"),
    ],
)
def test_half_of_a_share_is_refused_when_it_is_needed_and_not_before(
    dataset_folder: Path, variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    loader = Loader(dataset_folder, **SMALL)  # as in the children of Lightning, which has no group yet
    assert "unknown yet" in repr(loader)
    for ask in (lambda: len(loader), lambda: next(iter(loader)), lambda: loader.rank):
        with pytest.raises(ArgumentError, match=words):
            ask()


def test_a_group_that_comes_after_the_loader_shares_every_step(
    dataset_folder: Path, group: Callable[[int, int], None], caplog: pytest.LogCaptureFixture
) -> None:
    loader = Loader(dataset_folder, **SMALL)
    alone = len(loader)
    assert (loader.rank, loader.world_size) == (0, 1)
    group(1, 2)
    with caplog.at_level(logging.WARNING):
        batches = list(loader)
    assert (loader.rank, loader.world_size) == (1, 2)
    assert len(batches) == len(loader) == alone // 2
    assert {batch.position.micro for batch in batches} == {1, 3}
    assert "length was asked for as rank 0 of 1" in caplog.text, "a schedule was made for another number of steps"


def test_a_group_that_cannot_share_a_step_is_refused(dataset_folder: Path, group: Callable[[int, int], None]) -> None:
    loader = Loader(dataset_folder, **SMALL)
    group(0, 3)
    with pytest.raises(ArgumentError, match="per_step=4 micro-batches cannot be shared among 3"):
        next(iter(loader))
    with pytest.raises(ArgumentError, match="per_step=4"):
        Loader(dataset_folder, **SMALL)


@pytest.mark.parametrize(
    ("named", "of_group", "words"),
    [((1, 2), (2, 4), True), ((0, 1), (1, 2), True), ((1, 2), (1, 2), False), ((0, 1), (0, 2), False)],
)
def test_what_is_named_wins_over_a_group_and_says_so(
    dataset_folder: Path,
    group: Callable[[int, int], None],
    caplog: pytest.LogCaptureFixture,
    named: tuple[int, int],
    of_group: tuple[int, int],
    words: bool,
) -> None:
    group(*of_group)
    loader = Loader(dataset_folder, rank=named[0], world_size=named[1], **SMALL)
    with caplog.at_level(logging.WARNING):
        first = next(iter(loader))
    assert first.position.micro == named[0]
    assert ("torch.distributed says" in caplog.text) == words
