"""Which images a retry takes in again, and which of the same files stay as they are."""

import shlex

from shardkit.build import ledger, scan_rows
from shardkit.build.workspace import BuildWorkspace
from shardkit.errors import ArgumentError
from shardkit.storage import parquet, shown


def quarantined(workspace: BuildWorkspace, reason: str, out: str) -> set[str]:
    """Return the paths, as the ledger has them, of what is quarantined for a reason.

    Raises
    ------
    ArgumentError
        Where there is none. `out` is where the dataset lies, for the sentence.
    """
    rows = parquet.read(workspace.root / ledger.NAME, ["path", "verdict", "reason"])
    chosen = ledger.select(rows, "quarantined", reason)["path"].to_pylist()
    if not chosen:
        raise ArgumentError(
            f"no file is quarantined as {reason}: `shardkit info {shlex.quote(shown(out))}` says what there is"
        )
    return set(chosen)


def interrupted(workspace: BuildWorkspace) -> set[str]:
    """Return paths of this generation that an earlier one has too: then it is a retry that was interrupted."""
    earlier = scan_rows.SeenFiles(workspace.earlier_parts())
    found = (one for part in workspace.parts(workspace.complete) for one in scan_rows.entries(part))
    return {ledger.path_text(one.path) for one in found if one in earlier}


def parted(workspace: BuildWorkspace, chosen: set[str]) -> tuple[set[bytes], set[bytes]]:
    """Return the paths to take in again, and those of other frames and slices of their files, which stay as they are.

    Parameters
    ----------
    workspace : BuildWorkspace
        With the scans of earlier generations.
    chosen : set of str
        Paths as the ledger has them.
    """
    if not chosen:
        return set(), set()
    found = [one for part in workspace.earlier_parts() for one in scan_rows.entries(part)]
    again = {one.path for one in found if ledger.path_text(one.path) in chosen}
    files = {one.file for one in found if one.path in again}
    return again, {one.path for one in found if one.file in files} - again
