"""Short names of runs and datasets, for tables and folders: no two have the same."""

import re
from collections.abc import Sequence

from shardkit.errors import ArgumentError
from shardkit.storage import is_remote, local_path, shown


def short_names(places: Sequence[str]) -> dict[str, str]:
    """Return a short name for each place: its last part, with as many before it as tell it from the others.

    Parameters
    ----------
    places
        Folders, or urls of buckets.

    Raises
    ------
    ArgumentError
        A place is named twice.
    """
    whole = {one: _whole(one) for one in places}
    if len(set(whole.values())) < len(places):
        twice = next(one for at, one in enumerate(places) if whole[one] in [whole[other] for other in places[:at]])
        raise ArgumentError(
            f"{shown(twice)} is named twice: name it once; another question about it takes another --out"
        )
    parts = {one: _parts(place) for one, place in whole.items()}
    lengths = dict.fromkeys(parts, 1)
    while longer := [one for one in _alike(parts, lengths) if lengths[one] < len(parts[one])]:
        for one in longer:
            lengths[one] += 1
    names: dict[str, str] = {}
    for one, name in _names(parts, lengths).items():
        numbered = (name if at == 1 else f"{name}-{at}" for at in range(1, len(places) + 2))
        names[one] = next(each for each in numbered if each not in names.values())
    return names


def _whole(place: str) -> str:
    return place.rstrip("/") if is_remote(place) else str(local_path(place).resolve())


def _parts(place: str) -> list[str]:
    """Return the parts of a path or url, without what is secret, or would lead out of a folder."""
    found = re.split(r"[/\\:]+", shown(place).replace("***@", ""))
    return [part for part in found if part.strip(".")] or ["root"]


def _names(parts: dict[str, list[str]], lengths: dict[str, int]) -> dict[str, str]:
    return {one: "-".join(of[-lengths[one] :]) for one, of in parts.items()}


def _alike(parts: dict[str, list[str]], lengths: dict[str, int]) -> list[str]:
    names = _names(parts, lengths)
    return [one for one, name in names.items() if list(names.values()).count(name) > 1]
