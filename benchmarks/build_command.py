"""The command that the build benchmark times, with when each stage begins. It loads no more than the command does."""

import json
import time
from pathlib import Path
from typing import Any

from shardkit.commands import building


def command(work: str) -> None:
    """Run `shardkit` itself, its progress display noting when each stage begins. Arguments are in a JSON file."""
    from shardkit import cli

    words, stages = json.loads((Path(work) / "arguments.json").read_text())
    begun: list[tuple[str, float]] = []
    built = building._built

    def noted(*arguments: Any) -> int:
        _note(begun)
        return built(*arguments)

    building._built = noted  # type: ignore[assignment]
    if code := cli.run(words):
        raise SystemExit(code)
    Path(stages).write_text(json.dumps(begun))


def _note(begun: list[tuple[str, float]]) -> None:
    """Have the display note times. It is loaded as late as the command loads it: children start before."""
    from shardkit.build.progress import BuildProgressBar

    show = BuildProgressBar.stage

    def noted(bar: BuildProgressBar, name: str, total: int | None) -> None:
        begun.append((name, time.time()))
        show(bar, name, total)

    BuildProgressBar.stage = noted  # type: ignore[assignment, method-assign]
