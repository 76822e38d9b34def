"""What a run is trained on, as `run.json` names it: whether a dataset is that, a part or more of it, and seen how."""

import heapq
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit import Dataset, Loader
from shardkit.commands.normalising import normalise_text
from shardkit.errors import ArgumentError
from shardkit.labels.split_names import Choice, Split
from shardkit.terminal.words import listed

GONE = "the run was trained on images of this dataset, by a split that it has no more: on which ones is not known"
"""Where `split_at` finds none."""
_KEYS = 64  # keys that a dataset's samples are known by

Facts = dict[str, Any]
Rows = npt.NDArray[np.int64]


def split_rows(loader: Loader) -> Rows:
    """Return the rows of the loader's split, ascending."""
    samples = loader.plan.samples
    return np.sort(samples.row(np.arange(len(samples))))


def told(loader: Loader) -> list[Facts]:
    """Name what a loader's split is of.

    Parameters
    ----------
    loader
        Of the training split.

    Returns
    -------
    list of dict
        Of each member (one for a dataset): `name` in the mixture, `digest`, `keys`, the smallest ones of its samples in
        the split: a dataset that grew has another digest, but holds them still; and `normalise`, what happens to its
        grey levels. A member that has none in the split, but maybe in those that a checkpoint is chosen by, is known
        by `held`, the smallest keys of all of its samples.
    """
    keys, rows = loader.columns("key")["key"], split_rows(loader)
    found = []
    for name, of in loader.members.items():
        own = keys.take(pa.array(rows[(rows >= of.start) & (rows < of.stop)])).to_pylist()
        one = {"name": name, "digest": loader.digests[name], "keys": heapq.nsmallest(_KEYS, own)}
        one["normalise"] = normalise_text(loader.normalised[name])
        if not own:
            one["held"] = heapq.nsmallest(_KEYS, keys.slice(of.start, len(of)).to_pylist())
        found.append(one)
    return found


def with_former(former: list[Facts], now: list[Facts]) -> list[Facts]:
    """Return what a run is trained on, after what it was trained on before; each once, though runs of before say less.

    Parameters
    ----------
    former, now
        As of `told`, of the run as it was, and as it goes on.
    """
    return [*(one for one in former if all(each | one != each for each in now)), *now]


def renormalised(facts: Facts, loader: Loader) -> tuple[str, str, str] | None:
    """Return a member whose grey levels become something else than in the run so far; None where all stay.

    A mixture may be written anew with another `--normalise`, and its digest says nothing of that.

    Parameters
    ----------
    facts
        The run's. Runs of before do not say how their members were normalised.
    loader
        As the run is to go on.

    Returns
    -------
    name, was, now
        Its name, empty for a dataset; and both ways to normalise.
    """
    former = [one for one in facts.get("trained", ()) if "normalise" in one]
    for name, how in loader.normalised.items():
        same = [one for one in former if one["digest"] == loader.digests[name] or name == one["name"] != ""]
        if same and (was := same[-1]["normalise"]) != (now := normalise_text(how)):
            return name, was, now
    return None


def unlike(facts: Facts, init: str, loader: Loader, normalise: str) -> list[str]:
    """Say that weights have seen grey levels of another kind than those that they are trained on next.

    Parameters
    ----------
    facts
        Of the run that the weights are of. Runs of before name no member's own way.
    init
        What they are called.
    loader
        What they are trained on next.
    normalise
        Its `--loader.normalise`: a mixture may say something else of its members.

    Returns
    -------
    list of str
        A sentence; none where the run has seen images of all these ways, or does not say.
    """
    was = {str(one["normalise"]) for one in facts.get("trained", ()) if "normalise" in one}
    was = was or {str(how) for how in (facts.get("config", {}).get("loader.normalise"),) if how is not None}
    now = {normalise_text(how) for how in loader.normalised.values()} - was
    if not was or not now:
        return []
    usable = len(was) == 1 and now == {normalise}
    remedy = f"; --loader.normalise {listed(sorted(was))} gives them what they know" if usable else ""
    ways = f"normalised by {listed(sorted(was))}, and here images are by {listed(sorted(now))}"
    return [f"the weights of {init} were trained on images {ways}{remedy}"]


def trained_at(facts: Facts, site: Dataset) -> bool:
    """Return whether a dataset was in a run's training: its samples, or as a member of its mixture with other splits.

    Parameters
    ----------
    facts
        The run's. Older runs name no samples: they are known by the digest alone.
    site
        The dataset, whole.
    """
    return site.description.digest == facts["digest"] or bool(_parts(facts, site))


def normalise_at(facts: Facts, site: Dataset) -> str:
    """Return what happens to the grey levels of a dataset's images, where a run is asked about them.

    A mixture may say it of its members one by one, and the run has seen each of them so. Images of elsewhere are
    normalised by the run's `--loader.normalise`.

    Parameters
    ----------
    facts
        The run's. Runs of before name no member's own way: theirs is `--loader.normalise`, too.
    site
        The dataset, whole.

    Returns
    -------
    str
        As `--loader.normalise` has it.
    """
    general = str(facts["config"]["loader.normalise"])
    return next((str(one["normalise"]) for one in _parts(facts, site) if "normalise" in one), general)


def members_normalised(facts: Facts) -> dict[str, str]:
    """Return how a run saw the members of its mixture, by name; nothing of a single dataset, or of a run of before."""
    return {one["name"]: one["normalise"] for one in facts.get("trained", ()) if one["name"] and "normalise" in one}


def _parts(facts: Facts, site: Dataset) -> list[Facts]:
    """Return what a dataset is, or has samples of, among what a run was trained on; what it shares most with first."""
    newest_first = facts.get("trained", [])[::-1]
    if same := [one for one in newest_first if one["digest"] == site.description.digest]:
        return same
    own = [{*one["keys"], *one.get("held", ())} for one in newest_first]
    keys = {key for each in own for key in each}
    known = site.table(["key"])["key"]
    here = set(known.filter(pc.is_in(known, pa.array(keys, pa.string()))).to_pylist())
    shared = [(len(here & each), one) for each, one in zip(own, newest_first, strict=True)]
    return [one for count, one in sorted(shared, key=lambda item: -item[0]) if count]


def keys_of(facts: Facts, loader: Loader) -> tuple[frozenset[str], bool]:
    """Return the keys of the images that a run was trained on, and whether that is known to be all of them.

    It is not where the dataset or its split have changed since, or where they did while the run was trained: the
    images of before are then known by some keys, or by none.

    Parameters
    ----------
    facts
        The run's.
    loader
        Of its dataset and split, as they are now.
    """
    keys = frozenset(loader.columns("key")["key"].to_numpy()[split_rows(loader)])
    digests = set(loader.digests.values())
    known = (
        keys.issuperset(one["keys"]) if one["keys"] else one["digest"] in digests for one in facts.get("trained", ())
    )
    return keys, loader.state_dict()["manifest_digest"] == facts["digest"] and all(known)


def split_at(facts: Facts, site: Dataset) -> Choice | None:
    """Return what a run's training split is at a dataset; None where it has no such split, or has it no more.

    Parameters
    ----------
    facts
        The run's. Its split may be a list of several tables' splits, of which each member of a mixture takes its own.
    site
        The dataset.
    """
    named = Split.read(str(facts["config"]["loader.split"]))
    for table in named.tables:
        with suppress(ArgumentError):
            site.label_table(table)  # a plain web server lists only those that were read
    mixed = any(one["name"] for one in facts.get("trained", ()))
    return named.of(site.labels_names) or (named.elsewhere if mixed else None)
