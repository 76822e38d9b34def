"""Which method of pre-training is worth what on real radiographs: equal steps, equal images, small networks, 2 cores.

Each method trains without labels on the same NIH images, the first fold's training patients, and its frozen features
are asked for views (AP or PA) and sexes of the other patients, beside those of random weights and raw pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from benchmarks import downstream_data, downstream_splits
from benchmarks.downstream_runs import Job, Jobs, cores
from benchmarks.downstream_scores import assessed
from benchmarks.downstream_splits import FIRST
from benchmarks.methods_summary import plots, readme
from benchmarks.results import FOLDER, begin, save
from shardkit.commands import stopping
from shardkit.terminal.output import say

__all__ = ["plots", "readme", "run"]
Record = dict[str, Any]
STEPS = {"quick": 60, "full": 800}
_IMAGES = 32  # of a step
_SIDE = 128
_LEAN = ("--log.no-tensorboard", "--log.pictures", "0", "--log.baseline", "0", "--loader.threads", "1")
_SAME = ("--run.precision", "fp32", "--run.no-compile", "--val.every", "0", "--save.every", "400")
_VIT = ("--model", "timm:test_vit", "--model.side", str(_SIDE))
_CNN = ("--model", "timm:test_resnet", "--model.side", str(_SIDE))
_MAE = ("--model.patch", "16", "--model.width", "64", "--model.depth", "6", "--model.heads", "2")
_ADAM = ("--optim.lr", "1e-3", "--optim.warmup", "0.1")
_SINGLE = f"resized:batch_size={_IMAGES},crop=0.2/1.0,flip=0.5,level=auto,patch=16,per_step=1,remainder=drop"


@dataclass(frozen=True, slots=True)
class Method:
    """A method, as it is run here.

    Attributes
    ----------
    name, network
        As in the table.
    recipe
        Whose objective and options it has, but for `options`.
    options
        What is changed of the recipe.
    views
        As in a batching's text; empty for one view of each image.
    """

    name: str
    network: str
    recipe: str
    options: tuple[str, ...]
    views: str = ""

    @property
    def batching(self) -> str:
        """How images come in."""
        if not self.views:
            return f"{_SINGLE},side={_SIDE}"
        return f"multiview:batch_size={_IMAGES},level=auto,patch=16,per_step=1,remainder=drop,views={self.views}"


_CHANGED = "jitter=0.8:blur=0.5"
_TWO = f"{_SIDE}:n=2:crop=0.2/1.0:{_CHANGED}"
_CROPS = f"{_SIDE}:n=2:crop=0.4/1.0:{_CHANGED}+64:n=4:crop=0.05/0.4:{_CHANGED}"
_DINO = ("--objective.outputs", "1024", "--objective.hidden", "256", "--objective.bottleneck", "64")
_SIT = ("--objective.hidden", "512", "--objective.out", "128")
_MOCO = (
    "--objective.queue",
    "1024",
    "--objective.momentum",
    "0.99",
    "--optim.name",
    "adamw",
    "--optim.decay",
    "matrices",
)
_UNET = ("--objective.decoder", "32", "16", "8", "8", "4")
METHODS = {
    "mae": Method("masked autoencoder", "our ViT", "tiny", (*_MAE, "--model.mlp-ratio", "3", *_ADAM)),
    "simmim": Method("SimMIM", "ViT", "krones-simmim", (*_VIT, *_ADAM)),
    "gmml": Method("GMML", "ViT", "krones-gmml", (*_VIT, *_ADAM), f"{_SIDE}:n=2:crop=0.2/1.0:jitter=0.3:blur=0.1"),
    "sit": Method("SiT", "ViT", "krones-sit", (*_VIT, *_ADAM, *_SIT), _TWO),
    "dino": Method("DINO", "ViT", "krones-dino-s16", (*_VIT, *_ADAM, *_DINO), _CROPS),
    "moco": Method("MoCo v2", "ViT", "medmae-densenet121-moco", (*_VIT, *_ADAM, *_MOCO), _TWO),
    "moco-cnn": Method("MoCo v2", "ResNet", "medmae-densenet121-moco", (*_CNN, *_ADAM, *_MOCO), _TWO),
    "inpainting": Method("in-painting", "ResNet", "medmae-densenet121-mae", (*_CNN, *_ADAM, *_UNET)),
}
"""With AdamW at one rate; heads, decoders and queues are small, as steps are few."""


def run(
    data: Path,
    *,
    work: Path,
    form: Literal["quick", "full"] = "full",
    beside: Annotated[int | None, Parameter()] = None,
    out: Path = FOLDER / "methods.json",
) -> None:
    """Compare methods of pre-training. Started again, it goes on.

    Parameters
    ----------
    data
        Folder of labelled radiographs, as `downstream` takes it.
    work
        Folder for datasets, runs and what each command took.
    form
        quick: few steps, to see that all of it works. full: 800 steps each.
    beside
        How many commands run side by side, each on one core; default one a core.
    out
        JSON file for the figures; the plot lies beside it.
    """
    stopping.heed("benchmarks")
    jobs, sites = Jobs(work, beside or cores()), downstream_data.datasets(data, work / "data")
    Jobs(work, 1).run(downstream_splits.tables("nih", sites["nih"], work / "tables"))
    commands = list(planned(STEPS[form], sites["nih"], work))
    jobs.run(commands)
    result = begin((__doc__ or "").partition("\n")[0], ("shardkit", "numpy", "scikit-learn", "torch", "timm"))
    result["conditions"] = {"form": form, "steps": STEPS[form], "images": _IMAGES, "side": _SIDE, "cores": jobs.cores}
    result["methods"] = {name: _measured(name, work, jobs.took) for name in METHODS}
    save(result, out, plots)
    say(readme(result))


def planned(steps: int, data: Path, work: Path) -> Iterator[Job]:
    """Return all commands: a pre-training and an assessment each."""
    for name, method in METHODS.items():
        words = ["pretrain", "--recipe", method.recipe, "--data", str(data), "--out", str(work / "runs" / name)]
        words += ["--loader.split", f"{FIRST}:train", "--loader.batching", method.batching, "--run.steps", str(steps)]
        yield Job(name, (*words, *_LEAN, *_SAME, *method.options))
        asked = ["assess", str(work / "runs" / name), "--data", str(data), "--labels", FIRST, "--out"]
        asked += [str(work / f"assess-{name}"), "--objective.columns", "pa", "female", "--fractions", "1.0"]
        asked += ["--features", str(work / "features"), "--batching", f"resized:side={_SIDE},patch=16,batch_size=16"]
        yield Job(f"assess-{name}", tuple(asked), after=(name,))


def _measured(name: str, work: Path, took: dict[str, Record]) -> Record:
    """Return what a method took and came to; speed is by seconds of a core, which other programs hardly change."""
    lines = [json.loads(line) for line in (work / "runs" / name / "metrics.jsonl").read_text().splitlines()]
    late = lines[len(lines) // 2 :]
    facts = json.loads((work / "runs" / name / "run.json").read_text())
    return {
        **asdict(METHODS[name]),
        "batching": METHODS[name].batching,
        "parameters": facts["parameters"],
        "images_per_core_s": lines[-1]["images"] / took[name]["cpu_seconds"],
        "loss": [lines[0]["loss"], lines[-1]["loss"]],
        "metrics": late[-1].get("metrics", {}),
        "took": {key: value for key, value in took[name].items() if key != "command"},  # which names folders
        "scores": [row for row in assessed(work / f"assess-{name}") if row["fraction"] == 1],
    }
