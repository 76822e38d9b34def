"""`python -m trainer assess`: what frozen features are worth, beside random weights and raw pixels, with few labels."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from shardkit.terminal.output import Terminal
from trainer.assess.config import PolicyConfig, StudyConfig

_WORDS = Parameter(consume_multiple=True, negative="")
_POLICY, _STUDY = PolicyConfig(), StudyConfig()


def assess(
    run: Path | None = None,
    *,
    data: Annotated[tuple[str, ...], _WORDS],
    labels: Annotated[tuple[str, ...], _WORDS],
    out: Path,
    features: Path | None = None,
    init: str | None = None,
    recipe: str = "tiny",
    batching: str | None = None,
    pool: Literal["mean", "token"] = "mean",
    objective: Annotated[PolicyConfig, _WORDS] = _POLICY,
    study: Annotated[StudyConfig, Parameter(name="*", consume_multiple=True, negative="")] = _STUDY,
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
        Folder for the page and the figures.
    features
        Folder that features are kept in, so that another command does not read the images again; default: features in
        the folder of the page.
    init
        Weights instead of a run's: a file, or a model of timm; its network is that of --recipe.
    recipe
        Whose network and images they are, where no run is named.
    batching
        How images come in, instead of as in the run: see --loader.batching of pretrain.
    pool
        mean of an image's tokens, or its class token.
    """
    from trainer.assess.assessing import Assess
    from trainer.assess.assessing import assess as judge

    asked = Assess(
        run=run,
        init=init,
        recipe=recipe,
        data=data,
        labels=labels,
        out=out,
        features=features,
        batching=batching,
        pool=pool,
        policy=objective,
        study=study,
    )
    judge(asked, Terminal())
