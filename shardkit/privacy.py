"""What may leave the hospital: an allow-list of value-checked fields, and keyed pseudonyms for everything else.

Metadata follow the Basic Profile of PS3.15 Annex E by construction: a source states no other fields than those of
`Stated`, and only values of a known enumeration or numeric range are kept; free text never is. Pixels are not cleaned:
burned-in text is flagged.
"""

import hashlib
import hmac
import math
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from shardkit.errors import ArgumentError
from shardkit.storage import private

Numbers = tuple[float, ...] | None
"""Numbers of one field; None where it is absent or holds no numbers."""
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
    " SKYLINE MORTISE SCAPHOID Y DP PD"
)
ENUMERATIONS = {
    "view": frozenset(_VIEWS.split()),
    "presentation": frozenset({"FOR PRESENTATION", "FOR PROCESSING"}),
    "voi_function": frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"}),
    "detector": frozenset({"DIRECT", "SCINTILLATOR", "STORAGE", "FILM"}),
    "sex": frozenset({"M", "F", "O"}),
}
"""Field of `Stated` -> the values of it that are kept."""
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
_TERMS = (
    "ANN AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT"
    " IVUS KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF"
    " RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG"
    " US VA XA XAPROTOCOL XC"
    " AS CD CF CP CS DD DF DM DS EC FA FS LP MA MS OPR ST VF"  # retired
)
MODALITIES = frozenset(_TERMS.split())
"""Defined terms of Modality (0008,0060), PS3.3 C.7.3.1.1.1: the only values of it that may be shown."""

_LATERALITIES = frozenset("LRUB")
_ORIENTATION = re.compile(r"(?!.*(.).*\1)[APRLHFTMDV]{1,3}")
_ANY_NUMBER = (-1e6, 1e6)  # windows reach 16 bits times a slope; longer numbers may be identifiers


def load_key(path: Path) -> bytes:
    """Read the pseudonym key, or make it, readable by its owner only, where it is absent.

    Raises
    ------
    ArgumentError
        For a file that is no key.
    """
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
        """Return 32 hex digits for `value` (trimmed) within `namespace`."""
        message = f"{namespace}\0{value.strip()}".encode("utf-8", "surrogateescape")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:32]

    @property
    def fingerprint(self) -> str:
        """Names the key without revealing it; recorded so that another key is noticed."""
        return self("fingerprint", "shardkit")[:16]

    def split(self, patient: str, shares: tuple[float, float, float] = (0.80, 0.05, 0.15)) -> str:
        """Return train, val or test for a patient's pseudonym, by keyed hash alone: nobody moves when others join."""
        at = int(self("split", patient)[:12], 16) / 16**12
        return "train" if at < shares[0] else "val" if at < shares[0] + shares[1] else "test"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Stated:
    """Metadata as a source states them: unchecked, maybe free text or identifying. `metadata` keeps what is known.

    Attributes
    ----------
    body_part, view, presentation, voi_function, detector, sex, manufacturer : str
        Text, empty where the source states nothing.
    age : str
        DICOM age string: three digits and D, W, M or Y.
    laterality : tuple of str
        What several fields say; the first valid one counts.
    orientation : tuple of str
        Directions of rows and columns, as DICOM's PatientOrientation.
    pixel_spacing, imager_spacing : tuple of float or None
        Row and column spacing in mm, in the patient and at the detector.
    kvp, exposure, slope, intercept : tuple of float or None
        Single numbers: kV, mAs, rescale slope and intercept. Several make none.
    window_center, window_width : tuple of float or None
        Display windows, in grey levels after slope and intercept.
    """

    body_part: str = ""
    view: str = ""
    presentation: str = ""
    voi_function: str = ""
    detector: str = ""
    sex: str = ""
    manufacturer: str = ""
    age: str = ""
    laterality: tuple[str, ...] = ()
    orientation: tuple[str, ...] = ()
    pixel_spacing: Numbers = None
    imager_spacing: Numbers = None
    kvp: Numbers = None
    exposure: Numbers = None
    slope: Numbers = None
    intercept: Numbers = None
    window_center: Numbers = None
    window_width: Numbers = None


class Metadata(TypedDict):
    """What is kept of `Stated`: columns of the manifest."""

    body_part: str | None
    view: str | None
    presentation: str | None
    voi_function: str | None
    detector: str | None
    sex: str | None
    laterality: str | None
    orientation: str | None
    manufacturer: str | None
    spacing_row: float | None
    spacing_col: float | None
    spacing_source: str | None
    kvp: float | None
    exposure: float | None
    slope: float | None
    intercept: float | None
    window_center: list[float] | None
    window_width: list[float] | None
    age: str | None


def metadata(stated: Stated, demographics: bool = False) -> Metadata:
    """Return the allow-listed, value-checked fields, None where absent or of an unknown value.

    Parameters
    ----------
    stated : Stated
        What the source says.
    demographics : bool
        Keep sex, and age in five-year steps, 90 and above as one.
    """
    spacing, spacing_source = _spacing(stated)
    kept: Metadata = {
        "body_part": BODY_PARTS.get(stated.body_part.upper().replace("_", " ")),
        "view": _enumerated("view", stated.view),
        "presentation": _enumerated("presentation", stated.presentation),
        "voi_function": _enumerated("voi_function", stated.voi_function),
        "detector": _enumerated("detector", stated.detector),
        "sex": _enumerated("sex", stated.sex) if demographics else None,
        "laterality": next((v for word in stated.laterality if (v := word.upper()) in _LATERALITIES), None),
        "orientation": _orientation(stated.orientation),
        "manufacturer": _vendor(stated.manufacturer),
        "spacing_row": spacing[0],
        "spacing_col": spacing[1],
        "spacing_source": spacing_source,
        "kvp": _number(stated.kvp, 1, 500),
        "exposure": _number(stated.exposure, 0, 1e5),
        "slope": _number(stated.slope, *_ANY_NUMBER),
        "intercept": _number(stated.intercept, *_ANY_NUMBER),
        "window_center": _numbers(stated.window_center),
        "window_width": _numbers(stated.window_width),
        "age": _age(stated.age) if demographics else None,
    }
    return kept


def shown_modality(modality: str) -> str:
    """Return a modality as it may be printed: a defined term, else "other"; "none" where there is none."""
    return modality if modality in MODALITIES else "other" if modality else "none"


def _enumerated(name: str, text: str) -> str | None:
    return value if (value := text.upper()) in ENUMERATIONS[name] else None


def _orientation(values: tuple[str, ...]) -> str | None:
    return "\\".join(values) if len(values) == 2 and all(map(_ORIENTATION.fullmatch, values)) else None


def _vendor(text: str) -> str | None:
    name = text.lower() + " "
    return next((vendor for prefix, vendor in _VENDORS.items() if name.startswith(prefix)), None)


def _spacing(stated: Stated) -> tuple[tuple[float | None, float | None], str | None]:
    for found, source in ((stated.pixel_spacing, "pixel"), (stated.imager_spacing, "imager")):
        values = _numbers(found)
        if values and len(values) == 2 and all(0.001 <= v <= 10 for v in values):
            return (values[0], values[1]), source
    return (None, None), None


def _number(found: Numbers, low: float, high: float) -> float | None:
    """Return a single number within [low, high], to six digits; None otherwise."""
    values = _numbers(found)
    return values[0] if values and len(values) == 1 and low <= values[0] <= high else None


def _numbers(found: Numbers) -> list[float] | None:
    if found is None:
        return None
    sound = all(math.isfinite(n) and _ANY_NUMBER[0] < n < _ANY_NUMBER[1] for n in found)
    return [float(f"{n:.6g}") for n in found] if sound and 0 < len(found) <= 8 else None


def _age(text: str) -> str | None:
    match = re.fullmatch(r"(\d{3})([DWMY])", text)
    if match is None:
        return None
    years = int(match[1]) // {"D": 365, "W": 52, "M": 12, "Y": 1}[match[2]]
    return "90+" if years >= 90 else f"{years // 5 * 5}-{years // 5 * 5 + 4}"
