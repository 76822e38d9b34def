"""One self-contained page of all figures, plots drawn anew from them, and the READMEs' tables: all from the JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType

from markupsafe import Markup

from benchmarks import headline
from benchmarks.results import FOLDER, ROOT, Record
from shardkit.report import render, save_png, svg
from shardkit.terminal.output import say

PAGE = "index.html"
TEXTS = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")


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
        save_png(module.plots(result), folder / f"{name}.png")
    (folder / PAGE).write_bytes(page(found))
    for path in texts:
        text = path.read_text()
        for name, (module, result) in found.items():
            text = renewed(text, name, module.readme(result))
        if set(headline.SOURCES) <= set(found):
            text = renewed(text, headline.NAME, headline.readme({name: result for name, (_, result) in found.items()}))
        path.write_text(text)
    say(f"{folder / PAGE}: {len(found)} benchmarks")


def questions() -> dict[str, ModuleType]:
    """Name -> module with run, readme (Markdown of a result) and plots."""
    from benchmarks import (
        build,
        burned_in,
        deid,
        downstream,
        facts,
        gpu_check,
        gpu_utilization,
        labels,
        loader,
        loader_sweeps,
        methods,
        nas_baseline,
        scale,
        token_overhead,
        zarr,
    )

    return {
        "token-overhead": token_overhead,
        "build": build,
        "burned-in": burned_in,
        "deid": deid,
        "facts": facts,
        "labels": labels,
        "loader": loader,
        "loader-sweeps": loader_sweeps,
        "nas-baseline": nas_baseline,
        "downstream": downstream,
        "methods": methods,
        "gpu-check": gpu_check,
        "gpu-utilization": gpu_utilization,
        "scale": scale,
        "zarr": zarr,
    }


def load(folder: Path, name: str) -> Record | None:
    """Return the figures, None where there are none."""
    path = folder / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else None


def renewed(text: str, name: str, lines: str) -> str:
    """`text` with `lines` between the marks of `name`; as it is where it has none."""
    marks = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?\n?(<!-- /{re.escape(name)} -->)", re.DOTALL)
    return marks.sub(lambda mark: f"{mark[1]}{lines}\n{mark[2]}", text)


def page(found: dict[str, tuple[ModuleType, Record]]) -> bytes:
    """Return the page.

    Parameters
    ----------
    found
        Module and result of each benchmark, by name.
    """
    whole = set(headline.SOURCES) <= set(found)
    sections = [
        {
            "id": name,
            "title": _words(result["question"]),
            "facts": _facts(result),
            "body": html_of(module.readme(result)),
            "plots": [{"of": plot, "svg": svg(plot)} for plot in module.plots(result)],
        }
        for name, (module, result) in found.items()
    ]
    return render(
        "benchmarks.html",
        "benchmarks",
        title="shardkit benchmarks",
        kind="shardkit",
        name="Benchmarks",
        headline=html_of(headline.readme({name: result for name, (_, result) in found.items()})) if whole else "",
        contents=({"figures": "in one table"} if whole else {}) | {name: name.replace("-", " ") for name in found},
        sections=sections,
    )


def html_of(lines: str) -> Markup:
    """Return Markdown as HTML whose tables name their rows and columns; tags in it are shown, not obeyed."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(lines)
    body = re.sub(r"<th(?=[ >])", '<th scope="col"', body)
    body = re.sub(r"<tr>\n<td>(.*?)</td>", r'<tr>\n<th scope="row">\1</th>', body)
    body = body.replace("<table>", '<div class="scroll"><table class="dense">').replace("</table>", "</table></div>")
    return Markup(body.replace('<th scope="col"></th>', "<td></td>"))


def _words(line: str) -> Markup:
    from markdown_it import MarkdownIt

    return Markup(MarkdownIt("commonmark", {"html": False}).renderInline(line))


def _facts(result: Record) -> str:
    machine = result["machine"]
    libraries = ", ".join(f"{library} {version}" for library, version in machine["libraries"].items())
    return (
        f"{result['date'][:10]}; {machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB,"
        f" {machine['os']}, Python {machine['python']}; load before {machine['load_before']}. {libraries}."
    )
