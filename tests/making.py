"""Fixtures of datasets: made once a session, in the format of the tests; and of synthetic files."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom.uid as uids
import pytest

from shardkit.synthetic.records import ImageSpec, Patient, Study
from tests.one_process import one_process
from tests.real_files import EVERY_MODALITY

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
