"""`python -m tools.fuzz --files 10000 --seed 7`: figures by codec, and every finding with what makes it again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shardkit.terminal.output import say
from tools.fuzz.campaign import Report, campaign, kinds
from tools.fuzz.mutations import mutant


def main() -> int:
    """Run the fuzzer as the command line says; return 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--files", type=int, default=1000, help="mutants (default 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="index of the first mutant (default 0)")
    parser.add_argument("--real", type=Path, help="a folder of real DICOM files, of which the small ones join in")
    parser.add_argument("--notes", action="store_true", help="show what is excused, too, and what is lost")
    parser.add_argument("--save", type=Path, help="write mutant --first here, and run nothing")
    given = parser.parse_args()
    if given.save is not None:
        one = mutant(given.seed, given.first, given.real)
        given.save.write_bytes(one.data)
        say(f"{one.seed} | {'; '.join(one.what)}")
        return 0
    report = campaign(given.seed, given.files, given.real, given.first, given.notes, say)
    show(report, given.notes)
    return 1 if report.findings else 0


def show(report: Report, notes: bool = False) -> None:
    """Print the figures and all findings."""
    say(f"\n{report.table()}\n")
    for reason, count in report.reasons.most_common():
        say(f"{count:8,} {reason}")
    for findings in (report.findings, report.notes if notes else []):
        say(f"\n{len(findings)} {'findings' if findings is report.findings else 'notes'}")
        for kind, some in kinds(findings):
            say(f"\n== {kind} ({len(some)})")
            for one in some[:12]:
                say(f"  {one}")


if __name__ == "__main__":
    sys.exit(main())
