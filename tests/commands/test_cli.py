"""The command line: quick help, one sentence for an error, exit codes that scripts can rely on."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from shardkit.dataset import contents
from shardkit.storage import Store
from shardkit.synthetic.export import make_export

ACCEPT = ("--accept-outcome",)
"""Among a few patients, chance may leave no one for the train split."""


Command = Callable[..., subprocess.CompletedProcess[str]]


def _run(*words: object) -> subprocess.CompletedProcess[str]:
    """What a user's shell gets; the fixture `command` asks the same of this process, and loads nothing anew."""
    command = [sys.executable, "-c", "from shardkit.cli import main; main()", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an export of sound files and its dataset, built by the command line."""
    root = tmp_path_factory.mktemp("cli")
    make_export(root / "export", 3, seed=6, defects=0.0, scale=0.06)
    run = _run("build", "--source", root / "export", "--out", root / "out", "--bins", "auto:2", *ACCEPT)
    assert run.returncode == 0, run.stderr
    # Under a random key so few patients may all come into one split.
    assert all(line.startswith("outcome: ") for line in run.stderr.splitlines()), run.stderr
    return root


def _ledger(private: Path) -> list[dict[str, object]]:
    return list(pq.read_table(private / "ledger.parquet").to_pylist())


def test_a_build_begins_without_what_its_children_decode_with() -> None:
    script = (
        "import sys, shardkit.build.run; print(sorted({'numba', 'scipy', 'shardkit.burned_in'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    script = (
        "import sys; from shardkit.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'nvidia.dali', 'distributed', 'dask', 'pyarrow', 'pydicom', 'scipy', 'numpy'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.stdout.splitlines()[-1] == "HEAVY []"
    # Its own work, which other programs on the machine do not lengthen.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    for command in (
        "build",
        "scan",
        "info",
        "label",
        "labels",
        "ledger",
        "verify",
        "preview",
        "overlap",
        "mix",
        "collections",
        "retry",
        "demo",
    ):
        assert command in run.stdout


@pytest.mark.parametrize("module", ["shardkit.build.run", "shardkit.dataset.verify", "shardkit.commands.info"])
def test_a_build_loads_no_gpu_stack(module: str) -> None:
    script = (
        f"import sys, {module}; print(sorted(m for m in ('torch', 'nvidia.dali', 'distributed') if m in sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name",
    [
        "build",
        "retry",
        "transcode",
        "label",
        "labels",
        "unlabel",
        "scan",
        "info",
        "ledger",
        "verify",
        "preview",
        "overlap",
        "plan",
        "replay",
        "mix",
        "collections",
        "demo",
    ],
)
def test_every_command_explains_its_options(name: str, command: Command) -> None:
    run = command(name, "--help")
    assert run.returncode == 0
    assert "Usage: shardkit" in run.stdout


def test_an_unknown_option_or_value_is_bad_usage(place: Path, command: Command) -> None:
    for words in (
        ("build", "--source", place, "--out", place, "--nonsense"),
        ("build", "--source", place, "--out", place, "--codec", "gif"),
        ("build", "--source", place / "export"),
        ("nonsense",),
    ):
        run = command(*words)
        assert run.returncode not in (0, 3), words
        assert "Traceback" not in run.stderr, words


def test_info_tells_what_a_dataset_holds(place: Path) -> None:
    run = _run("info", place / "out")
    assert run.returncode == 0, run.stderr
    facts = contents.description(Store(str(place / "out")))
    assert f"{facts.samples:,} in {facts.shards:,} shards" in run.stdout
    assert "htj2k" in run.stdout


def test_verify_exits_with_1_when_something_is_wrong(place: Path, tmp_path: Path, command: Command) -> None:
    import shutil

    sound = command("verify", place / "out")
    assert (sound.returncode, sound.stderr) == (0, "")
    assert "all sound" in sound.stdout
    shutil.copytree(place / "out", tmp_path / "out")
    row = contents.samples(Store(str(tmp_path / "out"))).to_pylist()[0]
    data = bytearray((tmp_path / "out" / row["shard"]).read_bytes())
    data[row["offset"] + 100] ^= 255
    (tmp_path / "out" / row["shard"]).write_bytes(data)
    broken = command("verify", tmp_path / "out", "--no-decode")
    assert broken.returncode == 1
    assert row["key"] in broken.stderr
    assert ": 1 problem\n" in broken.stdout


@pytest.mark.parametrize("level", [0, 1, 5])
def test_preview_writes_the_level_as_a_picture(place: Path, tmp_path: Path, level: int, command: Command) -> None:
    store = Store(str(place / "out"))
    row = contents.samples(store).to_pylist()[0]
    out = tmp_path / "x.png"
    run = command("preview", row["key"][:24], "--dataset", place / "out", "-o", out, "--level", level)
    assert run.returncode == 0, run.stderr
    pixels = contents.image(store, row, contents.description(store), level).astype(float)
    scaled = np.clip((pixels - row["p0_5"]) * 255 / (row["p99_5"] - row["p0_5"]), 0, 255)
    with Image.open(out) as image:
        assert image.format == "PNG"
        np.testing.assert_allclose(np.asarray(image), scaled, atol=1)


@pytest.mark.deep
def test_preview_refuses_what_is_not_there(place: Path, tmp_path: Path) -> None:
    key = contents.samples(Store(str(place / "out"))).to_pylist()[0]["key"]
    for words in (("nokey",), ("",), (key, "--level", 9), (key, "--level", -1)):
        run = _run("preview", *words, "--dataset", place / "out", "-o", tmp_path / "x.png")
        assert run.returncode == 1, words
        assert run.stderr.startswith("shardkit: ")
    run = _run("preview", key, "--dataset", place / "out", "-o", tmp_path / "no folder" / "x.png")
    assert run.returncode == 1
    assert run.stderr.startswith("shardkit: ")
    assert not list(tmp_path.iterdir())


def test_scan_counts_and_writes_nothing(place: Path, command: Command) -> None:
    before = sorted(place.rglob("*"))
    run = command("scan", "--source", place / "export", "--workers", 1)
    assert run.returncode == 0, run.stderr
    assert "to convert" in run.stdout
    assert sorted(place.rglob("*")) == before
    assert _run("scan", "--source", place / "nowhere").returncode == 1


@pytest.mark.deep
def test_too_many_quarantined_files_are_exit_code_3_and_a_sentence(place: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(place / "export", tmp_path / "export")
    (tmp_path / "export" / "notes.txt").write_text("no image")
    build = "build", "--source", tmp_path / "export", "--out", tmp_path / "out", *ACCEPT
    strict = _run(*build)
    assert strict.returncode == 3
    assert "--max-quarantine" in strict.stderr
    assert (tmp_path / "out" / "dataset.json").exists()
    lenient = _run(*build, "--max-quarantine", 0.9)
    assert lenient.returncode == 0, lenient.stderr
    assert "--max-quarantine" not in lenient.stderr


@pytest.mark.deep
def test_retry_takes_in_files_of_one_class_that_were_mended(place: Path, tmp_path: Path) -> None:
    import shutil

    source = Path(shutil.copytree(place / "export", tmp_path / "export"))
    broken = next(path for path in sorted(source.rglob("*")) if path.is_file())
    whole = broken.read_bytes()
    broken.write_bytes(b"")
    (source / "notes.txt").write_text("no image")
    places = "--source", source, "--out", tmp_path / "out"
    assert _run("build", *places, "--max-quarantine", 0.9, *ACCEPT).returncode == 0
    broken.write_bytes(whole)
    again = _run("retry", "--class", "empty_file", *places, *ACCEPT)
    assert again.returncode == 3, again.stderr  # the notes are still there
    reasons = {row["path"]: row["reason"] for row in _ledger(tmp_path / "out.private")}
    assert reasons.pop("notes.txt") == "not_dicom"
    assert set(reasons.values()) == {"ok"}
    none = _run("retry", "--class", "empty_file", *places)
    assert none.returncode == 1
    assert none.stderr.startswith("shardkit: no file is quarantined as empty_file")
    assert _run("verify", tmp_path / "out").returncode == 0


@pytest.mark.deep
def test_a_command_s_old_name_says_the_new_one() -> None:
    run = _run("convert", "tars", "zarr", "--format", "zarr")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "shardkit: convert is called transcode now: shardkit transcode --help\n"


@pytest.mark.deep
def test_a_dataset_is_built_as_zarr_looked_at_and_converted_back(place: Path, tmp_path: Path) -> None:
    built, back = tmp_path / "zarr", tmp_path / "tars"
    words = "--source", place / "export", "--out", built, "--format", "zarr", "--bins", "auto:2"
    assert _run("build", *words, "--levels", 1, *ACCEPT).returncode == 0
    shown = _run("info", built)
    assert (shown.returncode, "zarr, blosc" in shown.stdout) == (0, True), shown.stderr
    assert _run("retry", "--class", "empty_file", *words[:4]).stderr.startswith("shardkit: no file is quarantined")
    key = contents.samples(Store(str(built))).to_pylist()[0]["key"]
    picture = _run("preview", key, "--dataset", built, "-o", tmp_path / "x.png", "--level", 1)
    assert picture.returncode == 0, picture.stderr
    for _ in range(2):
        done = _run("transcode", built, back, "--format", "webdataset")
        assert done.returncode == 0, done.stderr
    assert "1 of which were there" in done.stdout
    assert _run("verify", back).returncode == 0
    for wrong in (
        ("build", *words),  # without the levels it was begun with
        ("build", *words[:2], "--out", tmp_path / "new", "--format", "zarr", "--codec", "png"),
        ("build", *words[:2], "--out", tmp_path / "new", "--levels", 1),
        ("transcode", built, back, "--format", "zarr"),
        ("transcode", tmp_path / "nowhere", tmp_path / "new", "--format", "zarr"),
    ):
        run = _run(*wrong)
        assert run.returncode == 1, wrong
        assert run.stderr.startswith("shardkit: ")
        assert len(run.stderr.splitlines()) == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.deep
def test_a_dataset_of_before_there_were_formats_or_a_least_content_is_read_and_grows(
    place: Path, tmp_path: Path
) -> None:
    import shutil

    for name in ("export", "out", "out.private"):
        shutil.copytree(place / name, tmp_path / name)
    files = [tmp_path / "out" / "dataset.json", tmp_path / "out.private" / "build.json"]
    for path in files:
        content = json.loads(path.read_text())
        content.pop("shard_format", None)
        for name in ("format", "levels", "min_content"):
            del content["arguments"][name]
        path.write_text(json.dumps(content))
    assert _run("verify", tmp_path / "out").returncode == 0
    (tmp_path / "export" / "notes.txt").write_text("no image")
    words = "--source", tmp_path / "export", "--out", tmp_path / "out", "--bins", "auto:2", "--source-moved"
    again = _run("build", *words, "--max-quarantine", 0.9, *ACCEPT)
    assert again.returncode == 0, again.stderr
    assert "1 new file;" in again.stdout
    assert _run("verify", tmp_path / "out").returncode == 0
    assert "was webdataset, now zarr" in _run("build", *words, "--format", "zarr").stderr


def test_a_dataset_names_its_arguments(place: Path) -> None:
    arguments = json.loads((place / "out" / "dataset.json").read_text())["arguments"]
    assert arguments["bins"] == "auto:2"
    assert arguments["shard_bytes"] == 512 << 20


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("build x --out y", "build takes --source and --out; --source is missing, and has no place for 'x'"),
        ("build --source x --out y --bins", "--bins needs a value"),
        ("build --source x --out y --sourc z", "Did you mean --source?"),
        ("ledger --private x", "ledger takes OUT"),
        ("verify a [/red]b", "verify takes DATASET, and has no place for '[/red]b'"),
        ("demo x", "demo takes options only, and has no place for 'x'"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line_what_the_command_takes(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from shardkit import cli

    assert cli.run(words.split()) == 2
    text = capsys.readouterr().err
    assert said in text
    assert text.startswith("shardkit: ")
    assert text.endswith(f"see shardkit {words.split()[0]} --help\n")
    assert text.count("\n") == 1
