"""A table of findings about a synthetic export, as a radiology group keeps one: a row per file, by its path."""

import csv
from collections.abc import Iterable
from pathlib import Path

from shardkit.synthetic.records import ImageSpec

COLUMN = "region"
PARTS = {
    "arm": ("shoulder", "elbow", "wrist", "hand", "clavicle", "scapula"),
    "leg": ("knee", "ankle", "foot"),
    "trunk": ("cervical spine", "thoracic spine", "lumbar spine", "skull", "ribs", "chest", "breast"),
}
"""Where the regions of the body that are drawn belong; skulls are few, and count to the trunk."""
PART_OF = {region: part for part, regions in PARTS.items() for region in regions}


def write_findings(path: Path, specs: Iterable[ImageSpec]) -> None:
    """Write a CSV of the columns path and region: arm, leg or trunk.

    Parameters
    ----------
    path : Path
        The file.
    specs : iterable of ImageSpec
        Of the export's files.
    """
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", COLUMN])
        table.writerows((spec.path, PART_OF[spec.region]) for spec in specs)
