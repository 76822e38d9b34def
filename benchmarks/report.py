"""One self-contained page of all figures, plots drawn anew from them, and the READMEs' tables: all from the JSON."""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path
from types import ModuleType

from benchmarks import headline
from benchmarks.results import FOLDER, ROOT, Record
from shardkit.terminal.output import say

PAGE = "index.html"
TEXTS = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1150px; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
h1 { font-size: 1.6rem; } h2 { margin-top: 3rem; font-size: 1.25rem; } p.facts { color: #59636e; font-size: 13px; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px; font-variant-numeric: tabular-nums; }
div.wide { overflow-x: auto; } img { max-width: 100%; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #d8dee4; text-align: right; }
th:first-child, td:first-child { text-align: left; } nav a { margin-right: 1rem; }
"""


def run(*, folder: Path = FOLDER, texts: tuple[Path, ...] = TEXTS) -> None:
    """Draw the plots, write the page and bring the READMEs' tables up to date, from the JSON that is there.

    Parameters
    ----------
    folder
        Where the figures are; the page is its index.html.
    texts
        Files with `<!-- name -->` and `<!-- /name -->` around a benchmark's lines.
    """
    found = {name: (module, result) for name, module in questions().items() if (result := load(folder, name))}
    for name, (module, result) in found.items():
        module.draw(result).savefig(folder / f"{name}.png", dpi=120)
    (folder / PAGE).write_text(page({name: (m.readme(r), r) for name, (m, r) in found.items()}, folder))
    for path in texts:
        text = path.read_text()
        for name, (module, result) in found.items():
            text = renewed(text, name, module.readme(result))
        if set(headline.SOURCES) <= set(found):
            text = renewed(text, headline.NAME, headline.readme({name: result for name, (_, result) in found.items()}))
        path.write_text(text)
    say(f"{folder / PAGE}: {len(found)} benchmarks")


def questions() -> dict[str, ModuleType]:
    """Name -> module with run, readme (Markdown of a result) and draw (its plot)."""
    from benchmarks import build, gpu_utilization, loader, loader_sweeps, nas_baseline, scale, token_overhead, zarr

    return {
        "token-overhead": token_overhead,
        "build": build,
        "loader": loader,
        "loader-sweeps": loader_sweeps,
        "nas-baseline": nas_baseline,
        "gpu-utilization": gpu_utilization,
        "scale": scale,
        "zarr": zarr,
    }


def load(folder: Path, name: str) -> Record | None:
    """The figures, None where there are none."""
    path = folder / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else None


def renewed(text: str, name: str, lines: str) -> str:
    """`text` with `lines` between the marks of `name`; as it is where it has none."""
    marks = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?\n?(<!-- /{re.escape(name)} -->)", re.DOTALL)
    return marks.sub(lambda mark: f"{mark[1]}{lines}\n{mark[2]}", text)


def page(found: dict[str, tuple[str, Record]], folder: Path) -> str:
    """found: name -> (Markdown, result)."""
    links = "".join(f'<a href="#{name}">{name}</a>' for name in found)
    parts = "".join(_section(name, lines, result, folder) for name, (lines, result) in found.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>shardkit benchmarks</title>'
        f"<style>{STYLE}</style></head><body><h1>shardkit benchmarks</h1><nav>{links}</nav>{parts}</body></html>\n"
    )


def _section(name: str, lines: str, result: Record, folder: Path) -> str:
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark").enable("table").render(lines)
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    picture = base64.b64encode((folder / f"{name}.png").read_bytes()).decode()
    machine = result["machine"]
    libraries = ", ".join(f"{library} {version}" for library, version in machine["libraries"].items())
    facts = (
        f"{result['date'][:10]}; {machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB,"
        f" {machine['os']}, Python {machine['python']}; load before {machine['load_before']}. {libraries}."
    )
    return (
        f'<section><h2 id="{name}">{html.escape(result["question"])}</h2><p class="facts">{html.escape(facts)}</p>'
        f'{body}<img alt="plot of {name}" src="data:image/png;base64,{picture}"></section>'
    )
