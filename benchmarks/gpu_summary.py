"""What `benchmarks gpu-utilization` comes to: medians and spreads, the README's lines, and the plot."""

from __future__ import annotations

from benchmarks.drawing import bars
from benchmarks.results import Record, spread, table
from shardkit.report import Plot

NAMES = ("Fixed", "DBB", "Packed", "Packed + content")
_FAR = 20.0
PARTS = {"model": "model, no loading", "loader": "loader, no model", "joint": "joint"}


def summarise(repeats: list[Record]) -> Record:
    """Return median, least and most of every figure over the repeats; a ratio is one of figures of one repeat."""
    rows = []
    for same in zip(*(repeat["rows"] for repeat in repeats), strict=True):
        facts = {name: same[0][name] for name in ("recipe", "name", "batching", "device", "epoch")}
        parts = {part: _spreads([row[part] for row in same]) for part in PARTS}
        rows.append({**facts, **parts, "joint / limit": spread(row["joint / limit"] for row in same)})
    decode = []
    for same in zip(*(repeat["decode"] for repeat in repeats), strict=True):
        facts = {name: same[0][name] for name in ("device", "bin", "level", "batch")}
        decode.append(facts | {name: spread(row[name] for row in same) for name in ("mpx_s", "images_s")})
    return {"rows": rows, "decode": decode}


def _spreads(records: list[Record]) -> Record:
    """Return the spread of every figure that all of them have."""
    names = [name for name in records[0] if all(record.get(name) is not None for record in records)]
    return {name: spread(record[name] for record in records) for name in names}


def readme(result: Record) -> str:
    """Return this benchmark's lines for benchmarks/README.md; a test holds them equal to the JSON."""
    rows, count, cpu = result["summary"]["rows"], len(result["repeats"]), result["machine"]["cpu"]
    images, cores = rows[0]["epoch"]["images"], result["machine"]["cores"]
    sizes = {row["recipe"]: row["epoch"]["mpx"] / images for row in reversed(rows)}  # the first batching's, uncropped
    means = ", ".join(f"{size:.3g} ({recipe})" for recipe, size in reversed(sizes.items()))
    titles = ["recipe, batching", "model images/s", "loader images/s", "joint images/s", "Mpx/s", "joint / lower limit"]
    titles += ["data wait", "tokens run / own", "TFLOP/s", "MFU / HFU / SM busy", "peak MiB"]
    same = " Resized images are all of one size: there is nothing to batch otherwise."
    return (
        f"GPU: {result['gpu']}. {images:,} images, the same for every batching; Mpx on average as the model sees them:"
        f" {means}; {cores} cores of an {cpu}, medians of {count} repeats. Mpx are the images' own, without padding."
        + (same if any(row["name"] == "Resized" for row in rows) else "")
        + "\n\n"
        + table(titles, map(_cells, rows))
        + _decode(result["summary"]["decode"])
    )


def _cells(row: Record) -> list[str]:
    joint = {name: of["median"] for name, of in row["joint"].items()}
    rates = [f"{row[part]['images_s']['median']:,.1f}" for part in PARTS]
    shares = [f"{joint[name]:.1%}" for name in ("mfu", "hfu", "sm_busy") if name in joint]
    return [
        f"{row['recipe']}, {row['name']}",
        *rates,
        f"{joint['mpx_s']:.3g}",
        f"{row['joint / limit']['median']:.2f}",
        f"{joint['data_wait']:.1%}",
        f"{row['epoch']['slots'] / row['epoch']['tokens']:.2f}",
        f"{joint['tflops']:.3g}",
        " / ".join(shares) or "–",
        f"{joint['peak_mib']:,.0f}",
    ]


def _decode(rows: list[Record]) -> str:
    """Return a table of a GPU's decoder; that of a CPU only tests this, and the loader benchmark has the real one."""
    of_gpu = [row for row in rows if row["device"] != "CPU"]
    if not of_gpu:
        return ""
    cells = [
        (row["bin"], row["level"], row["batch"], *(f"{row[name]['median']:,.0f}" for name in ("mpx_s", "images_s")))
        for row in of_gpu
    ]
    return "\n\n" + table(["bin, decoded alone", "level", "images a batch", "Mpx/s", "images/s"], cells)


def plots(result: Record) -> list[Plot]:
    """Draw a plot a recipe: images/s of the model, the loader and both, by batching."""
    rows = result["summary"]["rows"]
    recipes = list(dict.fromkeys(row["recipe"] for row in rows))
    return [_recipe(recipe, [r for r in rows if r["recipe"] == recipe]) for recipe in recipes]


def _recipe(title: str, rows: list[Record]) -> Plot:
    series = {label: [row[part]["images_s"] for row in rows] for part, label in PARTS.items()}
    found = [spread for of in series.values() for spread in of]
    # On one scale, a loader that is a hundred times faster leaves nothing to see of the rest.
    far = max(of["max"] for of in found) > _FAR * min(of["min"] for of in found)
    unit = "images/s, logarithmic" if far else "images/s"
    words = [[_rates(row[part]) for row in rows] for part in PARTS]
    return bars(title, [row["name"] for row in rows], series, unit=unit, log=far, words=words)


def _rates(part: Record) -> str:
    images, mpx = (part[name]["median"] for name in ("images_s", "mpx_s"))
    return f"{images:,.{0 if images >= 100 else 1}f} ({mpx:.2g} Mpx/s)"
