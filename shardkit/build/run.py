"""`shardkit build`: scan, lay out, convert, assemble. A run finishes what the last one left, then takes in new files.

State lives in the private folder (scan parts, plan, ledger, the pseudonym key) and, while a build runs, in journals
beside the shards. A generation is one round of new files; its shards are never touched again.
"""

from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from shardkit.build import (
    ahead,
    exclusive,
    finalize,
    isolation,
    journal,
    retake,
    scan,
    scan_rows,
    shard_plan,
)
from shardkit.build.checks import check_places, check_values
from shardkit.build.digests import hash_shard
from shardkit.build.ingest import WorkerConfig, convert_shard
from shardkit.build.known_facts import KnownFacts, known_facts
from shardkit.build.last_stage import LastStage
from shardkit.build.outcome import Outcome
from shardkit.build.stages import Progress, Quiet
from shardkit.build.workers import Workers
from shardkit.build.workspace import BuildWorkspace
from shardkit.codecs import codec
from shardkit.config import BuildConfig
from shardkit.dataset import bin_choice
from shardkit.dataset.bins import Bins
from shardkit.dataset.contents import JOURNALS
from shardkit.dataset.rounding import ceil_div
from shardkit.errors import ArgumentError, BuildError
from shardkit.extras import has_ocr
from shardkit.formats import listing, shard_format
from shardkit.sources.entries import Entry
from shardkit.storage import Store, parquet, private, shown, translate_errors

_UNREAD = "text in images was looked for but not read: `pip install 'shardkit[ocr]'` tells side markers from names"


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
        self.last = LastStage(config, self.store, self.workspace, self.workers)
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
            outcome = self.last.close(known, new, (again or chosen) if retry else None)
            told = () if self.facts is None else self.facts.finish(self.store, self.config)
            unread = () if has_ocr() else (_UNREAD,)
            return replace(outcome, told=(*told, *unread, *outcome.told))

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
        self.progress.stage("assemble", None)
        self.last.assemble(plan)
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
