"""What all tests share: the environment, options of pytest, and fixtures; those of files and datasets lie beside."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom.uid as uids
import pytest
from hypothesis import HealthCheck, settings
from pydicom.pixels.decoders.base import get_decoder

from shardkit.sources.dicom import decoding

pytest_plugins = ["tests.real_files", "tests.making"]

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
