"""The collections by name."""

from difflib import get_close_matches

from shardkit.errors import ArgumentError
from shardkit.sources.collections import (
    brats20,
    chexpert,
    covid19_radiography,
    covidx,
    fracatlas,
    mimic_cxr_jpg,
    mura,
    nih14,
    padchest,
    rsna_boneage,
    vindr_cxr,
)
from shardkit.sources.collections.base import Collection

_MODULES = (
    nih14, chexpert, mimic_cxr_jpg, padchest, vindr_cxr, covidx, covid19_radiography, brats20, mura, fracatlas,
    rsna_boneage,
)  # fmt: skip
COLLECTIONS: dict[str, Collection] = {module.COLLECTION.name: module.COLLECTION for module in _MODULES}


def collection(name: str) -> Collection:
    """Return a collection.

    Parameters
    ----------
    name : str
        What it is called on the command line.

    Raises
    ------
    ArgumentError
        Where there is none.
    """
    if name not in COLLECTIONS:
        near = get_close_matches(name.lower(), COLLECTIONS, 1, 0.5)
        remedy = f"did you mean {near[0]}?" if near else "`shardkit collections` lists them"
        raise ArgumentError(f"there is no collection {name!r}: {remedy}")
    return COLLECTIONS[name]
