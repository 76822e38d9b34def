"""The last stage of a build: what all generations have becomes one dataset and one ledger.

Memory holds blocks of rows and a few narrow columns; the rest lies in spills in the private folder, which go with it.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.build import deduplicate, finalize, ledger, relations, scan_rows, shard_plan
from shardkit.build.outcome import Outcome, unwanted
from shardkit.build.remarks import remarks
from shardkit.build.workers import Workers
from shardkit.build.workspace import BuildWorkspace
from shardkit.config import BuildConfig
from shardkit.dataset import contents, manifest
from shardkit.dataset.bins import Bins
from shardkit.dataset.describing import describe
from shardkit.dataset.description import DatasetDescription
from shardkit.storage import Store, spill
from shardkit.storage.spill import Spill

_NONE = np.zeros(0, np.uint64)  # no paths


class LastStage:
    """Assembles generations, and closes runs.

    Parameters
    ----------
    config : BuildConfig
        The run's.
    store : Store
        The dataset's place.
    workspace : BuildWorkspace
        The private folder.
    workers : Workers
        Rewrite shards that lose samples.
    """

    def __init__(self, config: BuildConfig, store: Store, workspace: BuildWorkspace, workers: Workers) -> None:
        self.config, self.dataset = config, config.dataset
        self.store, self.workspace, self.workers = store, workspace, workers

    def assemble(self, plan: shard_plan.GenerationPlan) -> None:
        """Publish the dataset with the generation whose shards are all there, which is finished then."""
        generation = self.workspace.complete
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
            finalize.write_ledger(folder, self.workspace.parts(generation), found, digests, place)
            self._publish(samples, plan.bins, generation)
        self.workspace.finish_generation()

    def close(self, known: scan_rows.SeenFiles, new: int, again: set[str] | None) -> Outcome:
        """Say in the ledger which files are another or gone, and return what the run ended with.

        Parameters
        ----------
        known : SeenFiles
            Files of finished generations, which know by now what the source still has.
        new : int
            Files that this run took in.
        again : set of str or None
            Paths, as the ledger has them, of files that were taken in again.
        """
        with spill.scratch(self.workspace.root / spill.FOLDER) as place:
            columns = ["key", "flags", "patient", "study", "group", "split"]
            samples = contents.spilled(self.store, place / "samples", columns)
            return self._outcome(samples, known, new, again)

    def _before(self, plan: shard_plan.GenerationPlan, place: Path) -> Spill:
        """Return the samples so far, but those of this generation, which an interrupted run may have published.

        They are not held against dataset.json: such a run may have written only one of the two.
        """
        ours = pa.array([shard.objects[0] for shard in plan.shards], pa.string())
        described = self._described(manifest.SCHEMA.empty_table(), plan.bins, "", {})
        with spill.writing(place / "old", manifest.SCHEMA) as sink:
            if self.store.exists(manifest.NAME):
                before = contents.spilled(self.store, place / "before", described=described)
                for table in spill.blocks(before):
                    sink.write(table.filter(pc.invert(pc.is_in(table["shard"], ours))))
                (place / "before").unlink()
        return Spill(place / "old")

    def _rewrite(self, jobs: list[deduplicate.Rewrite], generation: int) -> None:
        work = ((job, (self.store, generation, job)) for job in jobs)
        for _ in self.workers.map(deduplicate.rewrite_shard, work):
            pass

    def _publish(self, samples: Spill, bins: Bins, generation: int) -> None:
        """Ledger, arrays and report first, dataset.json last: it is what makes a folder a dataset."""
        verdicts = self._ledger(generation + 1, samples, _NONE, _NONE)
        rows = spill.held(samples)
        digest = manifest.write(rows, self.store)
        description = self._described(rows, bins, digest, verdicts)
        from shardkit.report import dataset_page

        contents.write_metadata(self.store, rows, description)
        dataset_page.write(self.store, rows, description)
        self.workspace.announce(digest)
        self.store.put(contents.NAME, description.to_json().encode())

    def _described(
        self, samples: pa.Table | Spill, bins: Bins, digest: str, verdicts: dict[str, dict[str, int]]
    ) -> DatasetDescription:
        return describe(
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
