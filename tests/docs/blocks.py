"""Code blocks of a Markdown page, how they are run, and how those are checked that cannot be."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"(?:^<!-- (not run|tested with): (.*?) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SYSTEM = {"export", "sbatch"}
_TRAINING = {"pretrain", "finetune", "probe"}
_LAUNCHERS = {"torchrun", "srun", "accelerate"}


@dataclass(frozen=True)
class Block:
    """skip: why it is not run. added: options that a test adds to commands that train, to be quick."""

    where: str
    language: str
    code: str
    skip: str
    added: tuple[str, ...]

    def commands(self) -> Iterator[list[str]]:
        """The words of each command of a bash block."""
        for line in self.code.replace("\\\n", " ").splitlines():
            for part in line.split(" && "):
                if words := shlex.split(part, comments=True):
                    yield words


def blocks(page: Path) -> list[Block]:
    """All of a page, in order."""
    text, found = page.read_text(), []
    for match in _BLOCK.finditer(text):
        mark, words, language, code = match.groups()
        line = text.count("\n", 0, match.start(4))
        skip, added = (words, "") if mark == "not run" else ("", words or "")
        found.append(Block(f"{page.name}:{line}", language, code, skip, tuple(added.split())))
    return found


def run_page(page: Path) -> None:
    """Run all blocks of a page that can be run, in this process and in the current folder."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.language != "text" and not block.skip:
            run(block, names)


def builds(page: Path) -> bool:
    """Whether a page makes `shards/` itself."""
    return any("--out shards/" in block.code and not block.skip for block in blocks(page))


def run(block: Block, names: dict[str, Any]) -> None:
    """Run a block in this process and in the current folder. names: what earlier Python of the page defined."""
    if block.language == "python":
        exec(compile(block.code, block.where, "exec"), names)
        return
    from shardkit import cli
    from trainer.commands import cli as training

    for words in block.commands():
        if words[0] == "shardkit":
            code = cli.run(words[1:])
        else:
            assert words[:3] == ["python", "-m", "trainer"], f"{block.where}: mark what is not run: {words}"
            code = training.run(words[3:] + list(block.added if words[3] in _TRAINING else ()))
        assert code == 0, f"{block.where}: {shlex.join(words)} ended with {code}"


def check(block: Block) -> None:
    """That what a block names exists: commands and options, files, extras; modules, names and keywords in Python."""
    if block.language == "python":
        _check_python(block)
        return
    script = block.code.startswith("#!")
    for words in block.commands():
        if not script or "-m" in words:  # of a script the programs that it starts: the shell is the shell's
            _check_command(block, words[:-1] if script and words[-1] == "&" else words)


def _check_command(block: Block, words: list[str]) -> None:
    program = words[0]
    if program in _SYSTEM:
        return
    if program == "shardkit":
        from shardkit.cli import app

        _parse(app, words[1:])
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"\w+", words[-1])) <= set(extras), words
    elif "-m" in words:
        at = words.index("-m")
        _check_module(words[at + 1], words[at + 2 :])
    elif program != "pytest":
        assert program in {"python", *_LAUNCHERS}, f"{block.where}: {words}"
        assert any((ROOT / word).is_file() for word in words[1:]), f"{block.where}: {words}"


def _check_module(module: str, words: list[str]) -> None:
    if module == "trainer":
        from trainer.commands import cli
        from trainer.commands.chosen_model import without_model

        words, backbone = without_model(words)
        _parse(cli.application(cli._named(words), cli._typed(words), backbone), words)
        return
    assert module == "benchmarks", module
    from benchmarks.__main__ import app

    _parse(app, words)


def _parse(app: Any, words: list[str]) -> None:
    """Raises for a command or an option that does not exist, and for values that it does not take."""
    command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert "--help" in words or bound.arguments or not words[1:], (command, words)


def _check_python(block: Block) -> None:
    tree, known = ast.parse(block.code), dict[str, Any]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            known |= {name.asname or name.name: getattr(module, name.name) for name in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in known:
            taken = inspect.signature(known[node.func.id]).parameters
            assert {word.arg for word in node.keywords} <= set(taken), f"{block.where}: {node.func.id}"
