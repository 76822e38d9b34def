"""The same files in archives: seconds of a build by those from a folder, and whether its shards are the same bytes.

The folder and each archive take turns in every repeat; the ratio is within a repeat.
"""

import hashlib
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.results import Record, spread

FOLDER = "folder"


def _zip(export: Path, source: Path) -> None:
    with zipfile.ZipFile(source / "export.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for path in _files(export):
            file.write(path, path.relative_to(export))


def _tar_gz(export: Path, source: Path) -> None:
    with tarfile.open(source / "export.tar.gz", "w:gz", compresslevel=1) as file:
        for path in _files(export):
            file.add(path, path.relative_to(export))


ARCHIVES: dict[str, Callable[[Path, Path], None]] = {"zip": _zip, "tar.gz": _tar_gz}
"""Name -> what packs the export's files into an empty folder."""


def _files(export: Path) -> list[Path]:
    """Return the export's files; what is planted as links is no image in any case."""
    return sorted(path for path in export.rglob("*") if path.is_file() and not path.is_symlink())


def compared(build: Callable[[Path], Record], export: Path, work: Path, repeats: int) -> list[Record]:
    """Build from the folder and from every archive.

    Parameters
    ----------
    build
        Builds a source into `work / "out"`, and returns the run's figures.
    export
        The folder of files.
    work
        Where archives are made.
    repeats
        How often each is built.

    Returns
    -------
    list of dict
        Archive, seconds, seconds by the folder's, and whether the shards are the same.
    """
    places = {FOLDER: export} | {name: work / f"archive-{name}" for name in ARCHIVES}
    for name, make in ARCHIVES.items():
        shutil.rmtree(places[name], ignore_errors=True)
        places[name].mkdir()
        make(export, places[name])
    seconds: dict[str, list[float]] = {name: [] for name in places}
    shards: dict[str, set[str]] = {name: set() for name in places}
    for _ in range(repeats):
        for name, place in places.items():
            seconds[name].append(build(place)["wall_s"])
            shards[name].add(_digest(work / "out"))
    rows = []
    for name in ARCHIVES:
        shutil.rmtree(places[name])
        ratios = [one / of for one, of in zip(seconds[name], seconds[FOLDER], strict=True)]
        row = {"archive": name, "seconds": spread(seconds[name]), "ratio": spread(ratios)}
        rows.append(row | {"same_shards": shards[name] == shards[FOLDER] and len(shards[name]) == 1})
    return rows


def _digest(out: Path) -> str:
    """Return a digest of the names and bytes of all shards."""
    found = hashlib.sha256()
    for path in sorted((out / "shards").rglob("*.tar")):
        found.update(path.relative_to(out).as_posix().encode())
        found.update(path.read_bytes())
    return found.hexdigest()


def words(rows: list[Record]) -> str:
    """Return the rows as a sentence."""
    said = ", ".join(f"{row['archive']} {row['ratio']['median']:.2f}" for row in rows)
    same = all(row["same_shards"] for row in rows)
    return f"Seconds of a build from archives of the same files, by the folder's: {said}; " + (
        "the shards are the same bytes." if same else "NOT all give the same shards."
    )
