"""The loader's batches on the device: those of a CPU, and whole as long as somebody reads them."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_steps import Where, need_dali
from benchmarks.results import Record
from shardkit import Loader
from shardkit.loader.batch import Batch
from trainer.augment import levels
from trainer.recipes.registry import RECIPES

_THESIS, _MEDMAE = (RECIPES[name].config.augment for name in ("thesis-b48-frac", "medmae-s16-nih"))
BATCHINGS = {
    "packed": "packed:level=0,patch=48,per_step=1,tokens={tokens}",
    "packed, content, crop, flip": "packed:content=true,crop=0.8/1.0,flip=0.5,level=1,per_step=1,tokens={many}",
    "binned": "binned:batch_size=4,bins=auto:12,level=1,patch=16,per_step=1",
    "resized": "resized:batch_size=16,crop=0.5/1.0,flip=0.5,level=auto,patch=16,per_step=1,side=224",
    "resized, padded": "resized:batch_size=16,fit=pad,level=1,patch=16,per_step=1,side=224",
    "views": "multiview:batch_size=8,level=auto,patch=16,per_step=1,views=224:crop=0.4/1.0:jitter=0.8:blur=1.0"
    "+224:crop=0.4/1.0:jitter=0.8:blur=0.1:solarise=0.2+96:n=2:crop=0.05/0.4:jitter=0.8:blur=0.5",
}
CHANGED = {"thesis": ("packed", replace(_THESIS, noise=0.0)), "rand": ("resized", _MEDMAE)}
"""Name -> batching, and changes to images; without noise, which is another one on a GPU."""
STAGES = ("wait_s", "fetch_s", "decode_s", "graph_s", "assemble_s")
NEAR = {"packed": 1e-6, "binned": 1e-6, "resized": 2e-3, "views": 4e-3, "thesis": 1e-3, "rand": 5e-3}
"""How far values may differ, in shares of an image's range: rounding, DALI's two resamplers', and torch's.

Of rand, equalised and posterised images have steps, of 1/256 and more, that rounding may cross.
"""


def batches(where: Where) -> Record:
    """Load with the GPU's decoder, and with the CPU's before the GPU's graph; compare both with the CPU alone.

    Returns
    -------
    dict
        rows: of every batching and way, how many batches and values were compared, and how far they were off.
    """
    need_dali()
    ways: dict[str, dict[str, Any]] = {"CPU decoder": {"device": where.device, "decoder": "threads"}}
    ways["device decoder"] = {"device": where.device, "decoder": "dali"}
    rows, wrong = [], []
    changed = {name: (BATCHINGS[of], a.build(levels("minmax"))) for name, (of, a) in CHANGED.items()}
    for name, (text, change) in ({n: (t, None) for n, t in BATCHINGS.items()} | changed).items():
        text = text.format(tokens=23040 if where.on_gpu else 2048, many=65536 if where.on_gpu else 2048)
        count = 2 if where.quick else 4
        try:
            known = [
                b.to("cpu")
                for b in islice(_loader(where, text, device="cpu", decoder="threads", augment=change), count)
            ]
            for way, options in ways.items():
                found = [b.to("cpu") for b in islice(_loader(where, text, augment=change, **options), count)]
                row = {"batching": name, "way": way, **_compared(known, found)}
                rows.append(row)
                if row["others"] or not row["most"] <= NEAR[name.partition(",")[0]]:
                    wrong.append(f"{name}, {way}: off by {row['most']:.3g}, fields that differ: {row['others']}")
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
    return {"rows": rows, "wrong": wrong}


def _loader(where: Where, batching: str, **options: Any) -> Loader:
    return Loader(where.data, batching=batching, split=None, seed=where.seed, normalise="minmax", **options)


def _compared(known: list[Batch], found: list[Batch]) -> Record:
    """Return how far images are off, and which other fields are not equal."""
    off, others, values = 0.0, set[str](), 0
    if len(known) != len(found):
        others.add("number of batches")
    for one, other in zip(known, found, strict=False):
        for name in one.keys():  # noqa: SIM118 - a batch is no mapping
            a, b = one[name], other[name]
            if name == "views":
                a, b = (torch.cat([view.flatten() for view in views]) for views in (a, b))
            if name in ("patches", "images", "views"):
                values += a.numel()
                off = max(off, float((a.double() - b.double()).abs().max())) if a.shape == b.shape else float("inf")
            elif not (torch.equal(a, b) if isinstance(a, Tensor) else a == b):
                others.add(name)
    return {"batches": len(known), "values": values, "most": off, "ulp_of_1": off / 2**-23, "others": sorted(others)}


def speed(where: Where) -> Record:
    """Load epochs with the device's decoder and with threads; the first epoch does not count.

    Returns
    -------
    dict
        rows: of every batching and decoder, images and Mpx a second at the size they were decoded at, and the seconds
        that the stages of the loader took, as its `stats` has them.
    """
    need_dali()
    rows = []
    texts = {name: BATCHINGS[name].format(tokens=23040 if where.on_gpu else 4096) for name in ("packed", "resized")}
    for name, text in texts.items():
        for decoder in ("dali", "threads"):
            loader = _loader(where, text, device=where.device, decoder=decoder, prefetch=2)
            for _ in loader:
                pass
            before, begun, images = loader.stats(), time.monotonic(), 0
            for _ in range(1 if where.quick else 2):
                for batch in loader:
                    images += int((batch.rows >= 0).sum())
            where.wait()
            seconds, after = time.monotonic() - begun, loader.stats()
            stages = {name: after[name] - before[name] for name in STAGES}
            area = after["mpx"] - before["mpx"]
            rates = {"images_s": images / seconds, "mpx_s": area / seconds}
            rows.append(
                {"batching": name, "decoder": decoder, "images": images, "mpx": area, **rates, "stages": stages}
            )
    return {"rows": rows}


def streams(where: Where) -> Record:
    """Read every batch late, behind much other work, and let it go at once: its sum must be that of a quiet reading.

    A batch whose memory is used again, or whose copy is not awaited, has another one.
    """
    need_dali()
    text = BATCHINGS["packed"].format(tokens=23040 if where.on_gpu else 2048)
    count = 6 if where.quick else 20
    quiet = []
    for batch in islice(_loader(where, text, device=where.device), count):
        where.wait()
        quiet.append(_sums(batch))
        where.wait()
    busy, side = [], 8192 if where.on_gpu else 256
    work = torch.rand(side, side, device=where.device)
    for batch in islice(_loader(where, text, device=where.device, prefetch=2), count):
        for _ in range(8):
            work = (work @ work).clamp(-1, 1)
        busy.append(_sums(batch))
        del batch
    where.wait()
    same = [torch.equal(a, b) for a, b in zip(quiet, busy, strict=True)]
    wrong = [] if all(same) else [f"{same.count(False)} of {len(same)} batches were not whole when they were read"]
    return {"batches": len(same), "equal": sum(same), "wrong": wrong}


def _sums(batch: Any) -> Tensor:
    """Return sums of a batch's values, on the device: float64."""
    whole = batch.patches.double().sum(), batch.patches.double().square().sum()
    rest = batch.yx.double().sum(), batch.cu_seqlens.double().sum(), batch.rows.double().sum(), batch.hw.double().sum()
    return torch.stack([*whole, *rest])
