"""What may leave the hospital: an allow-list of value-checked fields, and keyed pseudonyms for everything else.

Metadata follow the Basic Profile of PS3.15 Annex E by construction: only fields named here are read, and only values of
a known enumeration or numeric range are kept; free text never is. Pixels are not cleaned: burned-in text is flagged.
"""

import hashlib
import hmac
import math
import os
import re
import secrets
from pathlib import Path
from typing import Any

from pydicom.charset import python_encoding
from pydicom.dataset import Dataset

from shardkit.errors import ArgumentError
from shardkit.storage import private

KEY_BYTES = 32

# PS3.16 CID 4 / Annex L code strings seen in radiography, and the spellings vendors use, -> one label.
_BODY_PARTS = {
    "HEAD": "SKULL, HEAD, FACE, FACIALBONES, ORBIT, NOSE, NASALBONES, SINUS, PARANASALSINUS, MANDIBLE, MAXILLA, ZYGOMA",
    "JAW": "JAW, TEETH, TOOTH, PANORAMIC, TMJ, DENTAL",
    "CSPINE": "CSPINE, C SPINE, CERVICALSPINE, CERVICAL SPINE, NECK",
    "TSPINE": "TSPINE, T SPINE, THORACICSPINE, THORACIC SPINE, DSPINE",
    "LSPINE": "LSPINE, L SPINE, LUMBARSPINE, LUMBAR SPINE, LSSPINE",
    "SPINE": "SPINE, WHOLESPINE, FULLSPINE, SACRUM, SSPINE, COCCYX",
    "CHEST": "CHEST, THORAX, LUNG, HEART, PORT CHEST",
    "RIBS": "RIB, RIBS, STERNUM",
    "CLAVICLE": "CLAVICLE",
    "SCAPULA": "SCAPULA",
    "SHOULDER": "SHOULDER, ACJOINT, SCJOINT",
    "HUMERUS": "HUMERUS, UPPERARM, UPPER ARM, ARM",
    "ELBOW": "ELBOW",
    "FOREARM": "FOREARM, RADIUS, ULNA, RADIUSULNA",
    "WRIST": "WRIST, SCAPHOID",
    "HAND": "HAND, FINGER, THUMB",
    "ABDOMEN": "ABDOMEN, KUB, LIVER, STOMACH, COLON, KIDNEY, BLADDER",
    "PELVIS": "PELVIS, SIJOINT, SIJOINTS",
    "HIP": "HIP",
    "FEMUR": "FEMUR, THIGH, UPPERLEG, UPPER LEG",
    "KNEE": "KNEE, PATELLA",
    "LOWERLEG": "LEG, TIBIA, FIBULA, LOWERLEG, LOWER LEG, TIBIAFIBULA, TIBFIB",
    "ANKLE": "ANKLE",
    "FOOT": "FOOT, TOE, CALCANEUS, HEEL",
    "BREAST": "BREAST",
    "EXTREMITY": "EXTREMITY, UPPEREXTREMITY, LOWEREXTREMITY",
    "WHOLEBODY": "WHOLEBODY, WHOLE BODY, SKELETON, BONE",
}
BODY_PARTS = {spelling: label for label, words in _BODY_PARTS.items() for spelling in words.split(", ")}
_VIEWS = (
    "AP PA LL RL LLD RLD LLO RLO RAO LAO RPO LPO MLO CC ML LM LMO XCC XCCL XCCM FB SIO ISO TAN AT CV"
    " LATERAL LAT OBLIQUE AXIAL SUNRISE TUNNEL OBL DECUB LORDOTIC SWIMMERS TOWNES WATERS CALDWELL FROGLEG"
    " SKYLINE MORTISE SCAPHOID Y"
)
_ENUMERATIONS = {
    "view": ("ViewPosition", frozenset(_VIEWS.split())),
    "presentation": ("PresentationIntentType", frozenset({"FOR PRESENTATION", "FOR PROCESSING"})),
    "voi_function": ("VOILUTFunction", frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"})),
    "detector": ("DetectorType", frozenset({"DIRECT", "SCINTILLATOR", "STORAGE", "FILM"})),
    "sex": ("PatientSex", frozenset({"M", "F", "O"})),
}
_VENDORS = {
    "agfa": "Agfa", "canon": "Canon", "carestream": "Carestream", "de gotzen": "De Gotzen",
    "del medical": "Del Medical",
    "drgem": "DRGEM", "fuji": "Fujifilm", "general electric": "GE", "gmm": "GMM",
    "hologic": "Hologic", "imaging dynamics": "IDC",
    "kodak": "Kodak", "konica": "Konica Minolta", "lorad": "Lorad", "lumisys": "Lumisys", "oldelft": "Oldelft",
    "philips": "Philips", "planmeca": "Planmeca", "samsung": "Samsung", "sedecal": "Sedecal", "shimadzu": "Shimadzu",
    "siemens": "Siemens", "sirona": "Sirona", "swissray": "Swissray", "toshiba": "Toshiba", "vidar": "Vidar",
    "ge ": "GE",
}  # fmt: skip
_LATERALITIES = frozenset("LRUB")
_ORIENTATION = re.compile(r"(?!.*(.).*\1)[APRLHFTMDV]{1,3}")
_ANY_NUMBER = (-1e6, 1e6)  # windows reach 16 bits times a slope; longer numbers may be identifiers


def load_key(path: Path) -> bytes:
    """Read the pseudonym key, or make it (0600) where absent. Raises ArgumentError for an unusable file."""
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = secrets.token_bytes(KEY_BYTES)
        private.folder(path.parent)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        private.write(temporary, key)
        try:
            os.link(temporary, path)  # whole, and only the first: of several who make a key at once, all use one
        except FileExistsError:
            pass
        except OSError:  # a filesystem without links
            if not path.exists():
                temporary.replace(path)
        temporary.unlink(missing_ok=True)
        key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ArgumentError(
            f"{path} is not a pseudonym key ({KEY_BYTES} bytes): restore it, or build under a new --private"
        )
    return key


class Pseudonyms:
    """Keyed one-way names (HMAC-SHA256, 128 bits, hex): equal values share one; only the key tells of what."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __call__(self, namespace: str, value: str) -> str:
        """32 hex digits for `value` (trimmed) within `namespace`."""
        message = f"{namespace}\0{value.strip()}".encode("utf-8", "surrogateescape")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:32]

    @property
    def fingerprint(self) -> str:
        """Names the key without revealing it; recorded so that another key is noticed."""
        return self("fingerprint", "shardkit")[:16]

    def split(self, patient: str, shares: tuple[float, float, float] = (0.80, 0.05, 0.15)) -> str:
        """train, val or test for a patient pseudonym, by keyed hash alone: nobody moves when others join."""
        at = int(self("split", patient)[:12], 16) / 16**12
        return "train" if at < shares[0] else "val" if at < shares[0] + shares[1] else "test"


def metadata(dataset: Dataset, demographics: bool = False) -> dict[str, Any]:
    """The allow-listed, value-checked fields of a header, None where absent or of an unknown value.

    `demographics` opts in to sex and to age in five-year steps, 90 and above as one.
    """
    spacing, spacing_source = _spacing(dataset)
    kept: dict[str, Any] = {
        "body_part": BODY_PARTS.get(_code(dataset, "BodyPartExamined") or ""),
        **{name: _enumerated(dataset, *spec) for name, spec in _ENUMERATIONS.items()},
        "laterality": _laterality(dataset),
        "orientation": _orientation(dataset),
        "manufacturer": _vendor(dataset),
        "spacing_row": spacing[0],
        "spacing_col": spacing[1],
        "spacing_source": spacing_source,
        "kvp": number(dataset, "KVP", 1, 500),
        "exposure": number(dataset, "Exposure", 0, 1e5),
        "window_center": _numbers(dataset, "WindowCenter"),
        "window_width": _numbers(dataset, "WindowWidth"),
        "age": _age(dataset),
    }
    if not demographics:
        kept["sex"] = kept["age"] = None
    return kept


def charset_problem(dataset: Dataset) -> bool:
    """Whether SpecificCharacterSet names an encoding that does not exist."""
    declared = dataset.get("SpecificCharacterSet")
    terms = [declared] if isinstance(declared, str) else list(declared or [])
    return any(term.strip() not in python_encoding for term in map(str, terms))


def text(dataset: Dataset, keyword: str) -> str:
    """A trimmed value as text for hashing; empty where absent or unreadable. Never written anywhere."""
    try:
        value = dataset.get(keyword)
        return "" if value is None else str(value).strip()
    except Exception:  # any undecodable value counts as absent
        return ""


def _code(dataset: Dataset, keyword: str) -> str | None:
    value = text(dataset, keyword).upper().replace("_", " ")
    return value or None


def _enumerated(dataset: Dataset, keyword: str, allowed: frozenset[str]) -> str | None:
    value = text(dataset, keyword).upper()
    return value if value in allowed else None


def _laterality(dataset: Dataset) -> str | None:
    for keyword in ("ImageLaterality", "Laterality", "FrameLaterality"):
        value = text(dataset, keyword).upper()
        if value in _LATERALITIES:
            return value
    return None


def _orientation(dataset: Dataset) -> str | None:
    try:
        values = [str(v) for v in dataset.get("PatientOrientation") or []]
    except Exception:
        return None
    return "\\".join(values) if len(values) == 2 and all(map(_ORIENTATION.fullmatch, values)) else None


def _vendor(dataset: Dataset) -> str | None:
    name = text(dataset, "Manufacturer").lower() + " "
    return next((vendor for prefix, vendor in _VENDORS.items() if name.startswith(prefix)), None)


def _spacing(dataset: Dataset) -> tuple[tuple[float | None, float | None], str | None]:
    for keyword, source in (("PixelSpacing", "pixel"), ("ImagerPixelSpacing", "imager")):
        values = _numbers(dataset, keyword)
        if values and len(values) == 2 and all(0.001 <= v <= 10 for v in values):
            return (values[0], values[1]), source
    return (None, None), None


def number(dataset: Dataset, keyword: str, low: float, high: float) -> float | None:
    """A single number within [low, high], to six digits; None otherwise."""
    values = _numbers(dataset, keyword)
    return values[0] if values and len(values) == 1 and low <= values[0] <= high else None


def _numbers(dataset: Dataset, keyword: str) -> list[float] | None:
    try:
        value = dataset.get(keyword)
        if value is None or value == "":
            return None
        several = hasattr(value, "__iter__") and not isinstance(value, str)
        numbers = [float(v) for v in (value if several else [value])]
    except Exception:
        return None
    sound = all(math.isfinite(n) and _ANY_NUMBER[0] < n < _ANY_NUMBER[1] for n in numbers)
    return [float(f"{n:.6g}") for n in numbers] if sound and 0 < len(numbers) <= 8 else None


def _age(dataset: Dataset) -> str | None:
    match = re.fullmatch(r"(\d{3})([DWMY])", text(dataset, "PatientAge"))
    if match is None:
        return None
    years = int(match[1]) // {"D": 365, "W": 52, "M": 12, "Y": 1}[match[2]]
    return "90+" if years >= 90 else f"{years // 5 * 5}-{years // 5 * 5 + 4}"
