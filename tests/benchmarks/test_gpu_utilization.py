"""The GPU benchmark measures the trainer with every batching over the same images; here its harness, on a CPU."""

import json
import platform
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import gpu_utilization
from benchmarks.gpu_sampler import Sampler, watching
from benchmarks.gpu_summary import NAMES, PARTS, summarise
from shardkit import from_text
from trainer.recipes.registry import RECIPES

pytestmark = pytest.mark.deep  # whole benchmarks: half a minute and more


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one repeat."""
    place = tmp_path_factory.mktemp("benchmark") / "gpu-utilization.json"
    gpu_utilization.run(studies=8, scale=0.15, tokens=128, repeats=1, device="cpu", out=place)
    return place


@pytest.fixture(scope="module")
def result(out: Path) -> dict[str, Any]:
    return dict(json.loads(out.read_text()))


@pytest.fixture(scope="module")
def rows(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    (repeat,) = result["repeats"]
    return {row["name"]: row for row in repeat["rows"]}


def test_all_batchings_of_the_smallest_recipe_ran_over_the_same_images(rows: dict[str, dict[str, Any]]) -> None:
    assert tuple(rows) == NAMES
    assert len({row["epoch"]["images"] for row in rows.values()}) == 1
    for row in rows.values():
        assert [row[part]["images"] for part in PARTS] == [row["epoch"]["images"]] * len(PARTS)
        assert row["recipe"] == "tiny"


def test_batchings_differ_in_padding_and_only_content_shows_fewer_pixels(rows: dict[str, dict[str, Any]]) -> None:
    epochs = {name: row["epoch"] for name, row in rows.items()}
    assert epochs["Fixed"]["mpx"] == epochs["DBB"]["mpx"] == epochs["Packed"]["mpx"] > epochs["Packed + content"]["mpx"]
    assert epochs["Fixed"]["slots"] > epochs["Packed"]["slots"] >= epochs["Packed"]["tokens"]
    useful = {name: row["joint"]["flops"] for name, row in rows.items()}
    assert useful["Fixed"] == pytest.approx(useful["Packed"])
    assert rows["Fixed"]["joint"]["padded_flops"] > rows["Packed"]["joint"]["padded_flops"]


def test_the_model_s_limit_is_of_the_very_work_that_the_joint_run_does(rows: dict[str, dict[str, Any]]) -> None:
    for row in rows.values():
        for name in ("tokens", "slots", "flops", "padded_flops"):
            assert row["model"][name] == row["joint"][name]
        assert row["joint"]["tokens"] == row["epoch"]["tokens"]
        assert row["joint"]["skipped"] == 0


def test_rates_follow_from_the_raw_figures(rows: dict[str, dict[str, Any]]) -> None:
    for row in rows.values():
        epoch = row["epoch"]
        for part in PARTS:
            raw = row[part]
            assert raw["images_s"] == pytest.approx(raw["images"] / raw["seconds"])
            assert raw["mpx_s"] == pytest.approx(epoch["mpx"] / raw["seconds"])
            assert raw["tokens_s"] == pytest.approx(epoch["tokens"] / raw["seconds"])
        joint = row["joint"]
        assert joint["tflops"] == pytest.approx(joint["flops"] / joint["seconds"] / 1e12)
        assert joint["tflops_run"] == pytest.approx(joint["padded_flops"] / joint["seconds"] / 1e12)
        assert joint["data_wait"] == pytest.approx(joint["wait"] / joint["seconds"])
        assert 0 < joint["first_wait"] <= joint["wait"] <= joint["seconds"]
        assert joint["mfu"] is joint["hfu"] is None  # of a CPU nobody knows the peak
        assert joint["peak_mib"] > 0
        limit = min(row["model"]["images_s"], row["loader"]["images_s"])
        assert row["joint / limit"] == pytest.approx(joint["images_s"] / limit)


def test_the_decoder_is_measured_by_bin_level_and_images_a_batch(result: dict[str, Any]) -> None:
    cells = result["repeats"][0]["decode"]
    assert {(row["level"], row["batch"]) for row in cells} == {(0, 1), (0, 8), (3, 1), (3, 8)}
    for row in cells:
        assert row["mpx_s"] == pytest.approx(row["mpx"] / row["seconds"])
        assert row["images_s"] == pytest.approx(row["images"] / row["seconds"])


def test_a_summary_is_the_median_and_spread_of_the_repeats(result: dict[str, Any]) -> None:
    (repeat,) = result["repeats"]
    slow = json.loads(json.dumps(repeat))
    for row in slow["rows"]:
        row["joint"]["images_s"] *= 0.5
    summary = summarise([repeat, slow, repeat])
    for row, of in zip(repeat["rows"], summary["rows"], strict=True):
        whole = row["joint"]["images_s"]
        assert of["joint"]["images_s"] == {"median": whole, "min": 0.5 * whole, "max": whole}
        assert "mfu" not in of["joint"]


def test_without_a_gpu_the_figures_and_the_readme_say_so(result: dict[str, Any]) -> None:
    text = gpu_utilization.readme(result)
    assert "no claim about a GPU" in result["gpu"]
    assert result["gpu"] in text
    assert {row["device"] for row in result["summary"]["rows"]} == {"CPU"}
    assert "Mpx/s" in text
    assert all(f"tiny, {name}" in text for name in NAMES)


def test_a_plot_lies_beside_the_figures(out: Path) -> None:
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_no_path_and_no_host_is_in_the_figures(out: Path) -> None:
    text = out.read_text()
    assert "/tmp" not in text
    assert str(Path.cwd()) not in text
    assert platform.node() not in text


def test_batchings_have_as_many_tokens_at_most_and_a_recipe_that_resizes_runs_as_it_is() -> None:
    thesis, medmae = (from_text(RECIPES[name].config.loader.batching) for name in ("thesis-b48", "medmae-s16"))
    found = gpu_utilization.batchings(thesis, side=3050, tokens=None)
    assert str(found["Fixed"]) == "fixed:patch=48,per_step=64,side=3072,batch_size=5"
    assert str(found["DBB"]) == "binned:patch=48,per_step=64,tokens=23040,group=1"
    assert found["Packed"] == thesis
    assert found["Packed + content"] == replace(thesis, content=True)
    assert gpu_utilization.batchings(medmae, side=3050, tokens=None) == {"Resized": medmae}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--device cpu"):
        gpu_utilization.run(device="cuda", out=tmp_path / "none.json")


# --- NVML


class Nvml:
    """Utilisation rises by 10 % a sample."""

    def __init__(self) -> None:
        self.asked = 0
        self.nvmlDeviceGetUtilizationRates, self.nvmlDeviceGetMemoryInfo = self._rates, self._memory

    def _rates(self, handle: str) -> SimpleNamespace:
        assert handle == "first"
        self.asked += 1
        return SimpleNamespace(gpu=10 * self.asked, memory=self.asked)

    def _memory(self, handle: str) -> SimpleNamespace:
        assert handle == "first"
        return SimpleNamespace(used=self.asked << 20)


def test_samples_of_a_time_become_means_and_a_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu_sampler.EVERY", 0.01)
    nvml = Nvml()
    sampler = Sampler(nvml, "first")
    begin = time.monotonic()
    sampler.start()
    while nvml.asked < 4:
        time.sleep(0.005)
    sampler.stop()
    count, end = nvml.asked, time.monotonic()
    assert sampler.between(begin, end) == {
        "nvml_samples": count,
        "sm_busy": pytest.approx((count + 1) / 2 / 10),
        "memory_busy": pytest.approx((count + 1) / 2 / 100),
        "nvml_peak_mib": count,
    }
    assert sampler.between(end, end + 1) == {"nvml_samples": 0}
    assert not sampler.is_alive()


def test_a_cpu_is_not_sampled() -> None:
    with watching(torch.device("cpu")) as sampler:
        assert sampler is None
