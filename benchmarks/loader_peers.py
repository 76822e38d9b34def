"""How users of other loaders store and load radiographs: datasets written and read with each one's recommended means.

Every peer decodes in `workers` processes of a DataLoader, one thread each, and hands over float32 images in 0..1, cut
off at the sample's stored 0.5th and 99.5th percentiles. This runs in the peers' own environment: what one needs is
imported where it is used.
"""

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Record = dict[str, Any]
Image = Any  # torch.Tensor, float32
SIDE = 224
SHUFFLED = 32  # samples in webdataset's buffer: a small one, in favour of its memory and its first batch
FIELDS = ("image", "key", "low", "high", "bits", "height", "width")  # of a stored sample
CHUNK = 64 << 20  # MosaicML's and LitData's own choice
MODULES = {
    "mosaic": ("streaming", "mosaicml-streaming"),
    "litdata": ("litdata", "litdata"),
    "webdataset": ("webdataset", "webdataset"),
    "dicom": ("pydicom", "pydicom"),
}


def level_of(height: int, width: int) -> int:
    """Return the most halvings that leave both sides at least SIDE: `level="auto"` for the central square."""
    return min(5, max(0, int(math.log2(min(height, width) / SIDE)))) if min(height, width) >= SIDE else 0


# --- pixels: what a worker does with one sample


@dataclass(frozen=True)
class Work:
    """What a worker does with one sample.

    Attributes
    ----------
    variant
        png, htj2k or dicom.
    task
        full (native size) or 224 (central square, resized with antialiasing).
    """

    variant: str
    task: str

    def __call__(self, key: str, data: bytes, facts: Record) -> tuple[str, Image]:
        """Decode a sample; `facts` are its low, high, bits, height and width."""
        import imagecodecs

        from shardkit.codecs import htj2k

        if self.variant == "png":
            pixels = imagecodecs.png_decode(data)  # a tenth faster than cv2.imdecode here
        else:
            level = level_of(facts["height"], facts["width"]) if self.task == str(SIDE) else 0
            pixels = htj2k.decode(bytes(data), level, facts["bits"])
        return key, self._finished(pixels, facts["low"], facts["high"])

    def dicom(self, key: str, data: bytes) -> tuple[str, Image]:
        """Do as the thesis did: pixel_array, MONOCHROME1 inverted, divided by the image's maximum."""
        pixels = self.decoded(data)
        return key, self._finished(pixels, 0, max(int(pixels.max()), 1))

    @staticmethod
    def decoded(data: bytes) -> np.ndarray:
        """Return the stored values of a DICOM file, MONOCHROME1 inverted."""
        import pydicom

        dataset = pydicom.dcmread(io.BytesIO(data))
        pixels = dataset.pixel_array
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            pixels = pixels.max() - pixels
        return np.asarray(pixels)

    def _finished(self, pixels: np.ndarray, low: int, high: int) -> Image:
        if self.task == str(SIDE):
            pixels = resized(pixels)
        return normalised(pixels, low, high)


def resized(pixels: np.ndarray) -> np.ndarray:
    """Resize the central square to SIDE x SIDE pixels, by area; before normalising, which is then nothing."""
    height, width = pixels.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[top : top + side, left : left + side]
    if (cv2 := _cv2()) is not None:
        if square.dtype not in (np.uint8, np.uint16, np.int16):
            square = square.astype(np.float32)
        kind = cv2.INTER_AREA if side >= SIDE else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(square, (SIDE, SIDE), interpolation=kind))
    import torch

    image = torch.from_numpy(square.astype(np.float32))[None, None]
    found = torch.nn.functional.interpolate(image, (SIDE, SIDE), mode="bilinear", antialias=True)
    return np.asarray(found[0, 0])


def normalised(pixels: np.ndarray, low: int, high: int) -> Image:
    """Return float32 (x - low) / (high - low), cut off at 0 and 1, in memory that is shared with the consumer."""
    import torch

    # As torch's own default_collate does in a worker.
    storage: torch.UntypedStorage = torch.UntypedStorage._new_shared(4 * pixels.size)  # type: ignore[no-untyped-call]
    image = torch.empty(0, dtype=torch.float32).set_(storage, 0, pixels.shape, (pixels.shape[1], 1))
    scale = 1.0 / max(high - low, 1)
    if (cv2 := _cv2()) is not None and pixels.dtype in (np.uint8, np.uint16, np.int16, np.float32):
        between = cv2.addWeighted(pixels, scale, pixels, 0.0, -low * scale, dtype=cv2.CV_32F)
    else:
        between = pixels.astype(np.float32)
        between -= low
        between *= scale
    np.clip(between, 0.0, 1.0, out=image.numpy())
    return image


def _cv2() -> Any:
    try:
        import cv2  # type: ignore[import-not-found]
    except ImportError:
        return None
    cv2.setNumThreads(1)  # workers are processes already
    return cv2


def _collate(task: str) -> Callable[[list[tuple[str, Image]]], tuple[list[str], Any]]:
    def collate(samples: list[tuple[str, Image]]) -> tuple[list[str], Any]:
        from torch.utils.data import default_collate

        images = [image for _, image in samples]
        return [key for key, _ in samples], default_collate(images) if task == str(SIDE) else images

    return collate


# --- reading: an iterable of (keys, images) that is ready to be iterated


def batches(job: Record) -> Iterable[tuple[list[str], Any]]:
    """Return an iterable of keys and images that is ready to be iterated.

    Parameters
    ----------
    job
        program, variant, task, place, scratch (a fresh folder), batch, workers; for dicom also files.
    """
    found: Iterable[tuple[list[str], Any]] = READERS[job["program"]](job, Work(job["variant"], job["task"]))
    return found


def _loader(dataset: Any, job: Record, **more: Any) -> Any:
    from torch.utils.data import DataLoader

    import shardkit.codecs.htj2k  # noqa: F401 - imported before the workers are forked

    _cv2()
    return DataLoader(dataset, num_workers=job["workers"], multiprocessing_context="fork", **more)


def _mosaic(job: Record, work: Work) -> Any:
    from streaming import StreamingDataset  # type: ignore[import-not-found]

    class Images(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, at: Any) -> Any:
            row = super().__getitem__(at)
            return work(row["key"], row["image"], row)

    place = job["place"]
    if place["kind"] == "disk":
        where = {"local": place["root"]}
    else:  # a mount, too: copying shards from there is faster than reading samples in place
        where = {"remote": place.get("url") or place["root"], "local": job["scratch"]}
    dataset = Images(**where, shuffle=True, batch_size=job["batch"])
    for stream in dataset.streams:
        stream._downloader.clean_up()  # else forked workers share its S3 connection: wrong bytes, or a minute's hang
    return _loader(dataset, job, batch_size=job["batch"], collate_fn=_collate(job["task"]))


def _litdata(job: Record, work: Work) -> Any:
    from litdata import StreamingDataLoader, StreamingDataset  # type: ignore[import-not-found]
    from litdata.streaming import downloader  # type: ignore[import-not-found]

    import shardkit.codecs.htj2k  # noqa: F401

    class Images(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, at: Any) -> Any:
            row = dict(zip(FIELDS, super().__getitem__(at), strict=True))
            return work(row["key"], row["image"], row)

    _cv2()
    place, more = job["place"], {"cache_dir": job["scratch"]}
    if place["kind"] == "s3":
        downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # there is no other way to a gateway without TLS
        more["storage_options"] = {"endpoint_url": place["endpoint"]}
    # Copying chunks from a mount ("local:") is faster than reading in place, and decoding all of a chunk at once than
    # reading it anew for each sample, which litdata 0.2.76 does with chunks that two workers share.
    url = {"disk": place.get("root"), "mount": f"local:{place.get('root')}", "s3": place.get("url")}[place["kind"]]
    dataset = Images(url, shuffle=True, drop_last=False, batch_decode="all", **more)
    return StreamingDataLoader(
        dataset,
        batch_size=job["batch"],
        num_workers=job["workers"],
        collate_fn=_collate(job["task"]),
        multiprocessing_context="fork",
    )


def _webdataset(job: Record, work: Work) -> Any:
    import webdataset

    name = {"png": "png", "htj2k": "j2c"}[job["variant"]]
    place = job["place"]
    if place["kind"] == "s3":
        urls = [f"pipe:curl -s -f '{_signed(place, file)}'" for file in job["files"]]
    else:
        urls = [f"{place['root']}/{file}" for file in job["files"]]
    dataset = (
        webdataset.WebDataset(urls, shardshuffle=len(urls), empty_check=False)
        .shuffle(SHUFFLED, initial=SHUFFLED // 4)
        .map(lambda row: work(row["__key__"], row[name], json.loads(row["json"])))
        .batched(job["batch"], collation_fn=_collate(job["task"]))
    )
    return _loader(dataset, job, batch_size=None)


def _dicom(job: Record, work: Work) -> Any:
    from torch.utils.data import Dataset

    place, files = job["place"], job["files"]
    client: list[Any] = []  # one a worker: boto3's are not to be carried over a fork

    class Images(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, at: int) -> Any:
            if place["kind"] != "s3":
                return work.dicom(files[at], Path(place["root"], files[at]).read_bytes())
            if not client:
                client.append(_s3(place))
            bucket, _, prefix = place["url"].removeprefix("s3://").partition("/")
            answer = client[0].get_object(Bucket=bucket, Key=f"{prefix}/{files[at]}")
            return work.dicom(files[at], answer["Body"].read())

    import pydicom.pixels  # noqa: F401 - before the fork

    return _loader(Images(), job, batch_size=job["batch"], shuffle=True, collate_fn=_collate(job["task"]))


READERS = {"mosaic": _mosaic, "litdata": _litdata, "webdataset": _webdataset, "dicom": _dicom}


def _s3(place: Record) -> Any:
    import boto3

    return boto3.client("s3", endpoint_url=place["endpoint"])


def _signed(place: Record, file: str) -> str:
    bucket, _, prefix = place["url"].removeprefix("s3://").partition("/")
    words = {"Bucket": bucket, "Key": f"{prefix}/{file}"}
    return str(_s3(place).generate_presigned_url("get_object", Params=words, ExpiresIn=36_000))


# --- writing: the same samples in each peer's format


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
    for variant, folder in out.items():
        Path(folder).mkdir(parents=True)
        WRITERS[program](_rows(samples, encoded[variant], variant), variant, folder, workers, len(samples))


def _rows(samples: list[Record], encoded: str, variant: str) -> Iterator[Record]:
    with Path(encoded).open("rb") as file:
        for sample in samples:
            offset, length = sample["at"][variant]
            file.seek(offset)
            yield {"image": file.read(length)} | {name: sample[name] for name in FIELDS[1:]}


def _write_mosaic(rows: Iterator[Record], variant: str, out: str, workers: int, count: int) -> None:
    from streaming import MDSWriter

    columns = {"image": "bytes", "key": "str", **dict.fromkeys(FIELDS[2:], "int")}
    with MDSWriter(out=out, columns=columns, size_limit=CHUNK) as sink:
        for row in rows:
            sink.write(row)


def _write_litdata(rows: Iterator[Record], variant: str, out: str, workers: int, count: int) -> None:
    """Write files as `litdata.optimize(chunk_bytes="64MB")` makes them, by the writer that it uses.

    A sample is a list: of a dict, litdata 0.2.76 makes Arrow chunks that it cannot read when two workers share one.
    """
    from litdata.streaming.writer import BinaryWriter  # type: ignore[import-not-found]

    sink = BinaryWriter(out, chunk_bytes=CHUNK)
    for number, row in enumerate(rows):
        sink[number] = [row[name] for name in FIELDS]
    sink.done()
    sink.merge()


def _write_webdataset(rows: Iterator[Record], variant: str, out: str, workers: int, count: int) -> None:
    """Write shards of equal counts, a multiple of the workers: no worker has more to do than another."""
    import webdataset

    shards = min(count, workers * math.ceil(8 / workers))
    extension = {"png": "png", "htj2k": "j2c"}[variant]
    with ExitStack() as stack:
        sinks = [stack.enter_context(webdataset.TarWriter(f"{out}/{i:05d}.tar")) for i in range(shards)]
        for number, row in enumerate(rows):
            facts = {name: row[name] for name in FIELDS[2:]}
            sinks[number % shards].write({"__key__": row["key"], extension: row["image"], "json": facts})


WRITERS = {"mosaic": _write_mosaic, "litdata": _write_litdata, "webdataset": _write_webdataset}
