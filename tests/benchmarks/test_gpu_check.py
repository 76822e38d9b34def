"""The check of a GPU: every step has its say, whatever became of the one before; on a CPU, and with made-up errors."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_check_summary import OUTCOMES, plots, readme, said
from benchmarks.gpu_steps import Skipped, Where, attention, decoding, driver, loading, training
from benchmarks.results import Record
from trainer.models.attention import attend

HERE = Where("cpu", "", quick=True, seed=0)


def works(where: Where) -> Record:
    return {"pid": os.getpid(), "wrong": []}


def errs(where: Where) -> Record:
    return {"a": 1, "wrong": ["a is not 2"]}


def raises(where: Where) -> Record:
    raise RuntimeError("of /some/where/file.so no symbol is known")


def skips(where: Where) -> Record:
    raise Skipped("nothing here")


def dies(where: Where) -> Record:
    os.kill(os.getpid(), signal.SIGSEGV)
    return {}


def names_a_folder(where: Where) -> Record:
    return {"rows": [{"command": "train --data /some/folder/dataset --batching a/b"}], "wrong": []}


def hangs(where: Where) -> Record:
    time.sleep(60)
    return {}


@pytest.mark.deep  # processes that import torch
def test_a_step_that_fails_crashes_or_hangs_hides_none_after_it() -> None:
    worker = gpu_check.Worker()
    steps = (works, works, errs, skips, works, raises, works, dies, works, hangs, works)
    limits = [60.0 if step is not hangs else 1.0 for step in steps]
    found = [worker.done(step, HERE, limit) for step, limit in zip(steps, limits, strict=True)]
    worker.end()
    of = dict(zip((step.__name__ for step in reversed(steps)), reversed(found), strict=True))
    assert [step["outcome"] for step in found].count("passed") == 6
    assert of["errs"]["outcome"] == "wrong"
    assert of["errs"]["why"] == ["a is not 2"]
    assert of["skips"] == {"outcome": "skipped", "why": "nothing here", "seconds": of["skips"]["seconds"]}
    assert of["raises"]["why"] == "RuntimeError: of file.so no symbol is known"  # no folder of a machine
    assert of["dies"]["why"] == f"its process ended with {-signal.SIGSEGV}"
    assert of["hangs"]["why"] == "not done after 1 s"
    pids = [step["figures"]["pid"] for step in found if step["outcome"] == "passed"]
    assert pids[0] == pids[1] == pids[2]  # starting takes longer than most steps
    assert len(set(pids)) == 4  # an error may leave a GPU that nothing runs on any more


@pytest.mark.deep  # half a minute
def test_on_a_cpu_the_steps_pass_and_no_claim_is_made(tmp_path: Path) -> None:
    steps = ["driver", "exact", "attention", "batches", "streams", "steps", "loader", "decode", "thesis-b48, Packed"]
    out = tmp_path / "gpu-check.json"
    gpu_check.run(quick=True, steps=steps, device="cpu", out=out)
    result: dict[str, Any] = json.loads(out.read_text())
    ends = {name: step["outcome"] for name, step in result["steps"].items()}
    assert ends.pop("thesis-b48, Packed") == "skipped"
    assert set(ends.values()) == {"passed"}, result["steps"]
    assert "no claim about a GPU" in result["gpu"]
    assert {"question", "date", "machine", "conditions"} <= set(result)
    assert all(f"| {name} |" in readme(result) for name in steps)
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path) not in out.read_text()
    (row, *_) = result["steps"]["loader"]["figures"]["rows"]
    assert row["mpx_s"] > row["images_s"] * 1e-3


def test_steps_that_are_not_asked_for_keep_their_figures_and_no_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Here(gpu_check.Worker):
        def done(self, function: Any, at: Where, limit: float) -> Record:
            return {"seconds": 0.0, **gpu_check._without_folders(gpu_check._done(function, at))}

    out = tmp_path / "gpu-check.json"
    table = {"driver": gpu_check.Step("?", names_a_folder, 1, 1), "exact": gpu_check.Step("?", works, 1, 1)}
    monkeypatch.setattr(gpu_check, "STEPS", table)
    monkeypatch.setattr(gpu_check, "Worker", Here)
    monkeypatch.setattr(gpu_check, "plots", lambda result: [])
    monkeypatch.setattr(gpu_check, "show", lambda *given: None)
    monkeypatch.setattr(gpu_check, "save", lambda result, out, plots=None: out.write_text(json.dumps(result)))
    for steps in (["driver"], ["exact"]):
        gpu_check.run(steps=steps, device="cpu", data="nowhere", out=out)
    found = json.loads(out.read_text())["steps"]
    assert set(found) == {"driver", "exact"}
    assert found["driver"]["date"]
    assert found["driver"]["figures"]["rows"] == [{"command": "train --data dataset --batching a/b"}]
    gpu_check.run(device="cpu", data="nowhere", out=out)
    assert set(json.loads(out.read_text())["steps"]) == {"driver", "exact"}


def test_the_steps_are_those_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="step exakt is unknown: choose of driver, exact"):
        gpu_check.run(steps=["exakt"], device="cpu", out=Path("nowhere.json"))


@pytest.mark.parametrize("off", [0, 1])
def test_an_image_that_is_off_by_one_grey_level_is_told(off: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Graph:
        def run(self, images: list[Any]) -> list[torch.Tensor]:
            from shardkit.codecs import htj2k

            shown = [htj2k.decode(image.data.tobytes(), 0).astype(np.float32) for image in images]
            return [torch.from_numpy(image + off)[None] for image in shown]

    monkeypatch.setattr(decoding, "_graph", lambda where, batch: Graph())
    monkeypatch.setattr(decoding, "SIDES", ((5, 3), (64, 64)))
    monkeypatch.setattr(decoding, "LEVELS", 0)
    found = decoding.exact(Where("cpu", "", quick=False, seed=0))
    assert bool(found["wrong"]) == bool(off)
    assert all(cell["most"] == off for cell in found["cells"])
    assert sum(cell["equal"] + cell["different"] for cell in found["cells"]) == len(found["cells"]) * 6


def test_attention_that_sees_a_neighbouring_image_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_timed", lambda *given: {})
    assert attention.attention(HERE)["wrong"] == []

    def blurred(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu: torch.Tensor, longest: int) -> torch.Tensor:
        return attend(q, k, v, torch.cat([cu[:1], cu[2:]]), longest)

    monkeypatch.setattr(attention, "attend", blurred)
    assert len(attention.attention(HERE)["wrong"]) == len(attention.SHAPES) * 4


def test_batches_that_differ_are_told_by_value_and_by_field() -> None:
    class Batch(dict[str, torch.Tensor]):
        pass

    one = Batch(patches=torch.zeros(2, 4), rows=torch.tensor([1]))
    same = Batch(patches=torch.zeros(2, 4), rows=torch.tensor([1]))
    other = Batch(patches=torch.full((2, 4), 0.5), rows=torch.tensor([2]))
    assert loading._compared([one], [same]) == {"batches": 1, "values": 8, "most": 0.0, "ulp_of_1": 0.0, "others": []}  # type: ignore[list-item]
    found = loading._compared([one], [other])  # type: ignore[list-item]
    assert (found["most"], found["others"]) == (0.5, ["rows"])
    assert loading._compared([one], [])["others"] == ["number of batches"]  # type: ignore[list-item]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> str:
        raise ImportError("no such library")

    monkeypatch.setattr(driver, "_dali", absent)
    assert "dali: ImportError" in driver.found(HERE)["missing"]


def test_every_way_to_end_has_its_sentence_and_its_bar() -> None:
    steps: Record = {
        name: {"question": "?", "outcome": outcome, "seconds": 1.0, "why": f"{outcome} it is"}
        for name, outcome in zip(gpu_check.STEPS, OUTCOMES, strict=False)
    }
    machine = {"cores": 2}
    result = {"gpu": "some", "conditions": {"data": "a dataset"}, "machine": machine, "steps": steps}
    assert all(f"{outcome} it is" in readme(result) for outcome in OUTCOMES)
    assert len(plots(result)) == 1
    streams = {"outcome": "passed", "figures": {"equal": 5, "batches": 6}}
    assert said("streams", streams) == "5 of 6 batches were whole"


def test_a_recipe_that_is_looked_at_is_one_of_the_device() -> None:
    assert training.TUNED["cpu"] == ("tiny-finetune",)
    with pytest.raises(Skipped, match="no GPU"):
        training.speed(HERE, recipe="thesis-b48", name="Packed")
