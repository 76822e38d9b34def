"""Shared fixtures: the real DICOM files beside the repository, synthetic files, and one file's way to its verdict."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import functools
import gc
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom.uid as uids
import pytest
from hypothesis import HealthCheck, settings
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import ExplicitVRBigEndian

from shardkit.build.conversion import convert_file
from shardkit.build.converted import Converted
from shardkit.build.scan import Scanned, scan_entry
from shardkit.codecs.placement import Placement
from shardkit.config import Codec, Conversion, DatasetOptions, Rules, RunOptions
from shardkit.sources import image_source
from shardkit.sources.dicom import decoding
from shardkit.sources.dicom.frames import check_structure, frame
from shardkit.sources.dicom.reading import Header, PixelModule, pixel_module, read_header
from shardkit.sources.entries import Entry
from shardkit.synthetic.records import ImageSpec, Patient, Study
from tests.one_process import one_process

# Torch's threads of one worker otherwise spin on the core that the other needs; it reads this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# What a user's shell may hold: a forced colour, their own buckets, a proxy, which servers of tests are not behind.
for variable in [name for name in os.environ if name.startswith(("FORCE_COLOR", "AWS_"))]:
    del os.environ[variable]
for variable in ("no_proxy", "NO_PROXY"):
    os.environ[variable] = ",".join(filter(None, [os.environ.get(variable), "127.0.0.1", "localhost"]))
# A slow or busy machine is no fault of an example.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# python-gdcm is here as a second opinion for the fuzz test, in processes of its own: it aborts on broken streams, and
# pydicom would prefer it to pylibjpeg.
for _syntax in decoding.SUPPORTED:
    if "gdcm" in get_decoder(uids.UID(_syntax)).available_plugins:
        get_decoder(uids.UID(_syntax)).remove_plugin("gdcm")

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "dicom"
LABELLED = REAL.with_name("labelled")
PNGS = {"nih/images": 120, "hannover/png": 243, "nih256/images": 857}  # folders of it, and how many images lie there
EVERY_MODALITY = ("CR", "DX", "MG", "PX", "IO", "RG", "OT", "CT", "XA", "RF", "MR", "NM")


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "fail, instead of skipping, where this machine lacks a program or a right that a test needs"
    parser.addoption("--require-programs", action="store_true", help=text)


def pytest_sessionstart() -> None:
    """Collect no garbage while modules are loaded: they keep what they make."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Let collections of garbage look at what tests make, and not at a million objects of the libraries each time."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="module")
def _garbage() -> Iterator[None]:
    """After each file, collect what its tests left, and set aside what libraries have loaded meanwhile."""
    yield
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests marked `needs` where something is missing. With --require-programs they run, and fail of it."""
    if config.getoption("require_programs"):
        return
    for item in items:
        for mark in item.iter_markers("needs"):
            if reason := _lacking(mark.args, mark.kwargs):
                item.add_marker(pytest.mark.skip(reason=reason))


def _lacking(rights: tuple[str, ...], packages: Mapping[str, str]) -> str:
    """Which of the programs or rights are not here, and what to do; empty if all are."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"  # a user's PATH may lack where servers lie
    if missing := [program for program in packages if not shutil.which(program, path=path)]:
        install = " ".join(dict.fromkeys(packages[program] for program in missing))
        return f"needs {', '.join(missing)}: apt-get install {install}"
    if "/dev/fuse" in rights and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "needs /dev/fuse: load the module fuse"
    return "needs the right to mount: run as root" if "root" in rights and os.geteuid() else ""


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Size as mount(8) takes it -> a new folder that is a disk of its own of that size, gone after the test."""
    places: list[Path] = []

    def mount(size: str) -> Path:
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
            end = pytest.fail if request.config.getoption("require_programs") else pytest.skip
            end("needs the right to mount a small disk: run as root")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Words of a command line of shardkit's -> what it said and its exit code, without a process of its own."""
    from shardkit import cli

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        code = cli.run([str(word) for word in words])
        return subprocess.CompletedProcess(list(map(str, words)), code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def alive() -> Callable[[Iterable[int]], set[int]]:
    """Process ids -> those of them that run. A zombie does not: where nobody collects it, it stays for ever."""

    def runs(pid: int) -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        return False

    return lambda pids: {pid for pid in pids if runs(pid)}


@pytest.fixture(scope="session")
def real_dicom() -> Path:
    """The folder of real and hostile files. Skips only where it is absent; fails when it is incomplete."""
    if not REAL.is_dir() and not (os.environ.get("CI") and REAL.parents[1].is_dir()):
        pytest.skip("no ../shared/data/dicom beside the repository: the real DICOM files are not here")
    listing = REAL / "manifest.csv"
    if not listing.is_file():
        pytest.fail(f"{listing} is missing: the real DICOM files are incomplete")
    with listing.open(newline="") as file:
        missing = [row["file"] for row in csv.DictReader(file) if not (REAL / row["file"]).is_file()]
    if missing:
        pytest.fail(f"real DICOM files are missing: {missing}")
    return REAL


@pytest.fixture(scope="session")
def labelled() -> Path:
    """The folder of real labelled radiographs. Skips only where it is absent; fails when it is incomplete."""
    if not LABELLED.is_dir() and not (os.environ.get("CI") and LABELLED.parents[1].is_dir()):
        pytest.skip("no ../shared/data/labelled beside the repository: the real labelled images are not here")
    for folder, count in PNGS.items():
        assert len(list((LABELLED / folder).glob("*.png"))) == count, f"{LABELLED / folder} is incomplete"
    return LABELLED


@pytest.fixture(scope="session")
def dali_pixels() -> Callable[[list[bytes]], list[npt.NDArray[np.uint16]]]:
    """Decodes streams to (rows, cols) uint16 in one DALI pipeline on the CPU, as a loader without a GPU would."""

    def decode(streams: list[bytes]) -> list[npt.NDArray[np.uint16]]:
        from nvidia.dali import fn, pipeline_def, types

        @pipeline_def(batch_size=len(streams), num_threads=2, device_id=None)  # type: ignore[untyped-decorator]
        def graph() -> Any:
            encoded = fn.external_source(
                source=lambda: [np.frombuffer(s, np.uint8) for s in streams], batch=True, dtype=types.UINT8, ndim=1
            )
            return fn.decoders.image(encoded, device="cpu", output_type=types.GRAY, dtype=types.UINT16)

        pipeline = graph(prefetch_queue_depth=1)
        pipeline.build()
        (out,) = pipeline.run()
        return [np.asarray(out.at(i))[..., 0] for i in range(len(streams))]

    return decode


FORMATS: dict[str, dict[str, Any]] = {"webdataset": {}, "zarr": {"format": "zarr", "codec": "blosc", "levels": 5}}
"""Arguments of a build by the format of its shards."""
LARGE_AND_SMALL = ((64, 72, 8), (640, 500, 12), (2049, 2049, 15), (2304, 2176, 12))
"""Height, width and bits of the images of `large_and_small`."""
DECODERS = {"webdataset": ["threads", "dali"], "zarr": ["threads"]}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests marked `formats` run over shards of every format, with its decoders if they take one; others over tars.

    Names in the mark choose formats. Other formats than tars are deep but in the tests of formats themselves: they
    double the time of all that takes one.
    """
    if "form" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("formats")
    forms = ["webdataset"] if mark is None else list(mark.args or FORMATS)
    if mark is not None and "decoder" in metafunc.fixturenames:
        values = [_of_format(metafunc, form, decoder) for form in forms for decoder in DECODERS[form]]
        metafunc.parametrize(("form", "decoder"), values, indirect=["form"], scope="session")
    else:
        metafunc.parametrize("form", [_of_format(metafunc, f) for f in forms], indirect=True, scope="session")


def _of_format(metafunc: pytest.Metafunc, form: str, *more: str) -> Any:
    plain = form == "webdataset" or "formats" in metafunc.definition.path.parts
    return pytest.param(form, *more, marks=() if plain else pytest.mark.deep)


@pytest.fixture(scope="session")
def form(request: pytest.FixtureRequest) -> str:
    """Name of the format of the shards that the other fixtures make."""
    return str(request.param)


@dataclass(frozen=True)
class Outcome:
    """What the scan, and the conversion where the scan lets a file pass, make of one file."""

    scanned: Scanned
    converted: Converted | None

    @property
    def verdict(self) -> str:
        return self.converted.verdict if self.converted else str(self.scanned.verdict)

    @property
    def reason(self) -> str:
        return self.converted.reason if self.converted else str(self.scanned.reason)

    @property
    def message(self) -> str:
        return str(self.converted.message if self.converted else self.scanned.message)


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Outcome]:
    """bytes -> Outcome, through scan_entry and convert_file (raw codec, every modality, unless told otherwise)."""
    folder = tmp_path_factory.mktemp("judged")

    usual = Rules(modalities=EVERY_MODALITY, max_side=6000)

    def run(data: bytes, rules: Rules = usual, codec: Codec = "raw", name: str = "file", **options: Any) -> Outcome:
        (folder / name).write_bytes(data)
        source = image_source(str(folder))
        entry = Entry(name.encode(), len(data), "file")
        scanned = scan_entry(source, entry, rules)
        if scanned.verdict is not None:
            return Outcome(scanned, None)
        dataset = DatasetOptions(codec=codec, rules=rules, **options)
        spec = Conversion(source=source, out="", dataset=dataset, run=RunOptions())
        placement = Placement(scanned.height, scanned.width, scanned.height, scanned.width)
        return Outcome(scanned, convert_file(spec, entry, placement))

    return run


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Path]:
    """(export, folder, **options of the build) -> folder of the dataset built from it; with `workers`, by processes."""
    from shardkit.build.run import build
    from shardkit.config import BuildConfig

    def make(export: Path, out: Path, **changes: Any) -> Path:
        private = out.with_name(f"{out.name}.private")
        if not private.exists():
            private.mkdir()
            (private / "pseudonym.key").touch(0o600)
            (private / "pseudonym.key").write_bytes(bytes(range(32)))  # the same order of files in every session
        with contextlib.nullcontext() if "workers" in changes else one_process():
            build(BuildConfig.of(str(export), str(out), private, **{"workers": 1, **changes}))
        return out

    return make


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """(name, what fills a new folder) -> the folder, filled once for all tests and workers of a session.

    A fixture that depends on `form` is made anew whenever the format of the tests changes. Tests only read these.
    """
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def fill(name: str, make: Callable[[Path], object]) -> Path:
        place, whole = root / f"kept-{name}", root / f"kept-{name}.whole"
        with (root / f"kept-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not whole.exists():
                shutil.rmtree(place, ignore_errors=True)  # of a worker that failed while it filled it
                place.mkdir()
                make(place)
                whole.touch()
        return place

    return fill


@pytest.fixture(scope="session")
def real_dataset(real_dicom: Path, make_dataset: Callable[..., Path], form: str, kept: Callable[..., Path]) -> Path:
    """The real radiographs, of every modality that has some, as a dataset of several small shards."""
    options = {"modalities": EVERY_MODALITY, "bins": "auto:4", "shard_bytes": 2 << 20, "workers": 1, **FORMATS[form]}
    return kept(f"real-{form}", lambda place: make_dataset(real_dicom, place / "dataset", **options)) / "dataset"


@pytest.fixture(scope="session")
def synthetic(make_dataset: Callable[..., Path], kept: Callable[..., Path]) -> Callable[[str], Path]:
    """Format -> about ninety small synthetic radiographs in some thirty shards."""
    from shardkit.synthetic.export import make_export

    def folder(form: str) -> Path:
        def make(place: Path) -> None:
            make_export(place / "export", 45, seed=3, defects=0.0, scale=0.08)
            options = {"bins": "auto:4", "shard_bytes": 64 << 10, "near_duplicates": "report", **FORMATS[form]}
            make_dataset(place / "export", place / "dataset", **options)

        return kept(f"synthetic-{form}", make) / "dataset"

    return folder


@pytest.fixture(scope="session")
def dataset_folder(synthetic: Callable[[str], Path], form: str) -> Path:
    """The synthetic radiographs, in the format of the tests."""
    return synthetic(form)


@pytest.fixture(scope="session")
def large_and_small(
    image_spec: Callable[..., ImageSpec], make_dataset: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A dataset of radiographs on both sides of 2,048 pixels, of 8 to 15 bits, in tars."""
    from shardkit.synthetic.defects import file_bytes

    place = tmp_path_factory.mktemp("large")
    (place / "export").mkdir()
    for i, (height, width, bits) in enumerate(LARGE_AND_SMALL):
        spec = image_spec(height=height, width=width, bits=bits, seed=(i,), sop_uid=f"1.2.826.0.1.3680043.8.498.9.{i}")
        (place / "export" / f"{i}.dcm").write_bytes(file_bytes(spec))
    return make_dataset(place / "export", place / "dataset", bins="auto:3", near_duplicates="report")


@dataclass(frozen=True)
class Decoded:
    """A real file as far as its stored values."""

    header: Header
    facts: PixelModule
    samples: decoding.Samples
    repairs: tuple[str, ...]

    @property
    def raw(self) -> npt.NDArray[np.integer[Any]]:
        return self.samples.values


@pytest.fixture(scope="session")
def decoded(real_dicom: Path) -> Callable[[str], Decoded]:
    """Name of a real file -> its decoded values, each decoded once a session."""

    @functools.cache
    def load(name: str) -> Decoded:
        data = (real_dicom / name).read_bytes()
        header = read_header(BytesIO(data), len(data))
        facts = pixel_module(header.dataset)
        repairs = header.repairs + check_structure(header, facts)
        stream = frame(header, facts)
        if header.pixels is not None and header.pixels.length is not None:
            big = header.syntax == ExplicitVRBigEndian
            samples = decoding.native(stream, facts.rows, facts.cols, facts.bits_allocated, big)
        else:
            samples = decoding.decode(bytes(stream), header.syntax, header.dataset)
        return Decoded(header, facts, samples, repairs + samples.repairs)

    return load


@pytest.fixture(scope="session")
def image_spec() -> Callable[..., ImageSpec]:
    """Fields -> the spec of a small synthetic file (12-bit CR hand, explicit little endian, unless told otherwise)."""
    person = Patient("QUELLWALDHOFER", "ANNELIESE", "PID48210770001", "19310103", "F")
    study = Study(
        person, "1.2.826.0.1.3680043.8.498.1", "20110902", "ACC551770900001", "Klinikum Nebelwald Nord",
        "NBWRAD77X", "MTRADORN^IRMGARD", "DRSALZBACH^THEOBALD", "pain after fall", "SNR55120984", "folder",
    )  # fmt: skip
    usual: dict[str, Any] = {
        "path": "folder/file.dcm", "study": study, "seed": (5, 7), "region": "hand", "view": "PA",
        "modality": "CR", "height": 96, "width": 80, "bits": 12, "photometric": "MONOCHROME2",
        "syntax": str(uids.ExplicitVRLittleEndian), "sop_uid": "1.2.826.0.1.3680043.8.498.2",
        "series_uid": "1.2.826.0.1.3680043.8.498.3", "number": 1,
    }  # fmt: skip
    return lambda **fields: ImageSpec(**{**usual, **fields})


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """Address of an S3 server in this process, with the environment set to reach it."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    settings = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
    settings |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    yield settings["AWS_ENDPOINT_URL"]
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    server.stop()


@pytest.fixture(scope="session")
def tags() -> Callable[[str], set[str]]:
    """HTML -> the tags in use; fails unless every tag is closed in order."""
    void = {"meta", "img", "br", "rect", "path", "circle"}

    class Balance(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []
            self.seen: set[str] = set()

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.seen.add(tag)
            self.open += [tag] if tag not in void else []

        def handle_endtag(self, tag: str) -> None:
            assert tag in void or self.open.pop() == tag

    def read(html: str) -> set[str]:
        parser = Balance()
        parser.feed(html)
        parser.close()
        assert not parser.open
        return parser.seen

    return read
