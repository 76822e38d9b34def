"""Maps of what a run looks at, how well they fit boxes, and a page about both."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shardkit import Dataset
from shardkit.errors import ArgumentError
from shardkit.labels import LabelTable
from shardkit.storage import shown
from shardkit.terminal.output import Terminal
from shardkit.terminal.words import listed
from trainer.assess.seen import open_plain, seen_by
from trainer.evaluate.asking import chosen_split
from trainer.explain import finding, words
from trainer.explain.anomaly import masks_a_round
from trainer.explain.boxes import Box
from trainer.explain.explaining import Asked, Explained, Method, check, explain, pooling
from trainer.explain.finding import Finds
from trainer.explain.gradcam import usual_layer
from trainer.explain.opened import Opened, open_run, plain_batching, plain_loader
from trainer.explain.page import Result, page
from trainer.models.classifier import Classifier
from trainer.runs import best
from trainer.runs.files import atomic_write
from trainer.runs.folder import Facts
from trainer.runs.training_data import normalise_at
from trainer.tasks.facts import FACTS

PAGE, BOXES, MAPS = "index.html", "boxes.json", "maps"
_ALL = "all"

Marked = Mapping[str, Sequence[tuple[str, Box]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explain:
    """What is asked for: see the command `explain`."""

    run: Path
    data: str
    out: Path
    labels: str | None = None
    method: Method | None = None
    label: str | None = None
    split: str | None = None
    keys: tuple[str, ...] = ()
    samples: int = 24
    layer: str = ""
    masks: int = 16
    seed: int = 0
    save_maps: bool = False


def write(asked: Explain, console: Terminal) -> None:
    """Make maps, hold them against boxes, and write the page and `boxes.json`.

    Raises
    ------
    ArgumentError
        For a run, samples, labels, a class or a layer that there are no maps of.
    TrainingError
        For a checkpoint that cannot be read.
    """
    data = Dataset(asked.data)
    table = None if asked.labels is None else data.label_table(asked.labels)
    opened = open_run(asked.run, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    method: Method = asked.method or ("gradcam" if isinstance(opened.model, Classifier) else "anomaly")
    check(opened, method)
    if asked.split is None:
        asked = replace(asked, split=_usual_split(opened.facts, data, asked.labels))
    part = [data[key] for key in asked.keys] or list(_split(data, asked.split))
    boxes, notes = _boxes(asked, {one.key for one in part}, table, opened if method == "gradcam" else None)
    keys = [one.key for one in part] if asked.keys else list(boxes) or _spread([o.key for o in part], asked.samples)
    wanted = Asked(method, _classes(asked, keys, boxes, opened, method), asked.layer, asked.masks)
    drawn = keys if asked.keys else _spread(keys, asked.samples)
    finds, kept, read, owners = Finds(), list[Explained](), list[str](), finding.patients(data, keys)
    for one in explain(opened, plain_loader(opened.facts, asked.data, keys, asked.seed), wanted):
        read.append(one.key)
        finds.add(one, boxes.get(one.key, ()), owners[one.key], asked.seed)
        if one.key in drawn:
            kept.append(one)
        if asked.save_maps:
            _save(one, asked.out / MAPS)
    about = _about(asked, opened, method, data, table)
    notes += [*_unread(keys, read), *_trained_on(opened, data, read)]
    result = Result(about, len(read), finds, boxes, sorted(kept, key=lambda one: one.key), notes)
    _write(asked.out, result)
    _tell(result, asked.out, console)


# ---------------------------------------------------------------------------------------------- what to look at


def _usual_split(facts: Facts, data: Dataset, labels: str | None) -> str:
    """Return the split that the run is evaluated on, of the labels that it was trained for where none are named."""
    named = labels or facts["config"].get("objective.labels")
    return chosen_split(facts, data, named if named in data.labels_names else FACTS)


def _split(data: Dataset, split: str | None) -> Dataset:
    return data if split == _ALL else data.filter(split=split)


def _spread(keys: Sequence[str], most: int) -> list[str]:
    """Return at most so many keys, evenly spaced: they are hashes, so that chance has chosen."""
    ordered = sorted(keys)
    if len(ordered) <= most:
        return ordered
    return [ordered[at] for at in np.linspace(0, len(ordered) - 1, most).round().astype(np.int64)]


def _boxes(
    asked: Explain, keys: set[str], table: LabelTable | None, classes_of: Opened | None
) -> tuple[Marked, list[str]]:
    """Return the boxes of these samples that are looked for, and sentences on those that are not.

    Parameters
    ----------
    asked
        The command.
    keys
        Of the samples.
    table
        The labels, if any were named.
    classes_of
        The run, where maps are of its classes.
    """
    if classes_of is not None and asked.label is not None and asked.label not in classes_of.classes:
        raise ArgumentError(f"the run has no class {asked.label!r}: choose --class of {', '.join(classes_of.classes)}")
    if table is None:
        return {}, ["No --labels were named: maps are held against no boxes."]
    if table.boxes is None:
        return {}, [f"The labels {asked.labels} have no boxes: maps are held against none."]
    there = sorted(set(table.boxes["label"].to_pylist()))
    if asked.label is not None and asked.label not in there:
        raise ArgumentError(f"the labels {asked.labels} have no box of {asked.label!r}: there are {', '.join(there)}")
    found = finding.of_table(table, keys, asked.label)
    known = there if classes_of is None else classes_of.classes
    left = sorted({label for own in found.values() for label, _ in own} - set(known))
    boxes = {key: [one for one in own if one[0] in known] for key, own in found.items()}
    boxes = {key: own for key, own in boxes.items() if own}
    notes = [f"Boxes of {', '.join(left)} are left out: the run has no such class."] if left else []
    within, all_of = (
        sum(map(len, found.values())),
        sum(asked.label in (None, x) for x in table.boxes["label"].to_pylist()),
    )
    if within < all_of and not asked.keys:
        notes.append(
            f"The split {asked.split} has {within:,} of the {all_of:,} boxes: --split all takes those of training, too."
        )
    return boxes, notes


def _classes(
    asked: Explain, keys: Sequence[str], boxes: Marked, opened: Opened, method: Method
) -> dict[str, tuple[str, ...]]:
    """Return the classes that are asked for of each sample; of those without a box, the most probable one."""
    if method != "gradcam":
        return {}
    if asked.label is not None:
        return dict.fromkeys(keys, (asked.label,))
    return {key: tuple(sorted({label for label, _ in own})) for key, own in boxes.items()}


def _unread(keys: Sequence[str], read: Sequence[str]) -> list[str]:
    """Name images that could not be read; refuse a page about nothing."""
    missing = sorted({*keys} - {*read})
    if missing and not read:
        raise ArgumentError(f"{listed(missing)} could not be read: run shardkit verify")
    return [f"Left out with their boxes, as they could not be read: {listed(missing)}."] if missing else []


def _trained_on(opened: Opened, data: Dataset, keys: Sequence[str]) -> list[str]:
    """Say how many of the images the run, and those that it began with, were trained on, and what is not known."""
    facts = opened.facts
    moved = {str(facts["data"]): data.url} if facts["digest"] == data.description.digest else {}
    seen = seen_by(str(opened.checkpoint), lambda config, place: open_plain(config, moved.get(place, place)))
    count = sum(key in seen.plain or key in seen.labelled for key in keys)
    who = "The run, or one that it began with," if facts.get("init") else "The run"
    told = [f"{who} was trained on {count:,} of these {len(keys):,} images."] if count else []
    return (
        told
        if seen.whole
        else [
            *told,
            f"Whether {who[0].lower()}{who[1:]} was trained on {'others' if count else 'these images'} is not known.",
        ]
    )


# ------------------------------------------------------------------------------------------------ what is written


def _about(asked: Explain, opened: Opened, method: Method, data: Dataset, table: LabelTable | None) -> dict[str, Any]:
    model, own = opened.model, dict[str, Any]()
    if method == "gradcam":
        assert isinstance(model, Classifier)
        own = {"layer": asked.layer or usual_layer(model), "kind": opened.kind, "classes": opened.classes}
    elif method == "rollout":
        own = {"by": pooling(model)}
    else:
        config: Any = model.config
        a_round = masks_a_round(config.mask_ratio)
        rounds = -(-asked.masks // a_round)
        own = {
            "masks": rounds * a_round,
            "rounds": rounds,
            "mask_ratio": config.mask_ratio,
            "norm_pix": config.norm_pix,
        }
    run = opened.checkpoint.resolve()
    named = best.run_of(run)
    return {
        "name": named.name,
        "run": f"{named.name}/{run.relative_to(named)}",
        "step": opened.step,
        "data": shown(asked.data),
        "digest": data.description.digest,
        "labels": asked.labels,
        "labels_digest": None if table is None else table.digest,
        "split": asked.split if not asked.keys else "of the named keys",
        "class": asked.label,
        "method": method,
        **own,
        "seed": asked.seed,
        "batching": plain_batching(opened.facts),
        "normalise": normalise_at(opened.facts, data),
    }


def _save(one: Explained, folder: Path) -> None:
    """Write an image's maps as a compressed NumPy file."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(one.maps)
    first = one.maps[names[0]]
    values: dict[str, Any] = {
        "classes": np.array(names, np.str_),
        "maps": np.stack([one.maps[name].values for name in names]).astype(np.float16),
        "tokens": np.stack([one.raw[name] for name in names]),
        "ys": first.ys,
        "xs": first.xs,
    }
    if one.made is not None and one.errors is not None:
        values |= {"reconstruction": one.made.astype(np.float16), "errors": one.errors.astype(np.float16)}
    with atomic_write(folder / f"{one.key}.npz") as fresh, fresh.open("wb") as file:
        np.savez_compressed(file, **values)


def _write(out: Path, result: Result) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(out / BOXES) as fresh:
        told = {"about": dict(result.about), "notes": list(result.notes), **result.finds.told()}
        fresh.write_text(json.dumps(told, indent=1))
    with atomic_write(out / PAGE) as fresh:
        fresh.write_bytes(page(result))


def _tell(result: Result, out: Path, console: Terminal) -> None:
    about, boxes = result.about, len(result.finds.boxes)
    what = f"{words.NAMES[about['method']]} of {about['run']}, step {about['step']:,}: {result.images:,} images"
    console.plain(f"{what}, {boxes:,} boxes" if boxes else what)
    for line in words.summary(result.finds):
        console.plain(line)
    for note in result.notes:
        console.plain(note)
    console.plain(f"page: {out / PAGE}; numbers: {out / BOXES}")
