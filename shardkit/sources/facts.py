"""What a table states of a file beside what the file states: whom it is of, and how it was taken."""

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from shardkit.privacy import Stated

if TYPE_CHECKING:
    from shardkit.sources.base import Identity, ImageFacts


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FactsRow:
    """A row of a table of facts. It counts before what the file says; None where the table says nothing.

    Attributes
    ----------
    patient, study, series, accession : str or None
        Whom and what it is of, in clear text: a build hashes it before anything is stored.
    modality : str or None
        DICOM modality code.
    view, body_part, laterality, sex, age : str or None
        As `shardkit.privacy.Stated` has them.
    spacing : tuple of float or None
        Row and column spacing in mm.
    bits : int or None
        Bits that count in a stored value, 1 to 16, where the file has room for more.
    """

    patient: str | None = None
    study: str | None = None
    series: str | None = None
    accession: str | None = None
    modality: str | None = None
    view: str | None = None
    body_part: str | None = None
    laterality: str | None = None
    sex: str | None = None
    age: str | None = None
    spacing: tuple[float, float] | None = None
    bits: int | None = None

    def over(self, facts: "ImageFacts") -> "ImageFacts":
        """Return what a header says, with whom it is of and its modality as the table has it."""
        found = self._given("patient", "study", "series", "accession")
        identity: Identity = replace(facts.identity, **found) if found else facts.identity
        return replace(facts, identity=identity, modality=facts.modality if self.modality is None else self.modality)

    def over_stated(self, stated: Stated) -> Stated:
        """Return what a file states, with what the table states instead."""
        found = self._given("view", "body_part", "sex", "age")
        if self.laterality is not None:
            found["laterality"] = (self.laterality,)
        if self.spacing is not None:
            found["pixel_spacing"] = self.spacing
        return replace(stated, **found) if found else stated

    def _given(self, *names: str) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def to_json(self) -> str:
        """Return what a conversion needs of it as text. Whom it is of is not in it: that is hashed by then."""
        kept = {k: v for k, v in asdict(self).items() if v is not None and k not in _IDENTITY}
        return json.dumps(kept, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "FactsRow":
        """Read what `to_json` wrote."""
        values = json.loads(text)
        if values.get("spacing") is not None:
            values["spacing"] = tuple(values["spacing"])
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in known})


_IDENTITY = ("patient", "study", "series", "accession")
