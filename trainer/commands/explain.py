"""`python -m trainer explain`: what a run looks at. The work is in `trainer.explain.writing`."""

from typing import Annotated, Literal

from cyclopts import Parameter

from trainer.commands.console import RunConsole
from trainer.runs import places

console = RunConsole()


def explain(
    run: str,
    *,
    data: str,
    out: str,
    labels: str | None = None,
    method: Literal["anomaly", "rollout", "gradcam"] | None = None,
    label: Annotated[str | None, Parameter(name="--class")] = None,
    split: str | None = None,
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
        Folder or bucket url of a run, or of one of its checkpoints.
    data
        Folder or bucket url of a dataset made by shardkit build.
    out
        Folder to write to: index.html, boxes.json, and maps.
    labels
        Labels table whose boxes are looked for: all of the split.
    method
        gradcam, the usual one of a task; anomaly, of a masked autoencoder; or rollout, of our own vision
        transformer.
    label
        Only this class; without it those of an image's boxes, and the most probable one where there are none.
    split
        train, val, test, all, or the official one of a labels table, e.g. nih14:test; default: the test split that the
        run is evaluated on.
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
    from trainer.explain.writing import Explain, write

    asked = Explain(
        run=places.read(run),
        data=data,
        out=places.only_local(out),
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
