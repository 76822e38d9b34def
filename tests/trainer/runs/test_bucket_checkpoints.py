"""Checkpoints in a bucket: whole or not at all, whatever is refused or damaged, and one holder at a time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import obstore
import pytest
import torch
from obstore.exceptions import PermissionDeniedError
from torch import Tensor

from shardkit.errors import StorageError
from shardkit.storage import Store
from trainer.config import OptimConfig
from trainer.errors import TrainingError
from trainer.models.mae import Mae, MaeConfig
from trainer.optim import optimizer
from trainer.parallel import World
from trainer.runs import lease, mirror, places
from trainer.runs.saving import Checkpoints
from trainer.runs.state import TrainingState

ALONE = World(0, 1, torch.device("cpu"))
TINY = MaeConfig(patch=8, width=16, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
SECRET = "hunter2"


def deep(*values: str) -> list[Any]:
    """Values of which one of a kind is enough in a quick run."""
    return [pytest.param(value, marks=pytest.mark.deep) for value in values]


Machine = Callable[..., AbstractContextManager[Path]]


@pytest.fixture(scope="module")
def bucket(moto: str) -> str:
    import boto3

    boto3.client("s3", endpoint_url=moto, region_name="us-east-1").create_bucket(Bucket="checkpoints")
    return "s3://checkpoints"


@pytest.fixture
def url(bucket: str, request: pytest.FixtureRequest) -> str:
    return f"{bucket}/{request.node.name.replace('[', '/').strip(']')}"


@pytest.fixture
def machine(url: str, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine that holds the run, and has nothing of it on its disk."""
    for name, value in (("RENEW", 0.05), ("EXPIRES", 0.6), ("SETTLE", 0.01)):
        monkeypatch.setattr(lease, name, value)

    @contextmanager
    def held(say: Callable[[str], None] = lambda said: None) -> Iterator[Path]:
        with places.scratch():
            folder = places.begun(places.local(url), ALONE)
            with mirror.held(folder, ALONE, say):
                yield folder

    return held


def _state(seed: int) -> TrainingState:
    torch.manual_seed(seed)
    model = Mae(TINY)
    return TrainingState(model, optimizer(model, OptimConfig(lr=1e-3)), None, 0)


def _weights(state: TrainingState) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.model.state_dict().items()}


def _save(folder: Path, step: int, seed: int | None = None, keep: int = 2) -> None:
    checkpoints = Checkpoints(folder, keep, ALONE)
    checkpoints.save(step, _state(step if seed is None else seed), {"step": step})
    checkpoints.wait()


def _loaded(folder: Path) -> tuple[int, dict[str, Tensor]]:
    place, state = Checkpoints(folder, 2, ALONE).latest().path, _state(99)
    assert place is not None
    return state.load(place)["step"], _weights(state)


def _same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


def _names(url: str, below: str = "checkpoints") -> list[str]:
    return [name.removeprefix("checkpoints/") for name, _ in Store(url).list(below)]


@contextmanager
def _elsewhere() -> Iterator[None]:
    """Be another process: one that knows none of the runs of this one."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_buckets", "_made", "_roots", "_fetched"):
            patch.setattr(places, name, type(getattr(places, name))())
        yield


def _refusing(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """Let no object be put whose name ends so."""
    put = obstore.put

    def refused(store: Any, name: str, *args: Any, **options: Any) -> Any:
        if name.endswith(end):
            raise PermissionDeniedError(f"403 Forbidden: AccessDenied for key={SECRET} at s3://a:{SECRET}@b/{name}")
        return put(store, name, *args, **options)

    monkeypatch.setattr(obstore, "put", refused)


def _overwrite(url: str, name: str) -> None:
    data = bytearray(Store(url).get(name))
    data[len(data) // 2] ^= 1
    Store(url).put(name, bytes(data))


@pytest.mark.parametrize("end", ["2/__0_0.distcp", "2.json", *deep("2/.metadata", "2/progress.json", "metrics.jsonl")])
def test_a_put_that_is_refused_leaves_the_checkpoint_before_as_the_last(
    machine: Machine, url: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with machine() as folder, monkeypatch.context() as patch:
        _save(folder, 1)
        (folder / "metrics.jsonl").write_text("a line\n")
        _refusing(patch, end)
        with pytest.raises(
            StorageError, match=r"step_00000002 cannot be written: .*access refused.* run the same"
        ) as e:
            _save(folder, 2)
        assert SECRET not in str(e.value)
        assert "/tmp" not in places.named(str(e.value))
        patch.undo()
    assert "step_00000002.json" not in _names(url)
    with machine() as folder:
        step, weights = _loaded(folder)
        assert step == 1
        assert _same(weights, _weights(_state(1)))
        assert not [name for name in _names(url) if "2/" in name], "what was left is removed"
        _save(folder, 2)
    with machine() as folder:
        assert _loaded(folder)[0] == 2


def test_a_step_that_is_saved_again_never_overwrites_what_is_whole(machine: Machine, url: str) -> None:
    with machine() as folder:
        _save(folder, 1)
        before = {name: Store(url).get(f"checkpoints/{name}") for name in _names(url) if "/" in name}
        sizes: list[bool] = []
        put = Store.put

        def seen(self: Store, name: str, data: bytes) -> None:
            if name == "checkpoints/step_00000001.json":  # the index is the moment of change
                sizes.append(all(Store(url).get(f"checkpoints/{n}") == value for n, value in before.items()))
            put(self, name, data)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "put", seen)
            _save(folder, 1, seed=7)
        assert sizes == [True]
    assert {name.partition("/")[0] for name in _names(url) if "/" in name} == {"step_00000001-2"}
    with machine() as folder:
        assert _same(_loaded(folder)[1], _weights(_state(7)))


def test_the_last_ones_are_kept_and_the_chosen_one(machine: Machine, url: str) -> None:
    with machine() as folder:
        for step in range(1, 5):
            _save(folder, step)
            if step == 2:
                Checkpoints(folder, 2, ALONE).choose(2)
    assert sorted({name[13:] for name in _names(url)}) == [".json", "/.metadata", "/__0_0.distcp", "/progress.json"]
    assert {name[:13] for name in _names(url)} == {f"step_{step:08d}" for step in (2, 3, 4)}
    with places.scratch():
        Store(url).put("run.json", b"{}")
        assert json.loads((places.read(url) / "best" / "progress.json").read_text()) == {"step": 2}
        assert places.read(f"{url}/checkpoints/step_00000003").name == "step_00000003"
    with machine() as folder:
        assert _loaded(folder)[0] == 4


@pytest.mark.parametrize("name", ["2/__0_0.distcp", *deep("2.json", "2/.metadata")])
def test_one_that_was_damaged_is_set_aside_for_the_one_before(machine: Machine, url: str, name: str) -> None:
    with machine() as folder:
        _save(folder, 1)
        _save(folder, 2)
    if name.endswith(".json"):
        Store(url).put(f"checkpoints/step_0000000{name}", b"{")
    else:
        _overwrite(url, f"checkpoints/step_0000000{name}")
    with machine() as folder:
        checkpoints = Checkpoints(folder, 2, ALONE)
        found = checkpoints.latest()
        assert found.path is not None
        assert found.path.name == "step_00000001"
        assert "step_00000002 is not whole: " in found.told
        checkpoints.set_aside(found)
        _save(folder, 2)
    assert "step_00000002.damaged.json" in _names(url)
    assert "step_00000002/__0_0.distcp" in _names(url), "what is damaged is for a person to look at"
    with machine() as folder:
        assert _loaded(folder)[0] == 2


def test_a_machine_finds_the_logs_and_puts_what_changes(machine: Machine, url: str) -> None:
    with machine() as folder:
        (folder / "metrics.jsonl").write_text("one\n")
        (folder / "half.part").write_text("half")
        _save(folder, 1)
        assert Store(url).get("metrics.jsonl") == b"one\n", "with the checkpoint, not only at the end"
        (folder / "pictures").mkdir()
        (folder / "pictures" / "a.png").write_bytes(b"png")
    with machine() as folder:
        assert (folder / "metrics.jsonl").read_text() == "one\n"
        (folder / "metrics.jsonl").write_text("one\ntwo\n")
    assert sorted(_names(url, "pictures")) == ["pictures/a.png"]
    assert Store(url).get("metrics.jsonl") == b"one\ntwo\n"
    assert not [name for name in _names(url, "") if "running" in name or "part" in name]


def test_two_trainings_in_one_prefix_are_one_too_many(machine: Machine, url: str) -> None:
    with machine() as folder:
        _save(folder, 1)
        raised: list[BaseException] = []

        def second() -> None:
            own = lease.Lease(places.bucket(folder) or pytest.fail("no bucket"))
            try:
                own.take(lambda said: None)
            except TrainingError as error:
                raised.append(error)

        other = threading.Thread(target=second)
        other.start()
        other.join()
    assert "another training is running" in str(raised[0])
    assert url in str(raised[0])


def test_a_killed_holder_is_replaced_after_a_wait_and_can_finish_no_checkpoint(machine: Machine, url: str) -> None:
    said: list[str] = []
    with machine() as folder:
        _save(folder, 1)
        killed = mirror.of(folder)
        killed._end.set()  # it renews no more, as a process that is frozen
        killed._thread.join()
        running = Store(url).get(".running.json")
        with _elsewhere(), machine(said.append) as other:
            assert _loaded(other)[0] == 1
            assert Store(url).get(".running.json") != running
            with pytest.raises(TrainingError, match="has taken over"):
                killed.check()
        Store(url).put(".running.json", json.dumps({"token": "of another", "host": "h", "since": "s"}).encode())
        with pytest.raises((TrainingError, StorageError), match="has taken over"):
            _save(folder, 2)
    assert "waiting for up to" in said[0]
    assert "step_00000002.json" not in _names(url)
    assert json.loads(Store(url).get(".running.json"))["token"] == "of another", "nobody lets go of what is another's"
