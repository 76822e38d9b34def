"""Names of timm's models and of their weights: which there are, and what the weights were pre-trained on."""

from difflib import get_close_matches

import timm
from timm.models import get_pretrained_cfg

from shardkit.errors import ArgumentError

_UNNAMED = "images that its tag does not name"
_SETS = {  # parts of a tag: what its weights have seen
    "in1k": "ImageNet-1k",
    "in12k": "ImageNet-12k (a part of ImageNet-21k)",
    "in21k": "ImageNet-21k",
    "in22k": "ImageNet-21k",
    "laion400m": "LAION-400M",
    "laion2b": "LAION-2B",
    "laiona": "LAION-aesthetic",
    "openai": "OpenAI's 400 M images with captions",
    "lvd142m": "LVD-142M, which holds images found with ImageNet",
    "lvd1689m": "LVD-1689M",
    "webli": "WebLI",
    "dfn2b": "DFN-2B",
    "dfn5b": "DFN-5B",
    "metaclip": "MetaCLIP's images with captions",
    "merged2b": "Merged-2B",
    "m38m": "Merged-38M",
    "m30m": "Merged-30M",
    "swag": "Instagram",
    "ig1b": "Instagram-1B",
    "yfcc100m": "YFCC-100M",
    "jft": "JFT",
    "sa1b": "SA-1B",
    "6m": _UNNAMED,
    "indomain": _UNNAMED,
}
_WITHOUT_LABELS = {"mae", "dino", "fcmae", "mim", "data2vec", "ijepa"}
_IMAGENET = {"tv": "1k", "tv2": "1k", "augreg": "21k", "mae": "1k", "dino": "1k", "fcmae": "1k"}
"""What a part of a tag means where no data set is named in it."""


def parted(name: str) -> tuple[str, str]:
    """Return architecture and tag of a name such as densenet121.tv_in1k; the tag is empty where none is named.

    Raises
    ------
    ArgumentError
        For a name or a tag that timm does not know: the nearest ones are named.
    """
    arch, dot, tag = name.partition(".")
    if not timm.is_model(arch):
        near = get_close_matches(arch, timm.list_models(), 5, 0.5)
        raise ArgumentError(f"{arch} is no model of timm's: {_choose(near) or 'timm.list_models() names them'}")
    if dot and tag not in (known := tags(arch)):
        near = [f"{arch}.{one}" for one in get_close_matches(tag, known, 5, 0.3) or known[:5]]
        raise ArgumentError(f"{name} is no weights of timm's: {_choose(near) or f'there are none of {arch}'}")
    return arch, tag


def tags(arch: str) -> list[str]:
    """Return the tags of an architecture's weights."""
    found: list[str] = timm.list_pretrained(f"{arch}.*")
    return [tag for own, _, tag in (name.partition(".") for name in found) if own == arch]


def _choose(names: list[str]) -> str:
    return f"choose one of {', '.join(names)}" if names else ""


def seen_in_pretraining(name: str) -> str:
    """Return words on what weights of timm's were pre-trained on, by their tag and timm's record of them.

    Parameters
    ----------
    name
        With a tag.
    """
    parts = parted(name)[1].split("_")
    sets = list(dict.fromkeys(_SETS[part] for part in parts if part in _SETS))
    if not sets:
        sets = [f"ImageNet-{_IMAGENET[part]}" for part in parts if part in _IMAGENET][:1]
    classes = {1000: "ImageNet-1k", 11821: _SETS["in12k"], 21841: "ImageNet-21k", 21843: "ImageNet-21k"}
    config = get_pretrained_cfg(name)
    labelled = None if config is None else classes.get(config.num_classes)
    if labelled is not None and labelled not in sets:
        sets.append(labelled)
    before = parts[: parts.index("ft")] if "ft" in parts else []
    if not sets or (before and not any(part in _SETS or part in _IMAGENET for part in before)):
        sets = [_UNNAMED, *sets]
    alone = len(sets) == 1 and not labelled and not _WITHOUT_LABELS.isdisjoint(parts)
    return f"pre-trained on {', then on '.join(sets)}" + (", without its labels" if alone else "")
