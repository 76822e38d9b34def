"""Where the weights of a run began, in words: which images they may have seen before."""

from pathlib import Path

from trainer.runs import folder
from trainer.runs.folder import Facts

_SEEN = {
    ("in21k", "in22k", "imagenet21k"): "ImageNet-21k, 14 million photographs with labels",
    ("in12k",): "ImageNet-12k, a part of ImageNet-21k",
    ("laion", "openai", "clip", "datacompxl", "dfn"): "photographs with captions of the web",
    ("lvd142m", "lvd1689m"): "photographs of the web, without labels",
    ("in1k", "imagenet"): "ImageNet",
    ("mae", "dino", "mocov3", "fcmae"): "ImageNet, without its labels",
}  # fmt: skip
_DEEP = 8  # runs that began with runs


def origin(facts: Facts, deep: int = 0) -> str:
    """Say what a run's weights began with: random numbers, a model of others, or a run, and what that one began with.

    Parameters
    ----------
    facts
        The run's `run.json`.
    deep
        How many runs were gone through.
    """
    init = facts.get("init")
    if not init:
        return "random weights"
    path = Path(init)
    run = next((one for one in (path, path.parent.parent, path.parent) if (one / folder.FACTS).exists()), None)
    if run is not None and deep < _DEEP:
        before = folder.facts(run)
        return f"the run {run.resolve().name} ({before['recipe']}), which began with {origin(before, deep + 1)}"
    if path.suffix in (".pth", ".pt", ".bin", ".safetensors") or path.is_absolute() or "/" in init:
        return f"the file {path.name}{_seen(path.name)}"
    return f"the model {init}{_seen(init)}"


def _seen(name: str) -> str:
    """Say what a name tells of the images behind weights."""
    words = name.lower().replace("-", "_").replace(".", "_").split("_")
    return next((f", trained on {what}" for marks, what in _SEEN.items() if set(marks) & set(words)), "")
