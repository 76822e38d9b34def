"""A build's private folder: fixed arguments, pseudonym key, and per generation the scan parts, plan and ledger.

A generation is one round of new files; its shards are never touched again.
"""

import json
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from shardkit.config import BuildConfig, RunOptions, differences
from shardkit.dataset import contents
from shardkit.dataset.contents import JOURNALS
from shardkit.errors import BuildError
from shardkit.formats import FORMATS, listing
from shardkit.privacy import Pseudonyms, load_key
from shardkit.storage import Store, is_remote, local_path, private, shown, translate_errors

NAME, KEY = "build.json", "pseudonym.key"
_DICOM = "dicom"  # the kind of source that records of builds need not name


class BuildWorkspace:
    """A build's private folder, opened.

    Raises
    ------
    BuildError
        When it belongs to other arguments or places.
    """

    def __init__(self, config: BuildConfig, store: Store) -> None:
        self.root = config.private
        self._config, self._store, self._kind = config, store, config.conversion.source.KIND
        self._record: dict[str, Any] = {"format": 1, "complete": 0, "arguments": config.fixed(), "digests": []}
        self._record |= {"out": store.url, "source": _absolute(config.source)}
        if self._kind != _DICOM:
            self._record["images"] = self._kind
        with translate_errors(str(self.root)):
            if (self.root / NAME).exists():
                self._record = _read(self.root)
                self._check_arguments()
                self._check_dataset()
            else:
                self._check_new()

    @property
    def complete(self) -> int:
        """Generations that are finished; also the number of the one to work on."""
        return int(self._record["complete"])

    @cached_property
    def name(self) -> Pseudonyms:
        """The pseudonyms of this dataset; makes the key on first use."""
        return Pseudonyms(load_key(self.root / KEY))

    def begin(self) -> None:
        """Fix the arguments before the first row is kept, and see that the dataset's place can be written at all."""
        facts = self._config.facts is not None and not self._record.get("facts")
        if facts:
            self._record["facts"] = True
        if "fingerprint" in self._record:
            if facts:
                self._save()
            return
        probe = f"{JOURNALS}/probe"
        self._store.put(probe, b"")
        self._store.delete(probe)
        with translate_errors(str(self.root)):
            private.folder(self.root)  # the ledger names source paths
            self._record["fingerprint"] = self.name.fingerprint
            self._save()

    def announce(self, digest: str) -> None:
        """Record the digest that the dataset is about to get: from now on it and the last one are known as ours."""
        self._record["digests"] = [*self._record["digests"][-1:], digest]
        with translate_errors(str(self.root)):
            self._save()

    def finish_generation(self) -> None:
        """Record that the generation worked on is part of the dataset from here on."""
        self._record["complete"] = self.complete + 1
        with translate_errors(str(self.root)):
            self._save()

    def folder(self, generation: int) -> Path:
        """Return where a generation's private files lie."""
        return self.root / f"g{generation:03d}"

    def digests(self, generation: int, shard: str) -> Path:
        """Return where SHA-256 of a shard's source files are kept: beside the dataset they would tell who has which."""
        return self.folder(generation) / "digests" / f"{shard.removeprefix('shards/').replace('/', '-')}.parquet"

    def parts(self, generation: int) -> list[Path]:
        """Return a generation's scan parts."""
        return sorted((self.folder(generation) / "scan").glob("*.parquet"))

    def earlier_parts(self) -> list[Path]:
        """Return the scan parts of all finished generations."""
        return [part for generation in range(self.complete) for part in self.parts(generation)]

    def _save(self) -> None:
        private.write(self.root / NAME, json.dumps(self._record, indent=1).encode())

    def _check_new(self) -> None:
        """Refuse to build into what another build left."""
        url = self._store.url
        if self._store.exists(contents.NAME):
            raise BuildError(
                f"{url} holds a dataset, but {self.root} has no {NAME}: pass the --private folder it was built with, or"
                " another --out"
            )
        if any(True for form in FORMATS.values() for _ in islice(listing(self._store, form), 1)):
            raise BuildError(
                f"{url} holds shards that {self.root} knows nothing of: choose another --out, or remove them"
            )

    def _check_arguments(self) -> None:
        if changed := differences(self._record["arguments"], self._config.fixed()):
            raise BuildError(
                f"arguments changed since this dataset was begun ({', '.join(changed)}): repeat the old ones, or build"
                " into another --out"
            )
        self._check_kind()
        self._check_facts()
        source = _absolute(self._config.source)
        if source != (recorded := shown(self._record["source"])):
            if not self._config.run.source_moved:
                raise BuildError(
                    f"--source was {recorded}, now {source}: files are known by their path in the export,"
                    " so build another export into another --out, or pass --source-moved if it is the same one"
                )
            self._record["source"] = source
            self._save()
        if not (self.root / KEY).exists() or self._record["fingerprint"] != self.name.fingerprint:
            raise BuildError(
                f"the pseudonym key in {self.root} is not the one this dataset was built with: restore the old key, or"
                " build into another --out"
            )

    def _check_facts(self) -> None:
        """Refuse to add files of unknown patients to those whose patients a table told."""
        if self._record.get("facts") and self._config.facts is None:
            raise BuildError("this dataset was begun with --facts: name the table again, with rows of the new files")

    def _check_kind(self) -> None:
        """Refuse to add images of another kind of source: its files would all be quarantined, or read otherwise."""
        if (was := self._record.get("images", _DICOM)) != self._kind:
            raise BuildError(
                f"this dataset was built from {was} files, not {self._kind}: build it again from Python with the"
                " images= that it was begun with, or build into another --out"
            )

    def _check_dataset(self) -> None:
        """Refuse a place without the dataset that this folder knows; it may have been moved, finished or not."""
        url, known = self._store.url, self._record["digests"]
        there = self._store.exists(contents.NAME)
        if there and contents.description(self._store).digest not in known:
            raise BuildError(f"{url} holds another dataset than the one {self.root} belongs to: name its own --private")
        unfinished = url == self._record["out"] or any(True for _ in islice(self._store.list(JOURNALS), 1))
        if not there and (self.complete or not unfinished):
            raise BuildError(
                f"{self.root} belongs to the dataset at {self._record['out']}, which is not at {url}: name its place,"
                " or another --private for a new dataset"
            )


def _absolute(url: str) -> str:
    return shown(url).rstrip("/") if is_remote(url) else str(local_path(url).resolve())


def _read(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / NAME).read_text()))
    except ValueError:
        raise BuildError(f"{folder / NAME} is damaged: restore it, or build into another --out and --private") from None


def recorded(source: str, out: str, private: Path, run: RunOptions) -> BuildConfig:
    """Return a build as it was begun, but for what may change.

    Raises
    ------
    BuildError
        Where none was begun.
    """
    if not (private / NAME).exists():
        raise BuildError(f"{private} has no {NAME}: there is no build to retry; pass its --private folder")
    return BuildConfig.repeated(source, out, private, _read(private)["arguments"], run)
