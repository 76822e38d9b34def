"""Write a synthetic PACS export, and on request the table of what a correct build makes of it.

python tools/make_export.py OUT --studies 300 --seed 0 --defects 0.1 --scale 1.0 --workers 2 --truth FILE.csv
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path

from shardkit.synthetic.export import Export, make_export
from shardkit.terminal.output import say


def main() -> None:
    """Parse the command line, write the export, print a count of outcomes."""
    parser = argparse.ArgumentParser(description="Write a synthetic PACS export.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--defects", type=float, default=0.1, help="share of files with something wrong, 0 to 0.5")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on heights and widths")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--truth", type=Path, help="CSV of path, verdict, reason, repairs, flags")
    args = parser.parse_args()
    export = make_export(
        args.out, args.studies, seed=args.seed, defects=args.defects, scale=args.scale, workers=args.workers
    )
    if args.truth:
        write_truth(export, args.truth)
    for outcome, count in sorted(Counter(f"{f.verdict} {f.reason}".strip() for f in export.files).items()):
        say(f"{count:6d}  {outcome}")


def write_truth(export: Export, path: Path) -> None:
    """Write one row a file as CSV, with repairs and flags joined by semicolons."""
    with path.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["path", "verdict", "reason", "repairs", "flags"])
        for f in export.files:
            rows.writerow([f.path, f.verdict, f.reason, ";".join(f.repairs), ";".join(f.flags)])


if __name__ == "__main__":
    main()
