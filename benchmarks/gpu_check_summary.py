"""What `benchmarks gpu-check` found, in a sentence a step; its lines for the README, and its plot."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from benchmarks.drawing import bars
from benchmarks.gpu_steps import METHODS
from benchmarks.results import Record, spread
from shardkit.report import Plot

OUTCOMES = ("passed", "wrong", "failed", "skipped")


def said(name: str, step: Record) -> str:
    """Return what a step found, or why it did not end well."""
    why = step.get("why", "")
    if why:
        return "; ".join(why) if isinstance(why, list) else str(why)
    own = name in METHODS or name.endswith("steps")
    kind = name if name in _FOUND else "steps" if own else "speed"
    return _FOUND[kind](step["figures"])


def readme(result: Record) -> str:
    """Return this benchmark's lines for benchmarks/README.md; a test holds them equal to the JSON."""
    every = [step.get("data", result["conditions"]["data"]) for step in result["steps"].values()]
    words = [of if isinstance(of, str) else "{studies} synthetic studies at scale {scale}".format(**of) for of in every]
    data = "; ".join(dict.fromkeys(words))
    rows = [(name, step["question"], step["outcome"], said(name, step)) for name, step in result["steps"].items()]
    lines = ["| step | question | outcome | what it found |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return f"GPU: {result['gpu']}; {result['machine']['cores']} cores; {data}.\n\n" + "\n".join(lines)


def plots(result: Record) -> list[Plot]:
    """Return how long the steps took, in the colours of how they ended."""
    found = result["steps"]
    series = {
        outcome: [spread([step["seconds"]]) if step["outcome"] == outcome else None for step in found.values()]
        for outcome in OUTCOMES
        if any(step["outcome"] == outcome for step in found.values())
    }
    return [bars("What the check of a GPU found", list(found), series, unit="seconds that it took")]


# --- a sentence a step


def _driver(of: Record) -> str:
    missing = f"; missing: {', '.join(of['missing'])}" if of["missing"] else ""
    named = {name: of[name] for name in ("driver", "torch", "dali") if name in of}
    return ", ".join(f"{name} {version}" for name, version in named.items()) + missing


def _exact(of: Record) -> str:
    cells = of["cells"]
    depths, levels = sorted({c["bits"] for c in cells}), sorted({c["level"] for c in cells})
    return f"{sum(c['equal'] for c in cells):,} images equal, at {depths} bits and levels {levels}"


def _attention(of: Record) -> str:
    names = ("output", "gradient of q", "gradient of k", "gradient of v")
    worst = max(row[name] for row in of["rows"] for name in names)
    times = ", ".join(f"{row['packed_ms']:.2g} ({row['padded_ms']:.2g}) {row['shape']}" for row in of["rows"])
    return f"relative error {worst:.2g}; ms forward and back, in brackets padded: {times}"


def _batches(of: Record) -> str:
    worst: dict[str, float] = {}
    for row in of["rows"]:
        worst[row["batching"]] = max(worst.get(row["batching"], 0.0), row["most"])
    return "off by " + ", ".join(f"{most:.1g} ({name})" for name, most in worst.items())


def _streams(of: Record) -> str:
    return f"{of['equal']} of {of['batches']} batches were whole"


def _steps(of: Record) -> str:
    waits = sum(of["waits_a_step"].values())
    seconds = median(of["step_seconds"])
    return (
        f"{of['recipe']}: {seconds:.3g} s a step, {of['graphs']} graphs and {of['graphs_later']} later, {waits:g} waits"
    )


def _decode(of: Record) -> str:
    best = max(of["rows"], key=lambda row: float(row["mpx_s"]))
    return f"at most {best['mpx_s']:,.0f} Mpx/s: {best['bin']}, level {best['level']}, {best['batch']} a batch"


def _loader(of: Record) -> str:
    return ", ".join(f"{row['batching']} by {row['decoder']}: {row['mpx_s']:,.0f} Mpx/s" for row in of["rows"])


def _commands(of: Record) -> str:
    return f"{len(of['rows'])} commands, {sum(row['seconds'] for row in of['rows']):.0f} s"


def _speed(of: Record) -> str:
    rates = ", ".join(f"{part} {of[part]['images_s']:,.0f}" for part in ("model", "loader", "joint"))
    mfu = of["joint"].get("mfu")
    by = "; threads decode" if of.get("decoder") == "threads" else ""
    return f"images/s: {rates}" + (f"; MFU {mfu:.1%}" if mfu else "") + by


_FOUND: dict[str, Callable[[Record], str]] = {
    "driver": _driver,
    "exact": _exact,
    "attention": _attention,
    "batches": _batches,
    "streams": _streams,
    "steps": _steps,
    "decode": _decode,
    "loader": _loader,
    "commands": _commands,
    "speed": _speed,
}
