"""What archives cost a build, beside the folder of the same files: listing many members, and a compressed tar's index.

zip     listing a zip of n members, as a build does before its scan: seconds, and memory beyond the imports; and one
        member, read by a process that has not opened the archive yet, as each decoding process does once.
tar.gz  listing n members, which unpacks all of it once and makes seek points; listing again, by the kept index; and a
        member in any order, by a process with that index. `unpack` is what reading the file once takes zlib alone.
"""

import io
import shutil
import statistics
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from benchmarks import machine
from benchmarks.loader import Bench
from benchmarks.results import Record

SEED, STEP, READ = 0, 1 << 18, 100


def measured(bench: Bench, members: tuple[int, ...], tar_members: int, tar_bytes: int) -> Record:
    """Measure zips of several sizes and one compressed tar, each in a process of its own."""
    rows = []
    for count in members:
        place = bench.work / f"zip{count}"
        write_zip(place / "a.zip", count)
        rows.append(bench.child("archives:zip_of", str(place), count))
        shutil.rmtree(place)
    place = bench.work / "targz"
    write_tar_gz(place / "a.tar.gz", tar_members, tar_bytes)
    found = {"zip": rows, "tar_gz": bench.child("archives:tar_gz_of", str(place))}
    shutil.rmtree(place)
    return found


def _name(number: int) -> str:
    return f"export/patient{number // 10:06d}/series/IM{number:07d}.dcm"


def write_zip(path: Path, members: int) -> None:
    """Write a zip of small members with names as exports have them."""
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        for number in range(members):
            file.writestr(_name(number), b"a small file")


def write_tar_gz(path: Path, members: int, size: int) -> None:
    """Write a compressed tar of `members` files with the noise of radiographs: about `size` bytes before that."""
    import numpy as np

    path.parent.mkdir()
    rng, each = np.random.default_rng(SEED), size // members
    noise = rng.normal(2000, 40, each).astype("<u2").tobytes()
    with tarfile.open(path, "w:gz", compresslevel=1) as file:
        for number in range(members):
            info = tarfile.TarInfo(_name(number))
            info.size = each
            start = 2 * int(rng.integers(0, each // 2))
            file.addfile(info, io.BytesIO(noise[start : start + each]))


def zip_of(place: str, members: int) -> Record:
    """List a zip, then read one member as another process would."""
    from shardkit.sources.archives import ArchiveTree

    before = machine.peak_of_this_process()
    tree = ArchiveTree(place)
    seconds = _seconds(lambda: sum(1 for _ in tree.list()))
    mib = (machine.peak_of_this_process() - before) / 2**20
    first = _seconds(lambda: tree.read(f"a.zip/{_name(members // 2)}".encode()))
    return {"members": members, "list_s": seconds, "mib": mib, "first_read_s": first}


def tar_gz_of(place: str) -> Record:
    """List a compressed tar, list it again, and read members in any order."""
    import numpy as np

    from shardkit.sources.archives import ArchiveTree

    indexes = Path(place).with_name("indexes")
    tree = ArchiveTree(place, indexes=indexes)
    first = _seconds(lambda: sum(1 for _ in tree.list()))
    again = _seconds(lambda: sum(1 for _ in tree.list()))
    entries = list(tree.list())
    tree.read(entries[0].path)
    chosen = np.random.default_rng(SEED).integers(0, len(entries), READ)
    reads = [_seconds(lambda at=at: tree.read(entries[at].path)) for at in chosen]  # type: ignore[misc]
    found = {
        "members": len(entries),
        "bytes": sum(entry.size for entry in entries),
        "packed_bytes": (Path(place) / "a.tar.gz").stat().st_size,
        "index_bytes": sum(path.stat().st_size for path in indexes.iterdir()),
        "list_s": first,
        "list_again_s": again,
        "read_s": statistics.median(reads),
        "unpack_s": _seconds(lambda: _unpack(Path(place) / "a.tar.gz")),
    }
    shutil.rmtree(indexes)
    return found


def _unpack(path: Path) -> None:
    decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
    with path.open("rb") as file:
        while piece := file.read(STEP):
            decoder.decompress(piece)


def _seconds(run: Callable[[], object]) -> float:
    clock = time.perf_counter()
    run()
    return time.perf_counter() - clock


def readme(found: Record) -> str:
    """Return lines for benchmarks/README.md."""
    zips = ", ".join(f"{row['members']:,}: {row['list_s']:.1f} s, {row['mib']:,.0f} MiB" for row in found["zip"])
    tar = found["tar_gz"]
    return (
        f"Listing a zip by its members: {zips}. A tar.gz of {tar['members']:,} members, {tar['bytes'] / 1e9:.1f} GB"
        f" unpacked: {tar['list_s']:.0f} s to list it first (zlib alone unpacks it in {tar['unpack_s']:.0f} s),"
        f" {tar['list_again_s']:.1f} s by its index of {tar['index_bytes'] / 1e6:.0f} MB, and {1e3 * tar['read_s']:.0f}"
        " ms for a member, in any order."
    )
