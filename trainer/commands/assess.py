"""`python -m trainer assess`: what frozen features are worth, beside random weights and raw pixels, with few labels."""

from typing import Annotated, Literal

from cyclopts import Parameter

from trainer.assess.config import PolicyConfig, StudyConfig
from trainer.commands.console import RunConsole
from trainer.runs import places

_WORDS = Parameter(consume_multiple=True, negative="")
_POLICY, _STUDY = PolicyConfig(), StudyConfig()


def assess(
    run: str | None = None,
    *,
    data: Annotated[tuple[str, ...], _WORDS],
    labels: Annotated[tuple[str, ...], _WORDS],
    out: str,
    features: str | None = None,
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
        Folder or bucket url of a run, or of one of its checkpoints.
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
        Weights instead of a run's: a run, a file, or a model of timm; its network is that of --recipe.
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
        run=None if run is None else places.read(run),
        init=init,
        recipe=recipe,
        data=data,
        labels=labels,
        out=places.only_local(out),
        features=None if features is None else places.only_local(features, "--features"),
        batching=batching,
        pool=pool,
        policy=objective,
        study=study,
    )
    judge(asked, RunConsole())
