"""The resume contract, as a check for any loader: wherever it is stopped, what follows is what would have followed.

def test_my_loader_resumes():
    assert_resumes_exactly(lambda: Loader(url, batching=Resized(side=64, batch_size=2), seed=0))
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Protocol


class Resumable(Protocol):
    """A loader that can be checked. An iteration is an epoch, or what is left of it; the next one is the next epoch.

    Batches have `rows`, the samples' numbers, -1 for none, and `position`, a `shardkit.loader.batch.BatchPosition`:
    after a batch whose `position.last` is true, the last one of its step, a state may be taken. Where they have
    `seeds`, those of the samples' augmentations, these are compared, too.
    """

    def __iter__(self) -> Iterator[Any]:
        """Go through the batches of an epoch, or of what is left of it."""

    def state_dict(self) -> Any:
        """Say where it stands: anything that can be pickled."""

    def load_state_dict(self, state: Any, /) -> None:
        """Go on from there."""


@dataclass(frozen=True, slots=True, order=True)
class Seen:
    """What is compared of a batch.

    Attributes
    ----------
    epoch, step, micro : int
        Where it stands in the plan.
    rows, seeds : tuple of int
        Numbers of its samples, and seeds of their augmentations, where it has any.
    last : bool
        Whether it is the last of its step.
    """

    epoch: int
    step: int
    micro: int
    rows: tuple[int, ...]
    seeds: tuple[int, ...]
    last: bool

    def __str__(self) -> str:
        """Say it in words."""
        where = f"micro-batch {self.micro} of step {self.step} of epoch {self.epoch}"
        return f"{where} with the rows {list(self.rows)}" + (f" and the seeds {list(self.seeds)}" if self.seeds else "")


Epochs = list[list[Seen]]


def assert_resumes_exactly(make: Callable[[], Resumable], steps: int | None = None) -> None:
    """Stop after every step of an epoch, load the state into a fresh loader, compare all that follows.

    What follows is the rest of the epoch and the next one. Each state is also resumed twice: loaded, taken again a step
    later, loaded again.

    Parameters
    ----------
    make : callable
        Gives a fresh loader at the start of a small epoch, the same every time.
    steps : int, optional
        How many steps to stop after, from the first; None for all, and the epoch's end.

    Raises
    ------
    AssertionError
        Says after how many steps what came instead of what.
    """
    whole = _run(make(), 2)
    assert all(whole), "a fresh loader has to give an epoch of batches, and another one, and gave none"
    _compare(_run(make(), 2), whole, "a second fresh loader")
    total = sum(seen.last for seen in whole[0])
    assert whole[0][-1].last, f"the epoch ends with {whole[0][-1]}, whose position.last is false"
    for done in range((total if steps is None else min(steps, total)) + 1):
        name = f"resumed after {done} of {total} steps"
        state = _state_after(make(), done)
        _compare(_run(_resumed(make, state), 2), _after(whole, done), name)
        state = _state_after(_resumed(make, state), 1)
        _compare(_run(_resumed(make, state), 2), _after(whole, done + 1), f"{name}, and once more after another step")
    if steps is None:
        ended = make()
        _run(ended, 1)
        state = _pickled(ended)
        _compare(_run(_resumed(make, state), 1), whole[1:], "resumed after the whole epoch")


def assert_any_world_size(make: Callable[[int, int], Resumable], worlds: Sequence[int] = (1, 2, 4)) -> None:
    """Check that all ranks together get the same steps however many there are, from a state of any other number too.

    Parameters
    ----------
    make : callable
        Gives a rank of a world size a fresh loader at the start of a small epoch, the same every time.
    worlds : sequence of int
        World sizes to try.

    Raises
    ------
    AssertionError
        Says after how many steps what came instead of what.
    """
    whole = _run_world(make, worlds[0], None)
    total = sum(seen.last for seen in whole[0])
    for world in worlds[1:]:
        _compare(_run_world(make, world, None), whole, f"{world} ranks")
    for world in worlds:
        for done in range(total + 1):
            states = [_state_after(make(rank, world), done) for rank in range(world)]
            plain = [pickle.loads(state) for state in states]
            assert plain.count(plain[0]) == world, f"{world} ranks have different states after {done} steps: {plain}"
            for other in worlds:
                name = f"{other} ranks, resumed where {world} were after {done} of {total} steps"
                _compare(_run_world(make, other, states[0]), _after(whole, done), name)


def _run(loader: Resumable, epochs: int) -> Epochs:
    return [[_seen(batch) for batch in loader] for _ in range(epochs)]


def _run_world(make: Callable[[int, int], Resumable], world: int, state: bytes | None) -> Epochs:
    """Run two epochs of all ranks, and put them together in the order of the plan."""
    runs = []
    for rank in range(world):
        loader = make(rank, world)
        if state is not None:
            loader.load_state_dict(pickle.loads(state))
        runs.append(_run(loader, 2))
    lengths = {tuple(map(len, run)) for run in runs}
    assert len(lengths) == 1, f"of {world} ranks, some have more micro-batches than others: {sorted(lengths)}"
    return [_put_together([seen for run in runs for seen in run[epoch]]) for epoch in range(2)]


def _put_together(parts: list[Seen]) -> list[Seen]:
    ordered = sorted(parts)
    following = [(seen.epoch, seen.step) for seen in ordered[1:]] + [None]
    return [replace(seen, last=(seen.epoch, seen.step) != step) for seen, step in zip(ordered, following, strict=True)]


def _state_after(loader: Resumable, steps: int) -> bytes:
    """Take the state when so many steps were handed out, within the loop, as a checkpoint does."""
    while steps:
        before = steps
        for batch in loader:
            steps -= bool(batch.position.last)
            if not steps:
                return _pickled(loader)
        assert steps < before, "the loader gave no step before it was stopped"
    return _pickled(loader)


def _pickled(loader: Resumable) -> bytes:
    """Turn a state into bytes, as a checkpoint does: later steps cannot change it any more."""
    state = loader.state_dict()
    try:
        return pickle.dumps(state)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise AssertionError(f"the state cannot be pickled, so no checkpoint can hold it: {error}") from error


def _resumed(make: Callable[[], Resumable], state: bytes) -> Resumable:
    loader = make()
    loader.load_state_dict(pickle.loads(state))
    return loader


def _after(epochs: Epochs, steps: int) -> Epochs:
    """Leave out what comes before so many steps, and epochs that are over."""
    left = []
    for epoch in epochs:
        ends = [0, *(at + 1 for at, seen in enumerate(epoch) if seen.last)]
        done = min(steps, len(ends) - 1)
        steps -= done
        left.append(epoch[ends[done] :])
    return [epoch for epoch in left if epoch]


def _compare(found: Epochs, wanted: Epochs, name: str) -> None:
    """Fail where the epochs of `wanted` differ; `found` may go on after them."""
    for number, epoch in enumerate(wanted):
        for one, other in zip_longest(found[number], epoch):
            if one != other:
                place = "" if number == 0 else f", iteration {number + 1}"
                ends = "the end of the iteration"
                raise AssertionError(f"{name}{place}: got {one or ends}, where {other or ends} was due")


def _seen(batch: Any) -> Seen:
    position = batch.position
    rows, seeds = _numbers(batch.rows), _numbers(getattr(batch, "seeds", ()))
    return Seen(position.epoch, position.step, position.micro, rows, seeds, bool(position.last))


def _numbers(values: Any) -> tuple[int, ...]:
    """Of a tensor, an array or a sequence."""
    return tuple(values.tolist() if hasattr(values, "tolist") else values)
