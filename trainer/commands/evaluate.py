"""`python -m trainer evaluate`: what runs are worth at one site or several, as a table, a page and a file of scores."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Column, Table

from shardkit.errors import ArgumentError
from shardkit.storage import is_remote
from shardkit.terminal.output import Terminal
from trainer.commands.console import RunConsole
from trainer.runs import places

if TYPE_CHECKING:
    from trainer.evaluate.results import Evaluation

_WORDS = Parameter(consume_multiple=True, negative="", show_default=False)
_SHORT = {"ap": "AP", "balanced_accuracy": "bal. accuracy", "mae": "MAE", "rmse": "RMSE"}
_FEWEST = 100  # draws of patients: an interval's ends are among the rare ones


def evaluate(
    *runs: str,
    out: str,
    data: Annotated[tuple[str, ...], _WORDS] = (),
    labels: Annotated[tuple[str, ...], _WORDS] = (),
    split: Annotated[tuple[str, ...], _WORDS] = (),
    checkpoint: str = "best",
    temperature: Annotated[bool, Parameter(negative="")] = False,
    thresholds: Annotated[tuple[float, ...], _WORDS] = (0.1, 0.2, 0.3, 0.4, 0.5),
    bootstrap: int = 2000,
    seed: int = 0,
    page_only: Annotated[bool, Parameter(negative="")] = False,
    pictures: bool = True,
) -> int:
    """Ask runs about one dataset or several, and tell what they are worth, with intervals, on one page.

    Predictions that are there for the same weights, dataset and labels are not made again. The page shows all that lie
    in its folder.

    Parameters
    ----------
    runs
        Folders or bucket urls of runs by finetune or probe; a folder of several seeds counts as one run.
    out
        Folder for predictions, scores.json and the page, index.html.
    data
        Folders or bucket urls of datasets: the sites.
    labels
        Name of the labels table, one for all sites, or one for each; default: that of the run's training.
    split
        One for all sites, or one for each: test, all, or a labels table's, e.g. nih14:test. Default: the test split
        beside the one that the run was trained on; at other sites the official one of the labels where there is one.
    checkpoint
        best: the one that validation chose, else the last; last; or a checkpoint's folder or url.
    temperature
        Divide scores by a temperature that is fitted on the val split of the training.
    thresholds
        Probabilities from which a class counts as predicted.
    bootstrap
        How often patients are drawn for intervals.
    seed
        What they are drawn by.
    page_only
        Make the page again from the predictions in its folder, without data or runs.
    pictures
        Show the worst errors as pictures.
    """
    from trainer.evaluate.page.write import write
    from trainer.evaluate.results import Settings, evaluation, found

    _check(runs, data, {"--labels": labels, "--split": split}, thresholds, bootstrap, page_only)
    console = RunConsole()
    folder = places.only_local(out)
    if not page_only and not _predict(runs, data, labels, split, checkpoint, temperature, folder, console):
        return 0
    settings = Settings(temperature=temperature, thresholds=thresholds, replicates=bootstrap, seed=seed)
    of = evaluation(found(folder), settings)
    if pictures and not page_only:
        _draw(of, data, folder, console)
    page = write(of, folder, pictures)
    console.print(_table(of))
    for kind, sentence in _sentences(of):
        console.print(sentence, style="red" if kind == "alert" else None)
    console.plain(f"page: {page}")
    return 0


def _check(
    runs: tuple[str, ...],
    data: tuple[str, ...],
    by_site: dict[str, tuple[str, ...]],
    thresholds: tuple[float, ...],
    bootstrap: int,
    page_only: bool,
) -> None:
    if page_only and (runs or data):
        raise ArgumentError("--page-only makes the page from its folder: leave out runs and --data")
    if not page_only and not (runs and data):
        raise ArgumentError("evaluate takes RUN and --data, or --page-only")
    for option, names in by_site.items():
        if len(names) > 1 and len(names) != len(data):
            raise ArgumentError(
                f"{option} takes one name, or one for each of the {len(data)} datasets of --data, not {len(names)}"
            )
    if any(not 0 < one < 1 for one in thresholds):
        raise ArgumentError("--thresholds are probabilities between 0 and 1")
    if bootstrap < _FEWEST:
        raise ArgumentError(f"--bootstrap {bootstrap} is too few for an interval: take {_FEWEST} or more")


def _predict(
    runs: tuple[str, ...],
    data: tuple[str, ...],
    labels: tuple[str, ...],
    split: tuple[str, ...],
    checkpoint: str,
    temperature: bool,
    out: Path,
    console: Terminal,
) -> bool:
    from trainer.evaluate.collect import Wanted, collect

    asked = places.read(checkpoint) if is_remote(checkpoint) else checkpoint
    folders = tuple(places.read(run, last=checkpoint == "last") for run in runs)
    wanted = Wanted(
        runs=folders, data=data, labels=labels, splits=split, checkpoint=str(asked), validation=temperature, out=out
    )
    return collect(wanted, console.plain)


def _draw(of: "Evaluation", data: tuple[str, ...], out: Path, console: Terminal) -> None:
    from trainer.evaluate.pictures import draw

    if lost := draw(of, data, out):
        console.plain(f"{lost:,} pictures could not be drawn: run shardkit verify")


def _table(of: "Evaluation") -> Table:
    """Return the main scores of each run at each site, with intervals."""
    from shardkit.report import number
    from trainer.evaluate.page.words import in_sentence, interval, overall, shown
    from trainer.evaluate.results import main_scores

    heads = [Column(name, justify="right") for name in ("images", "patients")]
    scores = (Column("score", no_wrap=True), Column("", justify="right"), Column("interval", no_wrap=True))
    table = Table("run", "site", "split", *heads, *scores, box=None, pad_edge=False)
    for entry in of.entries:
        about, patients = entry.first.about, len(set(entry.first.patients.tolist()))
        cells = [entry.run, entry.site, about.split, number(len(entry.first)), number(patients)]
        for score in main_scores(about.kind, len(about.classes)):
            found = overall(entry.scores[score])
            table.add_row(*cells, _SHORT.get(score) or in_sentence(score), shown(found.value), interval(found))
            cells = [""] * len(cells)
    return table


def _sentences(of: "Evaluation") -> list[tuple[str, str]]:
    from trainer.evaluate.page import headline, origins

    known = origins.found(of)
    stamped = [("alert", f"{run}: the checkpoint was selected on test") for run in known["stamped"]]
    return [*headline.sentences(of), *stamped, *((kind, f"{where}{note}") for kind, where, note in known["notes"])]
