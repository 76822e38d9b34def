"""The command that looks for samples of one dataset inside another."""

import csv as comma

from shardkit.commands import console, errors


def overlap(*datasets: str, split: str | None = None, csv: bool = False) -> int:
    """Find samples of one dataset inside another; exit code 1 where one trains on what another tests.

    Equal pixels, near-duplicates (the rule of a build) and negatives count, and patients whom these link. Samples are
    named by their keys.

    Parameters
    ----------
    datasets
        Folders or bucket urls of two or more datasets.
    split
        Name of a labels table: datasets that have it are judged by its official split, not by that of patients' hashes.
    csv
        Print every pair as comma-separated values; the counts go to standard error.
    """
    from shardkit.commands.overlap_tables import counts, rows
    from shardkit.dataset.overlap import overlaps

    found = overlaps(datasets, split)
    if csv:
        writer = comma.writer(console.file)
        for line in rows(found):
            writer.writerow(line)
    for one in found:
        counts(one, errors if csv else console)
    return 1 if any(one.leaks or one.patients for one in found) else 0
