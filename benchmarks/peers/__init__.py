"""How users of other loaders store and load radiographs: datasets written and read with each one's recommended means.

Every peer decodes on as many cores, in processes or threads of one thread each as it recommends, and hands over float32
images in 0..1, cut off at the sample's stored 0.5th and 99.5th percentiles. What samples go through is in `work`; a
module a peer reads and writes its format. This runs in the peers' own environment: what one needs is imported where it
is used.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import dicom, lance, litdata, mosaic, spdl, webdataset
from benchmarks.peers.work import FIELDS, Record, Work


@dataclass(frozen=True)
class Peer:
    """Another way to load.

    Attributes
    ----------
    module, distribution
        What it needs: as Python imports it, and as pip installs it.
    read
        Job and work -> an iterable of keys and images that is ready to be iterated. See `batches`.
    write
        Rows (image and FIELDS), variant, folder, workers and number of rows -> files in that folder. None: it reads
        the export itself.
    """

    module: str
    distribution: str
    read: Callable[[Record, Work], Any]
    write: Callable[[Iterator[Record], str, str, int, int], None] | None = None


PEERS = {
    "mosaic": Peer("streaming", "mosaicml-streaming", mosaic.read, mosaic.write),
    "litdata": Peer("litdata", "litdata", litdata.read, litdata.write),
    "webdataset": Peer("webdataset", "webdataset", webdataset.read, webdataset.write),
    "lance": Peer("lancedb", "lancedb", lance.read, lance.write),
    "spdl": Peer("spdl", "spdl-core", spdl.read, spdl.write),
    "dicom": Peer("pydicom", "pydicom", dicom.read),
}


def batches(job: Record) -> Iterable[tuple[list[str], Any]]:
    """Return an iterable of keys and images that is ready to be iterated.

    Parameters
    ----------
    job
        program, variant, task, place, scratch (a fresh folder), batch, workers; for those that are told them, files.
    """
    found: Iterable[tuple[list[str], Any]] = PEERS[job["program"]].read(job, Work(job["variant"], job["task"]))
    return found


def write(program: str, samples: list[Record], encoded: dict[str, str], out: dict[str, str], workers: int) -> None:
    """Write a dataset a variant, in the folder out[variant].

    Parameters
    ----------
    program
        Whose format it is.
    samples
        With key, low, high, bits, height, width, and at[variant] = (offset, length) in the file encoded[variant].
    encoded, out
        File of all images, and folder to write to, by variant.
    workers
        Number of workers that will read it.
    """
    written = PEERS[program].write
    if written is None:
        raise ValueError(f"{program} has no format of its own to write: it reads the export")
    for variant, folder in out.items():
        Path(folder).mkdir(parents=True)
        written(_rows(samples, encoded[variant], variant), variant, folder, workers, len(samples))


def _rows(samples: list[Record], encoded: str, variant: str) -> Iterator[Record]:
    with Path(encoded).open("rb") as file:
        for sample in samples:
            offset, length = sample["at"][variant]
            file.seek(offset)
            yield {"image": file.read(length)} | {name: sample[name] for name in FIELDS[1:]}
