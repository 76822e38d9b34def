"""Weights to begin with: of timm by name, of a file, or of a checkpoint of ours. No file is run, whatever it holds."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from shardkit.errors import ArgumentError
from shardkit.storage import nearest
from trainer.models.base import FIRST_KERNEL, EncoderConfig, Grey, Model, ModelConfig, Weights
from trainer.models.classifier import FC_NORM, HEAD, Classifier
from trainer.models.encoder import Encoder
from trainer.models.formats import DECODER
from trainer.models.left_out import is_last_norm, rest
from trainer.models.registry import described
from trainer.models.timm_names import parted, seen_in_pretraining, tags
from trainer.models.vit import VisionTransformer, VitConfig
from trainer.models.weight_files import heads_in, in_file
from trainer.models.with_heads import ENCODER, WithHeads
from trainer.runs import checkpoint, folder, places

_NOTHING: Mapping[str, Any] = MappingProxyType({})
RANDOM: Final = "weights begin at random"
"""The sentence on weights that are no one else's."""
_OF_A_HEAD = ("objective.kind", "objective.head.")
"""How the names of options begin that say what a head's weights mean."""


def load_initial(
    model: Model,
    source: str,
    channels: Grey = "sum",
    classes: Sequence[str] = (),
    options: Mapping[str, Any] = _NOTHING,
) -> str:
    """Begin with weights of elsewhere.

    Parameters
    ----------
    model
        Takes the weights: a model, or a classifier, whose encoder does.
    source
        A run's folder or url, or one of its checkpoints; a .pth, .pt, .bin or .safetensors file of timm's or of the
        original's masked autoencoder, with what programs wrap around it; or weights of timm by name and tag, e.g.
        vit_base_patch16_224.mae, which timm downloads.
    channels
        How kernels of three channels become ones of grey.
    classes
        Names of the classifier's classes: the head of a run with the same ones is taken, too, where the options agree.
    options
        Options of the command, as `run.json` has them: of which kind its task is, and what its head stands on.

    Returns
    -------
    str
        A sentence on what was taken, what it had been pre-trained on where that is known, and what begins at random.

    Raises
    ------
    ArgumentError
        Where the source is none of these, or belongs to another architecture.
    """
    if (run := places.run_at(source)) is not None:
        return places.named(from_run(model, checkpoint.named(run), classes, options))
    path = Path(source)
    state, where, heads = (*in_file(path, _mark(model)), heads_in(path)) if path.exists() else _timm(source)
    try:
        missing = model.load_weights(state, channels)
        _check_heads(model, heads)
    except ArgumentError as error:
        raise ArgumentError(f"--init {source}: {error}") from None
    seen = "" if path.exists() else f", {seen_in_pretraining(source)}{_scale(source)}"
    return f"weights are those of {source}{where}{seen}{rest(model, state, missing)}"


def _check_heads(model: Model, there: int | None) -> None:
    own = _own(model)
    if there is not None and isinstance(own, VisionTransformer) and own.config.heads != there:
        raise ArgumentError(
            f"it has {there} attention heads and this model {own.config.heads}, which no weights show: use"
            f" --model.heads {there}"
        )


def _mark(model: Model) -> str:
    """Return the name in files that shows where prefixes end: an encoder alone has it without one of ours."""
    own = _own(model)
    if isinstance(own, Encoder):
        return own.first_kernel
    return next((name for name in own.state_dict() if name.endswith(FIRST_KERNEL)), own.first_kernel)


def _own(model: Model) -> Model:
    """Return the encoder of a task or a method; a model that has none is its own."""
    return model.encoder if isinstance(model, WithHeads) else model


def _scale(name: str) -> str:
    """Say what images such weights expect: grey ones, by the mean over colours."""
    config = get_pretrained_cfg(name)
    if config is None:
        return ""
    mean, deviation = (sum(values) / len(values) for values in (config.mean, config.std))
    return (
        f" with images of mean {mean:.3g} and deviation {deviation:.3g} (--loader.normalise {mean:.3g},{deviation:.3g})"
    )


def from_run(model: Model, path: Path, classes: Sequence[str] = (), options: Mapping[str, Any] = _NOTHING) -> str:
    """Begin with a checkpoint's weights: all of them where it is of the same model, else those of the encoder.

    Parameters
    ----------
    model
        Takes the weights.
    path
        The checkpoint.
    classes, options
        As of `load_initial`.

    Returns
    -------
    str
        A sentence on what was taken.

    Raises
    ------
    TrainingError
        For a checkpoint of another architecture, or one that cannot be read.
    """
    there = checkpoint.names(path)
    labelled, own = HEAD in there, _own(model)
    facts = facts_of(path)
    began = _began(facts.get("weights"))
    state = dict(own.state_dict())
    before = _place(state, there)
    if not labelled and (model.state_dict().keys() <= there if own is not model else not before):
        checkpoint.weights(path, model)
        return f"all weights are those of {path}{began}"
    taken = {f"{before}{name}": value for name, value in state.items()}
    whole, missing = dict(taken), [name for name in state if _may_lack(name, there) and f"{before}{name}" not in there]
    for name in missing:
        del whole[f"{before}{name}"]
    other = _why_not_the_head(facts, classes, options) if labelled and isinstance(model, Classifier) else ""
    if other is None:
        whole |= {name: value for name, value in model.state_dict().items() if name.startswith("head.")}
    checkpoint.fill(path, whole)
    own.load_state_dict({name: taken[f"{before}{name}"] for name in state})
    known = {name.removeprefix(before): None for name in there}
    if other is None:
        return f"weights of encoder and head are those of {path}{rest(own, known, missing)}{began}"
    return f"the encoder's weights are those of {path}{rest(model, known, missing)}{other}{began}"


def _began(weights: str | None) -> str:
    """Say what the run of a checkpoint began with, at the end of a sentence; nothing where that is not known."""
    if not weights:
        return ""
    return "; that run began at random" if weights == RANDOM else f"; when that run began, {weights}"


def _place(state: Mapping[str, Tensor], there: frozenset[str]) -> str:
    """Return what comes before an encoder's names in a run: something in that of a task, or of a method with heads."""
    return ENCODER if any(f"{ENCODER}{name}" in there for name in state) else ""


def without_heads(config: ModelConfig, there: frozenset[str]) -> tuple[Model, str]:
    """Build the model of a run that has no task: the encoder alone, where a method put heads on it.

    Parameters
    ----------
    config
        Describes the run's model.
    there
        Names of the run's weights.

    Returns
    -------
    tuple of Model and str
        The model, with random weights, and what comes before its names in the run.
    """
    model = config.build()
    under = _place(model.state_dict(), there)
    return (config.encoder() if under and isinstance(config, EncoderConfig) else model), under


def _may_lack(name: str, there: frozenset[str]) -> bool:
    """Return whether a run need not have a parameter: one of a decoder, or the last norm where its head had one."""
    return name.startswith(DECODER) or (f"{FC_NORM}weight" in there and is_last_norm(name))


def _why_not_the_head(facts: Mapping[str, Any], classes: Sequence[str], options: Mapping[str, Any]) -> str | None:
    """Return what a sentence says of the head of a run: nothing where its classes are others; None where it fits."""
    if not classes or facts.get("classes") != [*classes]:
        return ""
    before = facts.get("config", {})
    asked = {n: v for n, v in options.items() if n.startswith(_OF_A_HEAD) and n != "objective.head.std"}
    other = [f"--{n.replace('_', '-')} {before.get(n)}" for n, value in asked.items() if before.get(n) != value]
    return f", for that of the run had {' '.join(other)}" if other else None


def described_encoder(source: str) -> ModelConfig | None:
    """Return the record of the encoder of a run that weights are to be taken of; None where nothing describes one.

    Parameters
    ----------
    source
        As of `load_initial`.

    Raises
    ------
    ArgumentError
        Where the folder is no run's.
    """
    if (run := places.run_at(source)) is None:
        return None
    options = facts_of(checkpoint.named(run)).get("config", {})
    if not options:
        return None
    found = described({name.removeprefix("model."): v for name, v in options.items() if name.startswith("model.")})
    if isinstance(found, VitConfig):
        return VitConfig(**{f.name: getattr(found, f.name) for f in fields(VitConfig)})
    return found


def facts_of(path: Path) -> dict[str, Any]:
    """Return what the run of a checkpoint says of itself; nothing of a checkpoint that was moved."""
    run = next((p for p in path.resolve().parents[:2] if (p / folder.FACTS).exists()), None)
    return {} if run is None else folder.facts(run)


def _timm(name: str) -> tuple[Weights, str, int | None]:
    """Return weights, no words on where they were, and the number of attention heads where blocks have some."""
    import timm

    arch, tag = _known(name)
    if not tag:
        raise ArgumentError(
            f"--init {name} does not say which weights: choose one of"
            f" {', '.join(f'{arch}.{one}' for one in tags(arch)) or 'another model, for timm has none of it'}"
        )
    try:
        found: nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:
        raise ArgumentError(
            f"the weights {name} could not be had from timm ({type(error).__name__}): download their file,"
            f" https://huggingface.co/timm/{name}, and name it with --init"
        ) from error
    heads = getattr(next((m for n, m in found.named_modules() if n == "blocks.0.attn"), None), "num_heads", None)
    return found.state_dict(), "", heads


def _known(name: str) -> tuple[str, str]:
    try:
        return parted(name)
    except ArgumentError as error:
        near = nearest(Path(name))
        if near is not None and "/" in name:  # a path, and no name of timm's
            raise ArgumentError(f"--init {name} does not exist; there is {near}") from None
        there = f" (there is {near})" if near is not None else ""
        raise ArgumentError(f"--init {name} is neither a file nor a run{there}, and {error}") from None
