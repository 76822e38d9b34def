"""The command line: `python -m trainer pretrain --recipe tiny --data shards/ --out runs/tiny`.

Every value of a recipe is an option, named as in `trainer.config`, e.g. --model.depth 6 --optim.lr 1e-3. Exit codes: 0
done, 1 could not, 2 bad usage, 130 stopped by Ctrl-C and 143 by SIGTERM, both after a checkpoint.
"""

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.table import Column, Table

from shardkit.commands import stopping, usage
from shardkit.errors import ArgumentError, ShardkitError
from trainer.commands.assess import assess
from trainer.commands.chosen_model import with_model, without_model
from trainer.commands.console import RunConsole
from trainer.commands.evaluate import evaluate
from trainer.commands.explain import explain
from trainer.config import defaulting_to, flat
from trainer.recipes.registry import RECIPES
from trainer.runs import places

console = RunConsole()
_errors = RunConsole(stderr=True)
Command = Literal["pretrain", "finetune", "probe"]
_DEFAULTS: dict[Command, str] = {"pretrain": "tiny", "finetune": "tiny-finetune", "probe": "tiny-probe"}
_ABOUT: dict[Command, str] = {
    "pretrain": "Pre-train a model by a recipe.",
    "finetune": "Train a pre-trained encoder and a head on labels, see docs/finetuning.md.",
    "probe": "Train a head on a frozen encoder, to see what its features are worth.",
}
_TRAIN = """{about} Run the same command again to go on after any end.

Parameters
----------
data
    Folder or bucket url of a dataset made by shardkit build.
out
    Folder or bucket url of the run: checkpoints, metrics, pictures, report.
recipe
    Whose values are the defaults of all options below; see the command recipes.
init
    Weights to begin with: a run or a checkpoint by folder or bucket url, a file, or weights of timm by name and tag.
init_channels
    How their kernels of three channels become ones of grey: sum keeps what they make of grey images.
"""


def application(recipe: str, typed: frozenset[str] = frozenset(), backbone: str | None = None) -> App:
    """Return the commands, with a recipe's values as the defaults of its own.

    Parameters
    ----------
    recipe
        Name of the recipe.
    typed
        Names of the options in the command.
    backbone
        timm's name of a model in place of the recipe's.
    """
    app = App(
        name="trainer",
        help="Train models on radiographs of any size.",
        version_flags=[],
        suppress_keyboard_interrupt=False,
    )
    for command, usual in _DEFAULTS.items():
        if RECIPES[recipe].command == command:
            app.command(_trains(command, recipe, typed, backbone))
        else:
            app.command(_trains(command, usual, typed, None))
    app.command(recipes)
    app.command(export)
    app.command(report)
    app.command(assess)
    app.command(evaluate)
    app.command(explain)
    return app


def _trains(command: Command, recipe: str, typed: frozenset[str], backbone: str | None) -> Callable[..., int]:
    """Return the command that trains by recipes of its own."""
    values = RECIPES[recipe].config
    base: Any = defaulting_to(values if backbone is None else with_model(values, backbone))

    def train(
        *,
        data: str,
        out: str,
        recipe: str = recipe,
        init: str | None = None,
        init_channels: Literal["sum", "mean"] = "sum",
        config: Annotated[base, Parameter(name="*")] = base(),  # noqa: B008 (frozen)
    ) -> int:
        from trainer.commands.training import train
        from trainer.runs.start import Job

        return train(Job(recipe, config, data, places.local(out), init, typed, command, init_channels), console)

    train.__name__, train.__doc__ = command, _TRAIN.format(about=_ABOUT[command])
    return train


def recipes(name: str | None = None) -> None:
    """List the recipes, or show all values and notes of one.

    Parameters
    ----------
    name
        Of a recipe.
    """
    if name is None:
        table = Table(Column("command", no_wrap=True), Column("recipe", no_wrap=True), "whose", box=None)
        for command in _DEFAULTS:
            for key, recipe in RECIPES.items():
                if recipe.command == command:
                    table.add_row(command, key, recipe.source)
        console.print(table)
        return
    recipe = RECIPES[_known(name)]
    console.print(f"{name}: {recipe.source}", highlight=False)
    for option, value in flat(recipe.config).items():
        console.print(f"  --{option} {value}", highlight=False, soft_wrap=True)
    console.print(recipe.notes, highlight=False, soft_wrap=True)


def export(
    run: str,
    *,
    out: str,
    grid: tuple[int, int] | None = None,
    whole: bool = False,
    average: bool = False,
    in_chans: Literal[1, 3] | None = None,
) -> None:
    """Write a run's weights as a file for timm, or for programs that read the original masked autoencoders.

    Of a run with a task the file is a classifier, encoder and head, which gives the run's scores of images without
    padding.

    Parameters
    ----------
    run
        Folder or bucket url of a run, or of one of its checkpoints.
    out
        File to write: .safetensors, which carries all that has to be known of it, or .pth.
    grid
        Rows and columns of patches that the file's position table is for; default those of the recipe's resized
        images, else of the dataset's commonest bin. Hiera has its own.
    whole
        The whole model by the names of facebookresearch/mae, instead of the encoder for timm.
    average
        The average of the weights instead of the last ones.
    in_chans
        1, or 3 for colour images, of which grey ones have the same features; by default as the run has them.
    """
    from trainer.commands.export import Export
    from trainer.commands.export import export as write

    asked = Export(
        run=places.read(run), out=places.only_local(out), grid=grid, whole=whole, average=average, channels=in_chans
    )
    console.print(write(asked), highlight=False, soft_wrap=True, markup=False)


def report(run: str) -> None:
    """Write a run's page again.

    Parameters
    ----------
    run
        Folder or bucket url of the run.
    """
    from trainer.report.run_page import write

    page = write(folder := places.read(run, pages=True))
    if (there := places.bucket(folder)) is not None:
        there.put(page.name, page.read_bytes())
    console.print(str(page), highlight=False, soft_wrap=True)


def _known(name: str) -> str:
    if name not in RECIPES:
        raise ArgumentError(f"recipe {name} is unknown: choose one of {', '.join(RECIPES)}")
    return name


def _named(words: list[str]) -> str:
    """Return the recipe that the words ask for: it decides what the other options are."""
    command = next((word for word in words if not word.startswith("-")), "pretrain")
    if command not in _DEFAULTS:
        return _DEFAULTS["pretrain"]
    name = _DEFAULTS[command]
    for at, word in enumerate(words):
        if word.startswith("--recipe="):
            name = _known(word.partition("=")[2])
        elif word == "--recipe" and at + 1 < len(words):
            name = _known(words[at + 1])
    if (right := RECIPES[name].command) != command:
        own = ", ".join(key for key, recipe in RECIPES.items() if recipe.command == command)
        raise ArgumentError(
            f"recipe {name} is one of {right}, not of {command}: run python -m trainer {right} --recipe {name}, or"
            f" choose one of {own}"
        )
    return name


def _typed(words: list[str]) -> frozenset[str]:
    return frozenset(word[2:].partition("=")[0] for word in words if word.startswith("--"))


def run(words: list[str]) -> int:
    """Run the command line `words`; return the exit code."""
    with places.scratch():
        return _run(words)


def _run(words: list[str]) -> int:
    try:
        words, backbone = without_model(words)
        typed = _typed(words) | ({"model"} if backbone else frozenset())
        code = application(_named(words), typed, backbone)(
            words, result_action="return_value", exit_on_error=False, print_error=False
        )
    except CycloptsError as error:
        _errors.plain(f"trainer: {usage.sentence('python -m trainer', error)}")
        return 2
    except ShardkitError as error:
        _errors.print(f"trainer: {error}", style="red", highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        _errors.print(f"trainer: {stopping.SAID}", style="yellow")
        return stopping.code()
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of `python -m trainer`."""
    stopping.heed("trainer")
    code = stopping.ended("trainer", lambda: run(sys.argv[1:]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # as in shardkit.cli: threads of libraries may still be starting
