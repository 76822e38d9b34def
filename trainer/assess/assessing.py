"""An assessment from beginning to end: images are read once a network, then judged by each table of labels."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from shardkit import Loader
from shardkit.commands.normalising import normalise_text
from shardkit.terminal.output import Terminal
from shardkit.terminal.words import listed
from trainer.assess import page, record
from trainer.assess.config import PolicyConfig, StudyConfig
from trainer.assess.features import Images, Matrix, Pool, of_encoder, of_pixels, plain
from trainer.assess.seen import open_plain, seen_by
from trainer.assess.sites import answers, kind_of, site
from trainer.assess.study import Place, study
from trainer.assess.weights import of_recipe, of_run
from trainer.config import LoaderConfig
from trainer.evaluate.names import short_names
from trainer.models.encoder import Encoder
from trainer.runs import places
from trainer.tasks.config import TaskConfig

PIXELS, TRAINED = "32 x 32 pixels", "pre-trained"
RANDOM = {f"random, seed {seed}": seed for seed in (0, 1)}


@dataclass(frozen=True, kw_only=True)
class Assess:
    """What is asked for: see the command `assess`."""

    run: Path | None
    init: str | None
    recipe: str
    data: tuple[str, ...]
    labels: tuple[str, ...]
    out: Path
    features: Path | None
    batching: str | None
    pool: Pool
    policy: PolicyConfig
    study: StudyConfig


def assess(asked: Assess, console: Terminal) -> None:
    """Judge features; print tables, and write the page, figures and predictions.

    Raises
    ------
    ArgumentError
        For weights, labels or splits that cannot be used.
    """
    names = short_names(asked.data)
    weights = of_recipe(asked.recipe, asked.init) if asked.run is None else of_run(asked.run)
    if asked.batching is not None:
        weights = replace(weights, loader=replace(weights.loader, batching=asked.batching))
    trained, told = weights.trained()
    console.plain(told)
    networks = {TRAINED: trained, **{name: weights.random(seed) for name, seed in RANDOM.items()}}
    sites = {names[data]: _read(weights.loader_at(data), data, networks, asked) for data in asked.data}
    seen = seen_by(weights.source, open_plain)
    tables = []
    for labels in asked.labels:
        judged = study(_placed(asked.policy, labels, sites), asked.study)
        tables.append(record.Table(labels, judged, record.notes(judged, seen)))
        page.say(tables[-1], console)
    about: dict[str, Any] = {
        "weights": places.named(weights.source),
        "told": told,
        "data": list(asked.data),
        "pool": asked.pool,
    }
    about |= {"batching": weights.loader.batching, "normalise": _grey_levels(sites)}
    about |= {"policy": asdict(asked.policy), "study": asdict(asked.study)}
    record.write(asked.out, about, tables)
    console.plain(f"see {page.write(asked.out, about, tables)}")


@dataclass(frozen=True)
class _Read:
    """A dataset whose images have been read."""

    data: str
    loader: Loader
    features: Mapping[str, Matrix]


def _read(config: LoaderConfig, data: str, networks: Mapping[str, Encoder], asked: Assess) -> _Read:
    """Read all images of a dataset once a network, or take what was kept."""

    def opened(batching: str) -> Loader:
        return open_plain(replace(config, split="all", batching=batching), data, weighted=False)

    images = Images(opened, config.batching, asked.features or asked.out / "features")
    features = {name: of_encoder(network, images, asked.pool) for name, network in networks.items()}
    return _Read(data, opened(plain(config.batching)), {**features, PIXELS: of_pixels(images)})


def _placed(policy: PolicyConfig, labels: str, sites: Mapping[str, _Read]) -> list[Place]:
    """Return the sites with what a table of labels says; the first one's classes count everywhere."""
    first = next(iter(sites.values())).loader
    values = {name: value for name, value in asdict(policy).items() if name != "kind"}
    task, classes = TaskConfig(labels=labels, **values), tuple[str, ...]()
    task = replace(task, kind=policy.kind or kind_of(task.read(first), policy.columns))
    places = []
    for name, of in sites.items():
        said = answers(of.loader, task, classes)
        classes = said.classes
        places.append(Place(site(of.loader, of.data, name), said, of.features))
    return places


def _grey_levels(sites: Mapping[str, _Read]) -> str:
    """Say how images were normalised: in a word where all were in one way."""
    ways = {name: sorted({*map(normalise_text, of.loader.normalised.values())}) for name, of in sites.items()}
    first, *others = (listed(way) for way in ways.values())
    return first if {*others} <= {first} else "; ".join(f"{name}: {listed(way)}" for name, way in ways.items())
