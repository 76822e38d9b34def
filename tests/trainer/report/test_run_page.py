"""The page about a run: its numbers are the log's, and nothing in the folder can break it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from shardkit.errors import ArgumentError
from trainer.models.mae import MaeConfig
from trainer.objectives.masked import Masked
from trainer.objectives.pictures import save
from trainer.report import run_page

FACTS: dict[str, Any] = {
    "recipe": "tiny",
    "config": {"model.patch": 8, "optim.lr": 0.004, "optim.betas": [0.9, 0.95], "loader.cache": None},
    "init": None,
    "baseline": {"mean_image": 0.08},
    "data": "s3://store/set",
    "digest": "c05cefb3d3189aeb4c3e3eafed1792a3",
    "parameters": 1_044_352,
    "device": "CPU",
    "world_size": 2,
}

Records = list[dict[str, Any]]
Make = Callable[..., Path]
Tags = Callable[[str], set[str]]


def _records(count: int = 40, **changes: Any) -> Records:
    """A plausible log of every fifth step; the last tenth of its losses is 0.02."""
    losses = [0.9 * 0.9**at for at in range(count)]
    losses[count - count // 10 :] = [0.02] * (count // 10)
    return [
        {
            "step": 5 * (at + 1), "steps": 5 * count, "epoch": at // 10, "loss": loss, "lr": 1e-3 * at / count,
            "images_per_s": 50.0, "tokens_per_s": 10_000.0, "padding": 0.125, "data_wait": 0.04, "tflops": 0.5,
            "mfu": None, "hfu": None, "grad_norm": 1.0 + at % 3, "images": 100.0 * (at + 1), "skipped": 0,
            "seconds": 2.0 * (at + 1), "loss_by_bin": {"0480x0480": loss, "1536x1056": loss * 1.1},
            **changes,
        }
        for at, loss in enumerate(losses)
    ]  # fmt: skip


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """(records, changes of run.json) -> folder of a run."""

    def run(records: Records | None = None, **changes: Any) -> Path:
        lines = [json.dumps(record) + "\n" for record in (_records() if records is None else records)]
        folder = tmp_path / "chest"
        folder.mkdir(exist_ok=True)
        (folder / "metrics.jsonl").write_text("".join(lines))
        (folder / "run.json").write_text(json.dumps(FACTS | changes))
        return folder

    return run


def _page(run: Path) -> str:
    return run_page.write(run).read_text("utf-8")


def _texts(html: str) -> list[str]:
    """What stands between tags, unescaped."""
    return [unescape(part).strip() for part in re.split(r"<[^>]*>", html) if part.strip()]


def _drawings(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html, re.S)]


def _thick(svg: ElementTree.Element) -> list[str]:
    """The paths of the lines in front."""
    kinds = [(group.get("class", "").split(), group) for group in svg.iter("g")]
    return [group[0].attrib["d"] for kind, group in kinds if "thick" in kind and "above" not in kind]


def test_the_page_is_well_formed_and_needs_nothing_but_itself(make: Make, tags: Tags) -> None:
    run = make()
    save(np.zeros((8, 8), np.uint8), run / "pictures" / "step_00000200.png")
    html = _page(run)
    assert not tags(html) & {"script", "link", "iframe", "object", "base"}
    assert not re.search(r"https?://|@import|url\(", html)
    assert all(link.startswith("#") for link in re.findall(r"href=[\"']?([^\"' >]*)", html))
    sources = re.findall(r"src=[\"']?([^\"' >]*)", html)
    assert len(sources) == 1
    assert sources[0].startswith("data:image/png;base64,")
    assert len(_drawings(html)) == 6
    assert not list(run.glob("*.part"))


def test_what_the_folder_says_is_shown_and_never_obeyed(make: Make, tags: Tags) -> None:
    hostile = "<script>alert('x')</script>\"&"
    named = {hostile: 1.0}
    html = _page(
        make(
            _records(loss_by_bin=named),
            recipe=hostile, device=hostile, data=hostile, digest=hostile, config={hostile: hostile},
        )
    )  # fmt: skip
    assert "script" not in tags(html)
    assert hostile in " ".join(_texts(html))


def test_the_headline_gives_the_numbers_of_the_log(make: Make) -> None:
    shown = " ".join(_texts(_page(make())))
    assert "tiny" in shown
    assert "0.0200" in shown
    assert "25 % of the mean" in shown
    assert "0.0800" in shown
    assert "4,000" in shown, "images"
    assert "50.0" in shown, "images a second"
    assert "12.5 %" in shown, "padding"
    assert re.search(r"\b4(\.0)? %", shown), "data wait"
    assert "not known for this device" in shown
    assert "c05cefb3d318" in shown


def test_the_share_of_the_peak_is_shown_where_it_is_known(make: Make) -> None:
    shown = " ".join(_texts(_page(make(_records(mfu=0.382, hfu=0.41)))))
    assert "38.2 %" in shown
    assert "HFU 41.0 %" in shown
    assert "HFU: all that are run, padding and filler too" in shown
    assert "not known" not in shown


def test_a_run_without_baseline_has_no_level_and_no_share_of_it(make: Make) -> None:
    dashed = '<g class="level"'
    with_one, without = _page(make()), _page(make(baseline=None))
    assert with_one.count(dashed) == 1
    assert without.count(dashed) == 0
    assert "% of the mean" not in without
    assert "Mean-image baseline" in with_one
    assert "aseline" not in without, "most objectives have none that could have been measured"


def test_the_last_loss_is_the_mean_of_the_finite_ones_in_the_last_tenth() -> None:
    records = _records(40)
    assert run_page.last_loss(records) == pytest.approx(0.02)
    records[-1]["loss"], records[-2]["loss"] = None, 0.05
    assert run_page.last_loss(records) == pytest.approx(0.03)
    assert run_page.last_loss([{**records[0], "loss": None}]) is None
    assert run_page.last_loss(records[:1]) == 0.9


def test_a_loss_that_is_not_finite_is_a_gap_in_the_line(make: Make) -> None:
    records = _records()
    whole = _drawings(_page(make(records)))[0]
    records[10]["loss"] = records[20]["loss"] = None
    broken = _drawings(_page(make(records)))[0]
    assert [path.count("M") for path in _thick(whole)] == [1]
    assert [path.count("M") for path in _thick(broken)] == [3]


def test_a_run_whose_every_loss_is_not_finite_still_has_a_page(make: Make, tags: Tags) -> None:
    html = _page(make(_records(loss=None, grad_norm=None, loss_by_bin={}, skipped=40)))
    assert "nan" not in " ".join(_texts(html)).lower().split()
    tags(html)


def test_a_log_of_a_single_line_has_a_page_with_dots(make: Make) -> None:
    html = _page(make(_records(1)))
    assert "NaN" not in html
    assert "nan" not in "".join(_thick(_drawings(html)[0]))
    assert all(re.fullmatch(r"M([\d.]+ [\d.]+)L\1", _thick(svg)[0]) for svg in _drawings(html)), "M alone draws nothing"


def test_a_line_that_a_crash_cut_off_is_left_out(make: Make) -> None:
    run = make(_records(20))
    before = _page(run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(_records(21)[-1])[:150])
    assert _page(run) == before


def test_the_title_names_the_run_and_its_recipe(make: Make) -> None:
    html = _page(make())
    assert "<title>chest: training run of tiny</title>" in html
    assert "<h1>chest: tiny</h1>" in html


def test_a_loss_above_its_baseline_is_in_the_colour_of_a_warning(make: Make) -> None:
    def warned(html: str) -> tuple[str, list[str]]:
        paths = [g[0] for g in _drawings(html)[0].iter("g") if "above" in g.get("class", "")]
        assert all("var(--red)" in path.attrib["style"] for path in paths)
        (tile,) = re.findall(r'<div class="(tile[^"]*)"><span class="name">Loss<', html)
        return tile, [path.attrib["d"] for path in paths]

    tile, (start,) = warned(_page(make()))
    assert tile == "tile"
    (whole,) = _thick(_drawings(_page(make()))[0])
    assert whole.startswith(start), "it began above"
    assert len(start) < len(whole)
    html = _page(make(_records(loss=0.5)))
    tile, (all_of_it,) = warned(html)
    assert tile == "tile alert"
    assert all_of_it == _thick(_drawings(html)[0])[0]
    assert "0.5000 against 0.0800 of the mean image: so far the model is worse than none" in html
    tile, none = warned(_page(make(_records(loss=0.01))))
    assert (tile, none) == ("tile", [])


def test_what_an_objective_says_of_its_loss_and_pictures_stands_on_the_page(make: Make) -> None:
    run = make(
        objective={"loss": "Grey levels, <squared>.", "picture": "Left is right."}, baseline={"prior_guess": 0.1}
    )
    save(np.zeros((4, 4), np.uint8), run / "pictures" / "step_00000100.png")
    shown = _texts(_page(run))
    assert "Grey levels, <squared>." in shown
    assert "Left is right." in shown
    assert "Prior-guess baseline" in shown
    assert not any("idden patches" in words or "mean image" in words for words in shown)


def test_the_bins_with_the_highest_and_the_lowest_last_loss_stand_out(make: Make) -> None:
    html = _page(make(_records(loss_by_bin={f"{100 * n:04}x0480": 0.1 * n for n in range(1, 8)})))
    drawn = {group.get("class", "").split()[1]: group[0].attrib["style"]
             for group in _drawings(html)[-1].iter("g") if "thick" in group.get("class", "")}  # fmt: skip
    colours = {name: re.findall(r"stroke:var\(--(\w+)\)", style)[0] for name, style in drawn.items()}
    assert colours == {"bin0": "blue", "bin6": "amber", **{f"bin{at}": "pale" for at in range(1, 6)}}
    shown = _texts(html)
    assert {"highest last loss: 700 × 480", "lowest last loss: 100 × 480"} <= {*shown}


def test_bins_have_curves_up_to_twelve_by_number_of_lines(make: Make) -> None:
    records = _records(40)
    for at, record in enumerate(records):
        record["loss_by_bin"] = {f"{100 * n:04}x0480": 0.1 * n for n in range(1, 21) if at % n == 0 and n != 3}
    html = _page(make(records))
    assert len(_thick(_drawings(html)[-1])) == 12
    shown = " ".join(_texts(html[html.index("<h2>Loss by bin") :]))
    named = {int(height.replace(",", "")) // 100 for height in re.findall(r"([\d,]+) ?[x×] ?0?480\b", shown)}
    assert named == {1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}


def test_the_configuration_is_a_table_of_dotted_names(make: Make) -> None:
    html = _page(make())
    shown = _texts(html[html.index("<h2>Configuration") :])
    options = {name.lstrip("-"): value for name, value in pairwise(shown)}
    assert options["model.patch"] == "8"
    assert options["optim.lr"] == "0.004"
    assert "0.9, 0.95" in options["optim.betas"]


def test_the_last_picture_is_shown_and_earlier_ones_fold_out_evenly(make: Make) -> None:
    run = make()
    for step in range(100, 2100, 100):
        save(np.full((4, 4), step // 100, np.uint8), run / "pictures" / f"step_{step:08d}.png")
    html = _page(run)
    large, _, folded = html.partition("<details>")
    assert re.findall(r'alt="step (\d+): ', large) == ["2000"]
    steps = [int(step) for step in re.findall(r'alt="step (\d+): ', folded)]
    assert 5 <= len(steps) <= 6
    assert (steps[0], steps[-1]) == (100, 1900)
    assert np.diff(steps).max() - np.diff(steps).min() <= 100
    held = re.search(r'alt="step 2000: [^"]*" src="data:image/png;base64,([^"]*)"', large)
    assert held is not None
    assert base64.b64decode(held[1]) == (run / "pictures" / "step_00002000.png").read_bytes()


def test_a_run_without_pictures_has_no_place_for_them(make: Make) -> None:
    html = _page(make())
    assert "<img" not in html
    assert "<details" not in html


@pytest.mark.parametrize("missing", ["run.json", "metrics.jsonl"])
def test_a_folder_that_holds_no_run_is_named_with_a_remedy(make: Make, missing: str) -> None:
    run = make()
    (run / missing).unlink()
    with pytest.raises(ArgumentError, match=re.escape(str(run))) as told:
        run_page.write(run)
    assert ":" in str(told.value).removeprefix(str(run))
    assert not (run / run_page.NAME).exists()


def test_a_log_without_a_whole_line_is_an_error(make: Make) -> None:
    run = make([])
    (run / "metrics.jsonl").write_text('{"step": 5, "st')
    with pytest.raises(ArgumentError, match=re.escape(str(run))):
        run_page.write(run)


@pytest.mark.parametrize("content", ["", '{"recipe": "ti', "[]", '{"recipe": "tiny"}'])
def test_a_broken_description_is_named_with_a_remedy(make: Make, content: str) -> None:
    run = make()
    (run / "run.json").write_text(content)
    with pytest.raises(ArgumentError, match=r"run\.json does not describe a run: .*restore"):
        run_page.write(run)


def test_a_nested_configuration_gets_dotted_names_too(make: Make) -> None:
    flat = make()
    one = _page(flat)
    nested = {"model": {"patch": 8}, "optim": {"lr": 0.004, "betas": [0.9, 0.95]}, "loader": {"cache": None}}
    assert _page(make(config=nested)) == one


def test_values_known_for_part_of_the_log_are_means_of_that_part(make: Make) -> None:
    records = _records()
    for record in records[-3:]:
        record["mfu"] = 0.25
    records[-5] |= {"images_per_s": None, "data_wait": None}
    shown = _texts(_page(make(records)))
    assert shown[shown.index("MFU") + 1] == "25.0 %"


def test_what_the_loss_is_taken_over_is_what_the_configuration_says(make: Make) -> None:
    assert "over hidden patches, each" in _page(make())
    assert "over all patches, padding too, each" in _page(make(config={"model.loss": "all"}))
    normalised = _page(make(config={"model.loss": "masked", "model.norm_pix": True}))
    assert "over hidden patches, of patches normalised by their own mean" in normalised


def test_a_page_says_what_pictures_of_a_run_with_norm_pix_are_given_of_the_image_itself(make: Make) -> None:
    run = make(config={"model.norm_pix": True})
    save(np.zeros((4, 4), np.uint8), run / "pictures" / "step_00000100.png")
    assert "its brightness and contrast are given, not predicted" in _page(run)
    assert "in the third. In the fourth" in _page(run)
    config: Any = MaeConfig(patch=8, width=32, depth=1, heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2)
    for norm_pix in (False, True):
        said = Masked(replace(config, norm_pix=norm_pix).build()).picture_meaning
        assert ("given, not predicted" in said) is norm_pix


def test_grey_levels_of_a_mixture_s_members_are_those_that_it_has_of_its_own(make: Make) -> None:
    members = {"one": "zscore", "two": "minmax"}
    trained = [{"name": name, "digest": name, "keys": [], "normalise": how} for name, how in members.items()]
    shown = _texts(_page(make(config={"loader.normalise": "minmax"}, trained=trained)))
    assert shown[shown.index("loader.normalise of one") + 1] == "zscore"
    assert "loader.normalise of two" not in shown


@pytest.mark.deep
def test_twenty_thousand_lines_make_a_page_of_bounded_size_that_keeps_spikes(make: Make) -> None:
    records = _records(1) * 20_000
    for at in range(len(records)):
        records[at] = records[at] | {"step": at, "loss": 30.0 if at == 12_345 else 0.5 + at % 7 / 100}
    html = _page(make(records))
    assert len(html) < 500_000
    thin = next(group[0].attrib["d"] for group in _drawings(html)[0].iter("g") if group.get("class") == "thin")
    heights = [float(point.split()[1]) for point in re.split("[ML]", thin)[1:]]
    assert sum(height < 0.5 * min(sorted(heights)[1:]) for height in heights) == 1


def test_the_learning_rate_has_a_linear_axis_from_zero(make: Make) -> None:
    html = _page(make())
    (path,) = _thick(_drawings(html[html.index("<h3>Learning rate") :])[0])
    heights = np.array([float(point.split()[1]) for point in path.removeprefix("M").split("L")])
    assert np.ptp(np.diff(heights)) <= 0.21
    labels = _drawings(html[html.index("<h3>Learning rate") :])[0].iter("text")
    zero = next(float(label.attrib["y"]) for label in labels if label.text == "0" and "end" in label.attrib["style"])
    assert 2 <= zero - heights[0] <= 5, "it begins at 0, beside whose middle the number stands"


def test_bins_are_sorted_by_area_with_their_last_loss(make: Make) -> None:
    bins = {"0480x3072": 0.3, "1536x0672": 0.2, "0672x0480": 0.1}
    html = _page(make(_records(loss_by_bin=bins)))
    shown = _texts(html[html.index("Bin, height") :])
    start = shown.index("672 × 480")
    assert shown[start : start + 9] == [
        "672 × 480", "40", "0.1000", "1,536 × 672", "40", "0.2000", "480 × 3,072", "40", "0.3000",
    ]  # fmt: skip


def test_a_curve_of_a_rare_bin_goes_on_over_lines_without_it(make: Make) -> None:
    records = _records()
    for at, record in enumerate(records):
        record["loss_by_bin"] = {"0480x0480": None if at == 20 else 0.5} if at % 4 == 0 else {}
    (path,) = _thick(_drawings(_page(make(records)))[-1])
    assert path.count("M") == 2, "a gap where it is not finite, none where it is missing"


def test_skipped_steps_are_pointed_out(make: Make) -> None:
    assert "skipped" not in _page(make())
    assert "1 step was skipped" in _page(make(_records(skipped=1)))
    assert "3 steps were skipped" in _page(make(_records(skipped=3)))
    assert "3 steps changed nothing: no image of their batches counts" in _page(make(_records(uncounted=3)))


def test_names_that_are_no_unicode_do_not_stop_the_page(make: Make) -> None:
    run = make(data="/export/\udcff")
    assert "/export/\\udcff" in _page(run)


def test_other_files_among_the_pictures_are_left_alone(make: Make) -> None:
    run = make()
    save(np.zeros((4, 4), np.uint8), run / "pictures" / "step_00000100.png")
    save(np.zeros((4, 4), np.uint8), run / "pictures" / "step_best.png")
    assert re.findall(r'alt="step ([^":]*)', _page(run)) == ["100"]


def test_a_page_that_cannot_be_written_leaves_the_one_before(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make()
    before = _page(run)

    def full(self: Path, data: bytes) -> None:
        with self.open("wb") as file:
            file.write(data[:100])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        run_page.write(run)
    assert (run / run_page.NAME).read_text("utf-8") == before
