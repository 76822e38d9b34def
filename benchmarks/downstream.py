"""What pre-training is worth on real radiographs, 2 cores: frozen and fine-tuned, against scratch, random and pixels.

A small masked autoencoder is pre-trained without labels on NIH and Hannover, each time without the patients who are
asked about: three folds by patient, the first of which holds NIH's official test patients. Views (AP or PA) and sexes
are learnt on NIH alone, and asked about at both sites.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from benchmarks import downstream_data, downstream_scores, downstream_splits
from benchmarks.downstream_runs import Job, Jobs, cores
from benchmarks.downstream_splits import FIRST, FOLDS
from benchmarks.downstream_summary import plots, readme
from benchmarks.results import FOLDER, begin, save
from shardkit.commands import stopping
from shardkit.terminal.output import say

__all__ = ["plots", "readme", "run"]
_TASK = ("--objective.columns", "pa", "female")
_LEAN = ("--log.no-tensorboard", "--log.pictures", "0", "--loader.threads", "1", "--val.every", "0")
_EVERY = 400  # steps, between checkpoints that are judged, too
_SAVE = ("--save.every", str(_EVERY), "--save.keep", "99")


@dataclass(frozen=True, slots=True)
class Form:
    """How much is done.

    Attributes
    ----------
    folds
        Of three, those that are asked about.
    steps
        Of a pre-training.
    curve_steps
        Of those that are varied; 0 varies nothing.
    tuned_steps
        Of fine-tuning.
    seeds
        Of fine-tuning in the first fold.
    """

    folds: tuple[str, ...]
    steps: int
    curve_steps: int
    tuned_steps: int
    seeds: int

    @property
    def curves(self) -> dict[str, tuple[str, str]]:
        """Folder of an assessment -> what is varied in it, and its value."""
        whole = f"assess-pretrain-{FIRST}"
        found = {f"{whole}-{at}": ("steps", f"{at:,} of {self.steps:,}") for at in range(_EVERY, self.steps, _EVERY)}
        found |= {whole: ("steps", f"{self.steps:,}"), f"{whole}-token": ("pooling", "class token")}
        return found | ({f"assess-vary-{name}": one.name for name, one in VARIED.items()} if self.curve_steps else {})


FORMS = {"quick": Form((FIRST,), 400, 0, 150, 1), "full": Form(FOLDS, 1600, 300, 250, 2)}


@dataclass(frozen=True, slots=True)
class Varied:
    """A pre-training that differs in one thing.

    Attributes
    ----------
    name
        What is varied, and its value, as on the plot.
    options
        Of `pretrain`.
    split
        Who is learnt from.
    """

    name: tuple[str, str]
    options: tuple[str, ...] = ()
    split: str = FIRST


def batching(level: int = 1, per_step: int = 2) -> str:
    """Return packs of the images at a level; at level 1, 16 NIH images fill one."""
    return f"packed:level={level},patch=8,per_step={per_step},remainder=drop,tokens={4096 >> (2 * level - 2)}"


VARIED = {
    "base": Varied(("as in the recipe", "")),
    "images-third": Varied(("images", "a third of the patients"), split="fold0-third"),
    "level-2": Varied(("resolution", "64 pixels"), ("--loader.batching", batching(level=2))),
    "mask-50": Varied(("hidden", "50 %"), ("--model.mask-ratio", "0.5")),
    "mask-90": Varied(("hidden", "90 %"), ("--model.mask-ratio", "0.9")),
    "grey": Varied(("targets", "grey levels"), ("--model.no-norm-pix",)),
}
"""Pre-trainings of `Form.curve_steps` in the first fold, by name."""


def run(
    data: Path,
    *,
    work: Path,
    form: Literal["quick", "full"] = "full",
    beside: Annotated[int | None, Parameter()] = None,
    out: Path = FOLDER / "downstream.json",
) -> None:
    """Measure what pre-training is worth. Started again, it goes on.

    Parameters
    ----------
    data
        Folder of labelled radiographs: nih, nih256, hannover.
    work
        Folder for datasets, runs and what each command took.
    form
        quick: the first fold, under 15 minutes on 2 quiet cores. full: three folds and the curves, at most 90.
    beside
        How many commands run side by side, each on one core; default one a core.
    out
        JSON file for the figures; the plot lies beside it.
    """
    stopping.heed("benchmarks")
    chosen, jobs = FORMS[form], Jobs(work, beside or cores())
    sites = downstream_data.datasets(data, work / "data")
    mixture, made = work / "both.json", [f"{site}={path}" for site, path in sites.items()]
    tables = [job for site, path in sites.items() for job in downstream_splits.tables(site, path, work / "tables")]
    mix = Job("mix", ("mix", str(mixture), *made), program="shardkit")
    Jobs(work, 1).run([*tables, mix])  # one command at a time labels a dataset
    commands = planned(chosen, work, sites, mixture)
    jobs.run(commands)
    result = begin((__doc__ or "").partition("\n")[0], ("shardkit", "numpy", "scikit-learn", "torch", "timm"))
    result["conditions"] = {"form": form, **asdict(chosen), "side_by_side": jobs.cores}
    result["took"] = {job.name: jobs.took[job.name] for job in commands}
    result |= downstream_scores.measured(work, chosen.folds, chosen.curves)
    save(result, out, plots)
    say(readme(result))


def planned(form: Form, work: Path, sites: dict[str, Path], mixture: Path) -> list[Job]:
    """Return all commands: pre-training first, so that cores are busy to the end."""
    runs, first = work / "runs", f"pretrain-{FIRST}"
    found = [_pretrain(f"pretrain-{split}", split, form.steps, mixture, runs) for split in form.folds]
    if form.curve_steps:
        for name, one in VARIED.items():
            found.append(_pretrain(f"vary-{name}", one.split, form.curve_steps, mixture, runs, one.options))
            found.append(_assess(f"vary-{name}", FIRST, sites, work, ("--fractions", "1.0")))
    for split in form.folds:
        shares = () if split == FIRST else ("--fractions", "1.0")
        found.append(_assess(f"pretrain-{split}", split, sites, work, shares))
        found += _finetunings(form, split, sites, work)
    whole = ("--fractions", "1.0")
    found.append(_assess(first, FIRST, sites, work, (*whole, "--pool", "token"), suffix="-token"))
    for step in range(_EVERY, form.steps, _EVERY):
        found.append(_assess(first, FIRST, sites, work, whole, f"checkpoints/step_{step:08d}", f"-{step}"))
    return [*found, *_boxes(form, sites, work)]


def _pretrain(name: str, split: str, steps: int, mixture: Path, runs: Path, options: tuple[str, ...] = ()) -> Job:
    words = ["pretrain", "--recipe", "tiny", "--data", str(mixture), "--out", str(runs / name), *_LEAN, *_SAVE]
    words += ["--loader.split", f"{split}:train", "--run.steps", str(steps), "--loader.batching", batching()]
    return Job(name, (*_without(words, options), *options))


def _without(words: list[str], options: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out options that are given anew, with their values."""
    again = {word for word in options if word.startswith("--")}
    kept = [i for i, word in enumerate(words) if word not in again and not (i and words[i - 1] in again)]
    return tuple(words[i] for i in kept)


def _assess(
    run: str,
    split: str,
    sites: dict[str, Path],
    work: Path,
    more: tuple[str, ...],
    checkpoint: str = "",
    suffix: str = "",
) -> Job:
    name = f"assess-{run}{suffix}"
    words = ["assess", str(work / "runs" / run / checkpoint), "--data", *map(str, sites.values()), "--labels", split]
    words += [*_TASK, "--features", str(work / "features"), "--out", str(work / name), *more]
    return Job(name, tuple(words), after=(run,))


def _finetunings(form: Form, split: str, sites: dict[str, Path], work: Path) -> list[Job]:
    """Return fine-tuning from the pre-trained network and from scratch, and the evaluation of both."""
    found, begun = [], f"pretrain-{split}"
    seeds = form.seeds if split == FIRST else 1
    several = ["--run.seeds", *map(str, range(seeds))] if seeds > 1 else []
    for name, init in (("finetune", ["--init", str(work / "runs" / begun)]), ("scratch", [])):
        words = [*_finetune(form, split, sites["nih"], work / "runs" / f"{name}-{split}"), *_TASK, *init, *several]
        found.append(Job(f"{name}-{split}", tuple(words), (begun,)))
    runs = [str(work / "runs" / job.name) for job in found]
    asked = ["evaluate", *runs, "--data", *map(str, sites.values()), "--labels", split, "--no-pictures"]
    asked += ["--split", f"{split}:test", "--out", str(work / f"evaluate-{split}")]
    return [*found, Job(f"evaluate-{split}", tuple(asked), tuple(job.name for job in found))]


def _boxes(form: Form, sites: dict[str, Path], work: Path) -> list[Job]:
    """Return fine-tuning on NIH's findings, and how well its maps find the boxes of the test images."""
    run, begun = work / "runs" / "findings", f"pretrain-{FIRST}"
    train = (*_finetune(form, "nih14", sites["nih"], run), "--init", str(work / "runs" / begun))
    asked = ("explain", str(run), "--data", str(sites["nih"]), "--labels", "nih14", "--split", "nih14:test")
    return [Job("findings", train, (begun,)), Job("explain", (*asked, "--out", str(work / "explain")), ("findings",))]


def _finetune(form: Form, labels: str, data: Path, out: Path) -> list[str]:
    """Return the command without where it begins: all steps, for there is nobody to choose a checkpoint by."""
    words = ["finetune", "--recipe", "tiny-finetune", "--data", str(data), "--labels", labels, "--out", str(out)]
    words += ["--loader.split", f"{labels}:train", "--loader.batching", batching(per_step=1), *_LEAN]
    return [*words, "--run.steps", str(form.tuned_steps), "--select.metric", "", "--select.patience", "0"]
