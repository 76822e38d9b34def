"""`shardkit build`: scan, lay out, convert, assemble. A run finishes what the last one left, then takes in new files.

State lives in the private folder (scan parts, plan, ledger, the pseudonym key) and, while a build runs, in journals
beside the shards. A generation is one round of new files; its shards are never touched again.
"""

from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardkit.build import (
    ahead,
    deduplicate,
    exclusive,
    finalize,
    isolation,
    journal,
    ledger,
    relations,
    retake,
    scan,
    scan_rows,
    shard_plan,
)
from shardkit.build.checks import check_places, check_values
from shardkit.build.digests import hash_shard
from shardkit.build.ingest import WorkerConfig, convert_shard
from shardkit.build.known_facts import KnownFacts, known_facts
from shardkit.build.outcome import Outcome, unwanted
from shardkit.build.remarks import remarks
from shardkit.build.stages import Progress, Quiet
from shardkit.build.workers import Workers
from shardkit.build.workspace import BuildWorkspace
from shardkit.codecs import codec
from shardkit.config import BuildConfig
from shardkit.dataset import bin_choice, contents, manifest
from shardkit.dataset.bins import Bins
from shardkit.dataset.contents import JOURNALS
from shardkit.dataset.description import DatasetDescription
from shardkit.dataset.rounding import ceil_div
from shardkit.errors import ArgumentError, BuildError
from shardkit.formats import listing, shard_format
from shardkit.sources.entries import Entry
from shardkit.storage import Store, parquet, private, shown, spill, translate_errors
from shardkit.storage.spill import Spill

_NONE = np.zeros(0, np.uint64)  # no paths


def build(
    config: BuildConfig,
    progress: Progress | None = None,
    executor: Executor | None = None,
    retry: str | None = None,
) -> Outcome:
    """Run a build to its end.

    Parameters
    ----------
    config : BuildConfig
        From where, to where, and how.
    progress : Progress, optional
        Is told what happens.
    executor : Executor, optional
        Runs scan parts and shards; default: threads that each feed isolated child processes.
    retry : str, optional
        Takes quarantined files of that reason in again, as new files.

    Returns
    -------
    Outcome
        What the run ended with.

    Raises
    ------
    ArgumentError, BuildError, StorageError
        Each says what to do.
    """
    check_values(config)
    check_places(config)
    try:
        place = translate_errors(str(config.private))  # what other stores raise is a sentence already
        with place, exclusive.alone(config.private, Store(config.out)) as held:
            private.shut(config.private)
            return _Run(config, progress or Quiet(), executor, held).run(retry)
    except BrokenExecutor as error:
        what = error if isinstance(error, isolation.Stopped) else type(error).__name__
        raise BuildError(f"the workers were lost ({what}): run the same command again") from None


class _Run:
    def __init__(
        self, config: BuildConfig, progress: Progress, executor: Executor | None, held: exclusive.Running
    ) -> None:
        self.config, self.progress = config, progress
        self.spec, self.dataset = config.conversion, config.dataset
        codec(self.dataset.codec_name)
        # Refuse before the scan what could only fail after it.
        bin_choice.parse(self.dataset.bins, [1], [1], self.dataset.patch, self.dataset.rules.max_side)
        self.spec.source.files.check()
        self.store = Store(self.config.out)
        self.workspace = BuildWorkspace(config, self.store)
        self.workers = Workers(config.run.workers, executor, held.check)
        self.facts: KnownFacts | None = None

    @property
    def children(self) -> int:
        """Decoding processes of each process that runs tasks."""
        return self.config.children or self.config.run.workers

    def run(self, retry: str | None) -> Outcome:
        with self.workers:
            config = self.config
            self.facts = known_facts(
                self.spec.source, config.source, config.dataset.collection, config.facts, config.facts_columns
            )
            new, again = 0, set[str]()
            folder = self.workspace.folder(self.workspace.complete)
            if (folder / shard_plan.INDEX).exists():  # planned, then interrupted: finish that first
                again = retake.interrupted(self.workspace) if retry else again
                new += self._finish(shard_plan.GenerationPlan(folder))
            chosen = set[str]()
            if retry and self.workspace.complete and not again:
                chosen = retake.quarantined(self.workspace, retry, self.config.out)
            paths, others = retake.parted(self.workspace, chosen)
            known = scan_rows.SeenFiles(self.workspace.earlier_parts(), paths)
            listed, scanned = self._scan(known, others)
            if listed == 0 and self.workspace.complete == 0:
                raise ArgumentError(f"--source {shown(self.config.source)} holds no files: nothing to build")
            if scanned:
                new += self._finish(self._lay_out())
            journal.clear(self.store)
            outcome = self._close(known, new, (again or chosen) if retry else None)
            told = () if self.facts is None else self.facts.finish(self.store, self.config)
            return replace(outcome, told=(*told, *outcome.told))

    def _scan(self, known: scan_rows.SeenFiles, settled: set[bytes]) -> tuple[int, int]:
        """Read the headers of what no earlier pass has seen; return names listed, and new ones in this generation.

        `settled` are images of files that are read again which stay as they are.
        """
        generation = self.workspace.complete
        folder, done = self.workspace.folder(generation) / "scan", scan_rows.SeenFiles(self.workspace.parts(generation))
        number, listed, serial = len(self.workspace.parts(generation)), 0, self._scanned(generation)

        def fresh() -> Iterator[Entry]:
            nonlocal listed
            for entry in self.spec.source.list():
                listed += 1
                if entry not in known and entry not in done:
                    yield entry if self.facts is None else self.facts.of(entry)

        self.progress.stage("scan", None)
        limits = (self.dataset.rules, self.children, self.config.run.memory_limit, self.config.run.time_limit)
        for part in scan.parts(fresh(), scan.PART):
            self.workspace.begin()
            private.folder(folder)
            chunks = [part[i : i + scan.CHUNK] for i in range(0, len(part), scan.CHUNK)]
            jobs = ((i, (self.spec.source, chunk, *limits)) for i, chunk in enumerate(chunks))
            found: dict[int, list[scan.ScannedFile]] = {}
            for index, rows in self.workers.map(scan.scan_part, jobs):
                found[index] = rows
                self.progress.scanned(len(rows))
            files = (file for i in range(len(chunks)) for file in found[i])
            images = [one for file in files for one in file.images if one[0].path not in settled]
            parquet.write(scan_rows.rows(images, self.workspace.name, serial), folder / f"{number:05d}.parquet")
            number, serial = number + 1, serial + len(images)
        return listed, serial

    def _scanned(self, generation: int) -> int:
        """Images that a generation has scanned."""
        return sum(pq.read_metadata(p).num_rows for p in self.workspace.parts(generation))

    def _lay_out(self) -> shard_plan.GenerationPlan:
        generation, parts = self.workspace.complete, self.workspace.parts(self.workspace.complete)
        self.progress.stage("plan", None)
        earlier = [shard_plan.GenerationPlan(self.workspace.folder(g)) for g in range(generation)]
        numbers: dict[str, int] = {}
        for shard in (shard for plan in earlier for shard in plan.shards):
            number = int(shard.name.rpartition("/")[2])
            numbers[shard.bin.name] = max(numbers.get(shard.bin.name, 0), number + 1)
        heights, widths = shard_plan.sizes(parts)
        if numbers:
            bins = shard_plan.extend(earlier[-1].bins, heights, widths, self.dataset.rules.max_side)
        else:
            bins = self._bins(heights, widths)
        return shard_plan.make(
            self.workspace.folder(generation),
            parts,
            self.workspace.earlier_parts(),
            bins,
            numbers,
            self.dataset.shard_bytes,
            self.dataset.format,
            self.dataset.levels,
        )

    def _bins(self, heights: npt.NDArray[np.int64], widths: npt.NDArray[np.int64]) -> Bins:
        text, side = self.dataset.bins, self.dataset.rules.max_side
        if text.startswith("auto") and len(heights):  # later, larger images get the catch-all bin when they come
            side = int(max(heights.max(), widths.max()))
        return bin_choice.parse(text, heights, widths, self.dataset.patch, side)

    def _finish(self, plan: shard_plan.GenerationPlan) -> int:
        """Convert and assemble the current generation; returns its number of files."""
        generation = self.workspace.complete
        done = self._done(plan, generation)
        todo = sorted((s for s in plan.shards if s.name not in done), key=lambda s: -s.files)  # no long task at the end
        self.progress.stage("convert", sum(s.files for s in todo))
        # Few shards must still keep all children busy.
        workers = WorkerConfig(self.children, max(2, ceil_div(2 * self.config.run.workers, max(1, len(todo)))))
        jobs = ((s, (self.spec, plan.task(s), generation, workers)) for s in todo)
        with ahead.report_loading():
            for _, counts in self.workers.map(convert_shard, jobs):
                finalize.write_digests(self.workspace.digests(generation, counts.name), counts.digests)
                self.progress.converted(counts)
        self._hash(plan, generation)
        self._assemble(plan, generation)
        self.workspace.finish_generation()
        return self._scanned(generation)

    def _hash(self, plan: shard_plan.GenerationPlan, generation: int) -> None:
        """Read again the files of shards whose digests an interrupted run did not come to keep."""
        lacking = [s for s in plan.shards if not self.workspace.digests(generation, s.name).exists()]
        jobs = ((s, (self.spec, plan.task(s), generation)) for s in lacking)
        for shard, digests in self.workers.map(hash_shard, jobs):
            finalize.write_digests(self.workspace.digests(generation, shard.name), digests)

    def _done(self, plan: shard_plan.GenerationPlan, generation: int) -> set[str]:
        """Return names of finished shards: journaled, and there (unless nothing was left to write)."""
        journals = {name for name, _ in self.store.list(f"{JOURNALS}/g{generation:03d}")}
        objects = {name for name, _ in listing(self.store, shard_format(self.dataset.format))}
        done = set()
        for shard in plan.shards:
            if journal.object_name(generation, shard.name) in journals:
                rows = journal.read(self.store, generation, shard.name, ["verdict", "read"])
                if "read" not in rows.column_names:  # an earlier version's, with hashes of source files: replaced
                    continue
                verdicts = rows["verdict"].to_pylist()
                if shard.objects[0] in objects or "written" not in verdicts:
                    done.add(shard.name)
        return done

    def _assemble(self, plan: shard_plan.GenerationPlan, generation: int) -> None:
        self.progress.stage("assemble", None)
        store, folder = self.store, self.workspace.folder(generation)
        with spill.scratch(folder / spill.FOLDER) as place:
            old = self._before(plan, place)
            self._rewrite(deduplicate.exact_duplicates(store, plan, generation, old), generation)
            earlier = [self.workspace.folder(g) / finalize.FINGERPRINTS for g in range(generation)]
            found = finalize.gather(store, plan, generation, folder, place, old)
            thumbs = relations.Thumbnails([*earlier, folder / finalize.FINGERPRINTS])
            if self.dataset.rules.near_duplicates == "drop":
                finalize.write_links(folder, found)
                near = deduplicate.near_duplicates(store, plan, generation, old, found.samples, thumbs, folder)
                self._rewrite(near, generation)
                found = finalize.gather(store, plan, generation, folder, place, old)
            finalize.write_links(folder, found)
            links = [self.workspace.folder(g) / finalize.LINKS for g in range(generation + 1)]
            samples = relations.finish_samples(found.samples, thumbs, links, self.workspace.name.split, place)
            digests = [self.workspace.digests(generation, shard.name) for shard in plan.shards]
            finalize.write_ledger(folder, self.workspace.parts(generation), found, digests)
            self._publish(samples, plan.bins, generation)

    def _before(self, plan: shard_plan.GenerationPlan, place: Path) -> Spill:
        """Return the samples so far, but those of this generation, which an interrupted run may have published.

        They are not held against dataset.json: such a run may have written only one of the two.
        """
        ours = pa.array([shard.objects[0] for shard in plan.shards], pa.string())
        described = self._described(manifest.SCHEMA.empty_table(), plan.bins, "", {})
        with spill.writing(place / "old", manifest.SCHEMA) as sink:
            if self.store.exists(manifest.NAME):
                before = contents.spilled(self.store, place / "before", described=described)
                for table in before.blocks():
                    sink.write(table.filter(pc.invert(pc.is_in(table["shard"], ours))))
        return Spill(place / "old")

    def _rewrite(self, jobs: list[deduplicate.Rewrite], generation: int) -> None:
        work = ((job, (self.store, generation, job)) for job in jobs)
        for _ in self.workers.map(deduplicate.rewrite_shard, work):
            pass

    def _publish(self, samples: Spill, bins: Bins, generation: int) -> None:
        """Ledger, arrays and report first, dataset.json last: it is what makes a folder a dataset."""
        verdicts = self._ledger(generation + 1, samples, _NONE, _NONE)
        digest = manifest.write(samples, self.store)
        description = self._described(samples, bins, digest, verdicts)
        from shardkit.report import dataset_page

        contents.write_metadata(self.store, samples, description)
        dataset_page.write(self.store, samples, description)
        self.workspace.announce(digest)
        self.store.put(contents.NAME, description.to_json().encode())

    def _described(
        self, samples: pa.Table | Spill, bins: Bins, digest: str, verdicts: dict[str, dict[str, int]]
    ) -> DatasetDescription:
        return contents.describe(
            samples,
            bins,
            digest,
            format_name=self.dataset.format,
            codec_name=self.dataset.codec_name,
            fingerprint=self.workspace.name.fingerprint,
            arguments=self.config.fixed(),
            verdicts=verdicts,
        )

    def _ledger(
        self, generations: int, samples: Spill, changed: npt.NDArray[np.uint64], missing: npt.NDArray[np.uint64]
    ) -> dict[str, dict[str, int]]:
        """Write the ledger of all files, and return how many there are by verdict and reason."""
        paths = [self.workspace.folder(g) / ledger.NAME for g in range(generations)]
        parts = [part for g in range(generations) for part in self.workspace.parts(g)]
        target = self.workspace.root / ledger.NAME
        counts = ledger.merge(paths, samples, changed, missing, target, scan_rows.count_images(parts))
        return {verdict: dict(sorted(reasons.items())) for verdict, reasons in counts.items()}

    def _close(self, known: scan_rows.SeenFiles, new: int, again: set[str] | None) -> Outcome:
        with spill.scratch(self.workspace.root / spill.FOLDER) as place:
            columns = ["key", "flags", "patient", "study", "group", "split"]
            samples = contents.spilled(self.store, place / "samples", columns)
            return self._outcome(samples, known, new, again)

    def _outcome(self, samples: Spill, known: scan_rows.SeenFiles, new: int, again: set[str] | None) -> Outcome:
        changed, missing = ([np.zeros(0, np.uint64)] for _ in range(2))
        for part in self.workspace.earlier_parts():
            for of, paths in zip((changed, missing), known.gone(part), strict=True):
                words = (ledger.path_text(path).encode() for path in paths)
                of.append(np.fromiter(map(scan_rows.path_hash, words), np.uint64, len(paths)))
        others = np.unique(np.concatenate(changed)), np.unique(np.concatenate(missing))
        counts = self._ledger(self.workspace.complete, samples, *others)
        share = sum(counts["quarantined"].values()) / max(1, sum(sum(of.values()) for of in counts.values()))
        written, exact = self.workspace.root / ledger.NAME, pa.array(["duplicate_exact"])
        copies = ledger.matching(written, ["reason", "key", "patient", "flags"], "reason", exact)
        return Outcome(
            counts,
            samples.num_rows,
            new,
            len(others[0]),
            len(others[1]),
            share,
            share <= self.config.run.max_quarantine,
            unwanted(samples, counts, self.dataset.rules, lambda: scan_rows.modalities(self.workspace.earlier_parts())),
            None if again is None else ledger.reasons(written, again),
            remarks(copies, samples),
        )
