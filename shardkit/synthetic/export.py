"""A synthetic PACS export whose right outcome is known, file by file.

The export is planned first (every file's spec, from the seed alone), then written; a file's bytes depend on
its spec only.  So the same seed gives the same tree with any number of workers, and a test can ask the plan
for the pixels a file was made from.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
import pydicom.uid as uids

from shardkit.synthetic.defects import DEFECTS, Defect, file_bytes
from shardkit.synthetic.radiographs import MAX_SIDE, REGIONS, synth_sizes
from shardkit.synthetic.records import BODY_PARTS, LOSSLESS_JPEG, LOSSY, ImageSpec, Patient, Study

T = TypeVar("T")

SMALLEST = 64  # pixels: a sound file never gets smaller, whatever the scale

_SYLLABLES = (
    (
        "QUELL",
        "NEBEL",
        "FALKEN",
        "WINTER",
        "ROHR",
        "EICHEN",
        "SALZ",
        "KUPFER",
        "DORN",
        "MOND",
        "STURM",
        "LINDEN",
    ),
    ("HORST", "WALD", "STEIN", "BACH", "GRUND", "FELS", "BRUCH", "TAL", "HAIN", "MOOR"),
    ("INGER", "MANN", "HOFER", "SCHMIDT", "BAUER", "MEISTER", "KRUGER", "LEITNER"),
)
_GIVEN = (
    "ANNELIESE",
    "BARTHOLOMAEUS",
    "CORNELIUS",
    "DOROTHEA",
    "EBERHARDINE",
    "FERDINAND",
    "GUNDULA",
    "HILDEGARD",
)
# Few different dates, so that a leak test's eight digits hardly ever turn up in honest numbers by chance.
_BIRTHS = tuple(f"19{31 + 3 * k}{1 + k % 12:02d}{3 + k:02d}" for k in range(16))
_DATES = tuple(f"20{11 + k}{12 - k % 12:02d}{2 + 2 * k:02d}" for k in range(10))
_HEADLESS = ("empty", "text", "zip", "symlink", "apple_double", "gzipped")  # these hold no header
_PLACES = ("Klinikum Nebelwald Nord", "Krankenhaus Quellgrund", "Radiologie am Falkenbruch")
_SHARES_BITS = ((8, 0.10), (10, 0.25), (12, 0.37), (14, 0.14), (15, 0.14))
_SHARES_SYNTAX = (
    (uids.ExplicitVRLittleEndian, 0.34),
    (uids.ImplicitVRLittleEndian, 0.14),
    (uids.DeflatedExplicitVRLittleEndian, 0.06),
    (uids.RLELossless, 0.10),
    (LOSSLESS_JPEG, 0.18),
    (uids.JPEGLSLossless, 0.15),
    (uids.JPEG2000Lossless, 0.03),
)
_SHARES_MODALITY = (("CR", 0.44), ("DX", 0.46), ("MG", 0.04), ("PX", 0.03), ("IO", 0.03))


@dataclass(frozen=True, slots=True)
class ExportFile:
    """One file and the outcome a correct build gives it; `reason` is "" for a written file."""

    path: str
    verdict: str
    reason: str
    repairs: tuple[str, ...]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Export:
    """All files, sorted by path, and every planted text that must not appear in a build's output."""

    files: tuple[ExportFile, ...]
    identifiers: frozenset[str]


def make_export(
    root: Path, studies: int, *, seed: int = 0, defects: float = 0.1, scale: float = 1.0, workers: int = 1
) -> Export:
    """Write a synthetic export below `root` and say what should become of each file.

    `defects` is the share of files with something wrong (0 to 0.5), `scale` multiplies heights and widths.
    The bytes depend on `studies`, `seed`, `defects` and `scale` only.
    """
    specs = plan_export(studies, seed=seed, defects=defects, scale=scale)
    for folder in {(root / spec.path).parent for spec in specs}:
        folder.mkdir(parents=True, exist_ok=True)
    write = partial(_write, root)
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            done = list(pool.map(write, specs, chunksize=4))
    else:
        done = [write(spec) for spec in specs]
    files = tuple(expected(spec) for spec, ok in zip(specs, done, strict=True) if ok)
    return Export(files, identifiers(specs))


def _write(root: Path, spec: ImageSpec) -> bool:
    """Write one file; False where the system refuses links."""
    path = root / spec.path
    if spec.target:
        try:
            path.unlink(missing_ok=True)
            path.symlink_to(os.path.relpath(root / spec.target, path.parent))
        except OSError:
            return False
        return True
    path.write_bytes(file_bytes(spec))
    return True


def expected(spec: ImageSpec) -> ExportFile:
    """Return the outcome that a correct build gives the file."""
    if not spec.defect:
        return ExportFile(spec.path, "written", "", ())
    kind = DEFECTS[spec.defect]
    return ExportFile(spec.path, kind.verdict, kind.reason, kind.repairs, kind.flags)


def identifiers(specs: Iterable[ImageSpec]) -> frozenset[str]:
    """Every planted text, UIDs and folder names included; none shorter than six characters."""
    found: set[str] = set()
    for spec in specs:
        found |= spec.study.identifiers()
        if spec.defect not in _HEADLESS:
            found |= {spec.sop_uid, spec.series_uid}
    return frozenset(found)


def plan_export(studies: int, *, seed: int = 0, defects: float = 0.1, scale: float = 1.0) -> tuple[ImageSpec, ...]:
    """Return the spec of every file, sorted by path."""
    if not 0 <= defects <= 0.5:
        raise ValueError(f"defects is a share of the files between 0 and 0.5, not {defects}")
    if studies < 1 or scale <= 0:
        raise ValueError(f"an export needs at least one study and a positive scale, not {studies} and {scale}")
    rng = np.random.default_rng((seed, 1))
    visits = _studies(studies, seed, rng)
    sound = [spec for k, visit in enumerate(visits) for spec in _series(visit, (seed, 2, k), scale, rng)]
    count = round(defects / (1 - defects) * len(sound))
    return tuple(sorted(_with_defects(sound, count, seed, scale, rng), key=lambda spec: spec.path))


def _studies(count: int, seed: int, rng: np.random.Generator) -> list[Study]:
    """About three visits for two patients."""
    patients: list[Patient] = []
    visits: list[Study] = []
    for k in range(count):
        if not patients or rng.random() < 0.67:
            patients.append(_patient(len(patients), rng))
            patient = patients[-1]
        else:
            patient = patients[int(rng.integers(len(patients)))]
        visits.append(_study(k, patient, seed, rng))
    return visits


def _patient(k: int, rng: np.random.Generator) -> Patient:
    first, second, third = (str(rng.choice(part)) for part in _SYLLABLES)
    number = f"PID{rng.integers(10**6, 10**7)}{k:04d}"
    return Patient(
        f"{first}{second}{third}",
        str(rng.choice(_GIVEN)),
        number,
        str(rng.choice(_BIRTHS)),
        "FM"[int(rng.integers(2))],
    )


def _study(k: int, patient: Patient, seed: int, rng: np.random.Generator) -> Study:
    date, accession = str(rng.choice(_DATES)), f"ACC{rng.integers(10**6, 10**7)}{k:05d}"
    folder = f"{patient.name}_{patient.number}/{date}_{accession}"
    return Study(
        patient=patient,
        uid=_uid(seed, "study", k),
        date=date,
        accession=accession,
        institution=str(rng.choice(_PLACES)),
        station=f"NBWRAD{rng.integers(10, 99)}X",
        operator=f"MTRA{rng.choice(_SYLLABLES[0])}^IRMGARD",
        physician=f"DR{rng.choice(_SYLLABLES[0])}{rng.choice(_SYLLABLES[1])}^THEOBALD",
        description=f"pain after fall, seen with {patient.family}",
        serial=f"SNR{rng.integers(10**7, 10**8)}",
        folder=folder,
    )


def _uid(*parts: object) -> str:
    return str(uids.generate_uid(entropy_srcs=[str(part) for part in parts]))


def _series(study: Study, seed: tuple[int, ...], scale: float, rng: np.random.Generator) -> list[ImageSpec]:
    """One to three images of one study, all of one modality and body region."""
    modality = _pick(_SHARES_MODALITY, rng)
    _, _, region_index = synth_sizes(1, rng)
    region = {"MG": "breast", "PX": "skull", "IO": "skull"}.get(modality, REGIONS[int(region_index[0])])
    if region == "ribs" and rng.random() < 0.5:
        region = "chest"
    suffix = ".dcm" if rng.random() < 0.5 else ""
    return [
        _image(study, (*seed, i), region, modality, f"{modality}_1/IM{i + 1:04d}{suffix}", scale, rng)
        for i in range(int(rng.integers(1, 4)))
    ]


def _image(
    study: Study,
    seed: tuple[int, ...],
    region: str,
    modality: str,
    name: str,
    scale: float,
    rng: np.random.Generator,
) -> ImageSpec:
    """Plan a sound file, its size drawn from the published distribution."""
    heights, widths, _ = synth_sizes(1, rng)
    bits = _pick(_SHARES_BITS, rng)
    syntax = _pick(_SHARES_SYNTAX, rng)
    if bits == 8:
        syntax = uids.JPEGBaseline8Bit if rng.random() < 0.5 else uids.ExplicitVRLittleEndian
    return ImageSpec(
        path=f"{study.folder}/{name}",
        study=study,
        seed=seed,
        region=region,
        view=str(rng.choice(BODY_PARTS[region][1])),
        modality=modality,
        height=_scaled(int(heights[0]), scale),
        width=_scaled(int(widths[0]), scale),
        bits=bits,
        photometric="MONOCHROME1" if rng.random() < 0.3 else "MONOCHROME2",
        syntax=str(syntax),
        sop_uid=_uid("sop", *seed),
        series_uid=_uid("series", *seed[:3]),
        number=seed[-1] + 1,
    )


def _scaled(side: int, scale: float) -> int:
    return min(max(round(side * scale), SMALLEST), MAX_SIDE)


def _pick(shares: tuple[tuple[T, float], ...], rng: np.random.Generator) -> T:
    weights = np.array([share for _, share in shares])
    return shares[int(rng.choice(len(shares), p=weights / weights.sum()))][0]


def _with_defects(
    sound: list[ImageSpec], count: int, seed: int, scale: float, rng: np.random.Generator
) -> list[ImageSpec]:
    """Add `count` defective files, the kinds in turn, each beside a sound file of its own."""
    out, extra = list(sound), []
    hosts = rng.permutation(len(sound))[:count]
    kinds = list(DEFECTS.items())
    for i, host in enumerate(hosts):
        name, kind = kinds[i % len(kinds)]
        if kind.twin and kind.twin != "uid":
            out[host] = _fit_original(out[host], kind)
        extra.append(_defective(out[host], name, kind, (seed, 3, i, 0), scale, rng))
    return out + extra


def _fit_original(spec: ImageSpec, kind: Defect) -> ImageSpec:
    """Make the sound original that a twin needs: lossless, and with the twin's bits and modality."""
    spec = replace(spec, bits=kind.bits or spec.bits, modality=kind.modality or spec.modality)
    lossy_or_slow = spec.syntax in LOSSY or spec.syntax in (kind.syntax, uids.JPEG2000Lossless)
    return replace(spec, syntax=str(uids.ExplicitVRLittleEndian)) if lossy_or_slow else spec


def _defective(
    host: ImageSpec, name: str, kind: Defect, seed: tuple[int, ...], scale: float, rng: np.random.Generator
) -> ImageSpec:
    """Return the spec of one defective file in the host's study. Twins sort after their original."""
    fresh = _image(host.study, seed, host.region, host.modality, _file_name(host, name, seed), scale, rng)
    fresh = replace(fresh, defect=name, bits=kind.bits or fresh.bits, modality=kind.modality or fresh.modality)
    syntax = kind.syntax or (uids.ExplicitVRLittleEndian if fresh.bits != 8 and fresh.syntax in LOSSY else fresh.syntax)
    fresh = replace(fresh, syntax=str(syntax))
    if kind.twin == "uid":
        return replace(fresh, sop_uid=host.sop_uid)
    if not kind.twin:
        return fresh
    twin = replace(host, path=fresh.path, defect=name)
    if kind.twin == "file":
        return twin
    if kind.twin == "link":
        return replace(twin, target=host.path)
    return replace(twin, sop_uid=fresh.sop_uid, number=host.number + 50, syntax=fresh.syntax)


def _file_name(host: ImageSpec, name: str, seed: tuple[int, ...]) -> str:
    """Return a path in the study's folder that sorts after every sound file's."""
    number = seed[2]
    if name == "text":
        return f"XR_9/EXPORT{number:04d}.TXT"
    if name == "zip":
        return f"XR_9/REPORT{number:04d}.DOCX"  # zip by its bytes; one named so would be read as a folder
    start, end = {"apple_double": ("._", ""), "gzipped": ("", ".gz")}.get(name, ("", ""))
    return f"XR_9/{start}IM{number:04d}{PurePosixPath(host.path).suffix}{end}"
