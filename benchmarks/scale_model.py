"""A paper model of hours, bytes and dollars for more images on more machines, made of measured rows, checked on others.

Build: start + mpx * c / workers seconds. c: CPU seconds a megapixel of the build with one worker; start: what that run
took beyond its CPU time.

Loader: the lesser of workers / (d + r) and the wire's bytes / bytes an image, in images a second. d: CPU seconds an
image of the loader that reads from a local disk; r: those that reading alone takes from the bucket or mount, with the
other end's work where that runs on the same machine.
"""

from typing import Any

Record = dict[str, Any]
IMAGES, MACHINES = (640_000, 100_000_000), (1, 8, 64)
CORES = 32  # of a machine
DOLLARS_A_GB = 0.09  # list price of egress from object storage to the internet; inside a region it is free
MPX_AN_IMAGE = 3.23  # mean of the published sizes
EPOCHS = 10
TASKS = ("full", "224")


def model(builds: list[Record], loader: Record, wire_bits: float = 1e9) -> Record:
    """Extrapolate to millions of images.

    Parameters
    ----------
    builds
        Rows of `scale`, the first with one worker.
    loader
        Figures of `loader`.
    wire_bits
        bit/s of its NAS.
    """
    one = builds[0]
    a_mpx = one["cpu_s"]["median"] / one["mpx"]
    start = max(one["seconds"]["median"] - one["cpu_s"]["median"], 0.0)
    costs = _Costs(loader)
    checks = [
        _check(f"build on {b['workers']}, seconds", start + b["mpx"] * a_mpx / b["workers"], b["seconds"]["median"])
        for b in builds[1:]
    ]
    for source, bits in (("s3", float("inf")), ("nas", wire_bits)):
        for task in TASKS:
            predicted = min(
                costs.cores / (costs.loading(task) + costs.reading(source, task, "machine_cpu_s")),
                bits / 8 / costs.bytes(source, task),
            )
            checks.append(_check(f"loader from {source} at {task}, images/s", predicted, costs.rate(source, task)))
    scale = MPX_AN_IMAGE / costs.mpx
    seconds = {task: scale * (costs.loading(task) + costs.reading("s3", task, "cpu_s")) for task in TASKS}
    size = {task: scale * costs.bytes("s3", task) for task in TASKS}
    return {
        "assumed": {
            "cores_a_machine": CORES,
            "mpx_an_image": MPX_AN_IMAGE,
            "dollars_a_gb": DOLLARS_A_GB,
            "epochs": EPOCHS,
            "decoding": "on the CPU; a GPU that decodes was not measured",
            "storage": "gives what is asked for; no wire is counted",
        },
        "cpu_s_a_mpx": a_mpx,
        "cpu_s_an_image": seconds,
        "bytes_an_image": size,
        "checks": checks,
        "hours": [_hours(n, m, a_mpx, seconds) for n in IMAGES for m in MACHINES],
        "egress": [_egress(n, size) for n in IMAGES],
    }


class _Costs:
    """What an image costs, in the loader benchmark's medians."""

    def __init__(self, loader: Record) -> None:
        facts = loader["conditions"]
        self._rows, self._images = loader["summary"]["rows"], facts["images"]
        self.cores, self.mpx = int(facts["workers"]), facts["mpx"] / facts["images"]

    def loading(self, task: str) -> float:
        """Return CPU seconds of loading an image from a local disk."""
        return float(self._row("shardkit", "disk", task)["cpu_s"]["median"] / self._images)

    def reading(self, source: str, task: str, figure: str) -> float:
        """Return CPU seconds of reading alone: this process's, or with machine_cpu_s all that it set to work."""
        return float(self._row("read", source, task)[figure]["median"] / self._images)

    def bytes(self, source: str, task: str) -> float:
        """Return the bytes read of an image."""
        row = self._row("read", source, task)
        return float(row["read_mb_s"]["median"] * 1e6 * row["seconds"]["median"] / self._images)

    def rate(self, source: str, task: str) -> float:
        """Return the measured images a second of the loader."""
        return float(self._row("shardkit", source, task)["samples_s"]["median"])

    def _row(self, program: str, source: str, task: str) -> Record:
        wanted = (program, "", source, task)
        return next(r for r in self._rows if (r["program"], r["variant"], r["source"], r["task"]) == wanted)


def _check(what: str, predicted: float, measured: float) -> Record:
    return {"what": what, "predicted": predicted, "measured": measured, "off": predicted / measured - 1}


def _hours(images: int, machines: int, a_mpx: float, seconds: dict[str, float]) -> Record:
    workers = machines * CORES
    hours = {f"epoch_{task}_h": images * seconds[task] / workers / 3600 for task in TASKS}
    return {"images": images, "machines": machines, "build_h": images * MPX_AN_IMAGE * a_mpx / workers / 3600} | hours


def _egress(images: int, size: dict[str, float]) -> Record:
    """Return what egress costs; cached means that every shard is fetched once, into caches that hold all of them."""
    dollars = {f"run_{task}_dollars": EPOCHS * images * size[task] / 1e9 * DOLLARS_A_GB for task in TASKS}
    terabytes = {f"epoch_{task}_tb": images * size[task] / 1e12 for task in TASKS}
    return {"images": images, "cached_dollars": images * size["full"] / 1e9 * DOLLARS_A_GB} | terabytes | dollars
