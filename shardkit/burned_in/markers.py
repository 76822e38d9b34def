"""Words that may stay in an image: they say how it was taken, and of nobody who.

A list of words, not a rule, so that a hospital can read it. Not on it, and so findings of kind "text":

- initials and numbers of radiographers, in lead or drawn: they are personal data of staff;
- names of hospitals, wards, rooms and stations, and dates and times: with others they point to a patient;
- exposure values, which the header has;
- any word that is not known. A word read with one wrong letter is unknown, unless it has eight letters or more;
- words that are names as well, as Li, Long, Cross, Post and Port; and two single letters, which may be initials.
"""

from __future__ import annotations

import re
import unicodedata

_SIDES = "L R LT RT LEFT RIGHT LINKS RECHTS GAUCHE DROITE IZQUIERDA DERECHA IZQ DX SX"
_VIEWS = (
    "AP PA LAT LATERAL OBL OBLIQUE RAO LAO RPO LPO AXIAL TANGENTIAL CC MLO ML LM XCCL CV FRONTAL SEITLICH SEITENLAGE"
    " INT EXT INTERNAL EXTERNAL ROTATION FLEXION EXTENSION NEUTRAL VALGUS VARUS STRESS INSPIRATION EXPIRATION INSP EXP"
)
_POSTURES = (
    "UPRIGHT ERECT STANDING STEHEND SITTING SITZEND SEATED SUPINE PRONE LYING LIEGEND RECUMBENT SEMI SEMIERECT"
    " SEMIUPRIGHT DECUBITUS DECUB DEBOUT ASSIS COUCHE DECUBITO ORTHOSTASE WEIGHT BEARING WEIGHTBEARING WB NWB"
    " BELASTET BELASTUNG BETTAUFNAHME WHEELCHAIR ON IN"
)
_OTHERS = "PORTABLE MOBILE XTABLE BEDSIDE PREOP POSTOP CALIBRATION CM MM"
MARKERS = frozenset(f"{_SIDES} {_VIEWS} {_POSTURES} {_OTHERS}".split())


def is_marker(text: str) -> bool:
    """Say whether a text has only permitted words; case, accents and punctuation are ignored.

    Parameters
    ----------
    text : str
        A line.

    Returns
    -------
    bool
        False as well where it has no word.
    """
    plain = unicodedata.normalize("NFKD", text).upper()
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    words = [word for word in re.split(r"[\W_]+", plain) if word]
    return bool(words) and sum(len(word) == 1 for word in words) < 2 and all(_permitted(word) for word in words)


def _permitted(word: str) -> bool:
    """Say whether a word is on the list, or, if it is long, one letter from a word that is."""
    if word in MARKERS:
        return True
    if word[-1:] in {"L", "R"} and len(word) > 5 and word[:-1] in MARKERS:  # a side in a circle, at the end of a word
        return True
    if len(word) < 8 or not word.isalpha():
        return False
    return any(
        len(known) == len(word) and sum(a != b for a, b in zip(word, known, strict=True)) == 1 for known in MARKERS
    )
