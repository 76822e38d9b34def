"""Commands that ask what a network has learnt: assess, explain. The work is in modules of their names."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from shardkit.terminal.output import Terminal
from trainer.assess.config import PolicyConfig, StudyConfig

console = Terminal()
_POLICY, _STUDY = PolicyConfig(), StudyConfig()


def assess(
    run: Path | None = None,
    *,
    data: Annotated[tuple[str, ...], Parameter(consume_multiple=True)],
    labels: Annotated[tuple[str, ...], Parameter(consume_multiple=True)],
    out: Path,
    init: str | None = None,
    recipe: str = "tiny",
    batching: str | None = None,
    pool: Literal["mean", "token"] = "mean",
    objective: PolicyConfig = _POLICY,
    study: Annotated[StudyConfig, Parameter(name="*")] = _STUDY,
) -> None:
    """Judge frozen features by few labels and many, beside random weights and raw pixels: a page in minutes.

    Parameters
    ----------
    run
        Folder of a run, or of one of its checkpoints.
    data
        Folders or urls of datasets. The first is learnt from; at the others it is only asked.
    labels
        Names of labels tables that they have.
    out
        Folder for the page, the figures, and the features, which a second command with it does not read again.
    init
        Weights instead of a run's: a file, or a model of timm; its network is that of --recipe.
    recipe
        Whose network and images they are, where no run is named.
    batching
        How images come in, instead of as in the run: see --loader.batching of pretrain.
    pool
        mean of an image's tokens, or its class token.
    """
    from trainer.commands.assess import Assess
    from trainer.commands.assess import assess as judge

    asked = Assess(
        run=run,
        init=init,
        recipe=recipe,
        data=data,
        labels=labels,
        out=out,
        batching=batching,
        pool=pool,
        policy=objective,
        study=study,
    )
    judge(asked, console)


def explain(
    run: Path,
    *,
    data: str,
    out: Path,
    labels: str | None = None,
    method: Literal["anomaly", "rollout", "gradcam"] | None = None,
    label: Annotated[str | None, Parameter(name="--class")] = None,
    split: str = "test",
    keys: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    samples: int = 24,
    layer: str = "",
    masks: int = 16,
    seed: int = 0,
    save_maps: bool = False,
) -> None:
    """Draw maps of what a run looks at, hold them against boxes of the labels, and write a page about both.

    Parameters
    ----------
    run
        Folder of a run, or of one of its checkpoints.
    data
        Folder or bucket url of a dataset made by shardkit build.
    out
        Folder to write to: index.html, boxes.json, and maps.
    labels
        Labels table whose boxes are looked for: all of the split.
    method
        gradcam, the usual one of a task; anomaly, of a masked autoencoder; or rollout, of a vision transformer.
    label
        Only this class; without it those of an image's boxes, and the most probable one where there are none.
    split
        train, val, test, all, or the official one of a labels table, e.g. nih14:test.
    keys
        Only these samples, by key or its start.
    samples
        Pictures at most, evenly spaced by key; without boxes, images at most.
    layer
        Layer of Grad-CAM: a module of the encoder, e.g. blocks.-1.norm2, or features, which the head is given; default
        blocks.-1.norm1 of a vision transformer, else features.
    masks
        Masks of anomaly maps, at least: whole rounds are run that hide every patch.
    seed
        Of masks and of random maps.
    save_maps
        Write all maps, too, as NumPy files.
    """
    from trainer.commands.explain import Explain, write

    asked = Explain(
        run=run,
        data=data,
        out=out,
        labels=labels,
        method=method,
        label=label,
        split=split,
        keys=keys,
        samples=samples,
        layer=layer,
        masks=masks,
        seed=seed,
        save_maps=save_maps,
    )
    write(asked, console)
