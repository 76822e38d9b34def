"""Boxes of a table, joined as its rows are: from pixels of the original file to pixels of the stored image."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from shardkit.labels.base import BOXES, KEY
from shardkit.labels.joining.matching import match
from shardkit.labels.rows import By
from shardkit.labels.targets import Targets
from shardkit.privacy import Pseudonyms
from shardkit.storage.spill import Spill


@dataclass(frozen=True)
class Boxed:
    """What became of boxes.

    Attributes
    ----------
    table : pyarrow.Table
        The boxes of samples, of the columns `shardkit.labels.base.BOXES`.
    unmatched : int
        Boxes of no sample, or of more files than one.
    outside : int
        Boxes that no pixel of their image lies in: left out.
    cut : int
        Boxes that reached beyond their image: cut at its edge.
    """

    table: pa.Table
    unmatched: int
    outside: int
    cut: int


def join_boxes(boxes: pa.Table, by: By, samples: pa.Table | Spill, targets: Targets, pseudonyms: Pseudonyms) -> Boxed:
    """Give boxes to samples, those of an exact duplicate to the sample that was kept.

    Parameters
    ----------
    boxes : pyarrow.Table
        Of the columns `shardkit.labels.rows.BOXES`.
    by : By
        What their references name.
    samples : pyarrow.Table or Spill
        The manifest's `key`, `height`, `width` and `halvings`.
    targets : Targets
        The ledger's files.
    pseudonyms : Pseudonyms
        Of the dataset.
    """
    coded = boxes["reference"].combine_chunks().fill_null("").dictionary_encode()
    matches = match(coded.dictionary, by, targets, samples, pseudonyms)
    of_reference = np.full(len(coded.dictionary), -1, np.int64)
    for i in range(len(of_reference)):  # a box lies in one image
        found = targets.sample[matches.targets[matches.starts[i] : matches.starts[i + 1]]]
        if len(there := np.unique(found[found >= 0])) == 1:
            of_reference[i] = there[0]
    at = of_reference[coded.indices.to_numpy()]
    known = at >= 0
    top, left, height, width = (boxes[side].to_numpy() for side in ("top", "left", "height", "width"))
    scale = 0.5 ** samples["halvings"].to_numpy()[at].astype(np.float64)
    edges = [top * scale, left * scale, (top + height) * scale, (left + width) * scale]
    rows, columns = (samples[side].to_numpy()[at].astype(np.float64) for side in ("height", "width"))
    inner = [np.clip(edge, 0, most) for edge, most in zip(edges, (rows, columns, rows, columns), strict=True)]
    inside = known & (inner[2] > inner[0]) & (inner[3] > inner[1])
    cut = inside & np.any([np.abs(a - b) > 1e-6 for a, b in zip(edges, inner, strict=True)], axis=0)
    chosen = pa.array(np.flatnonzero(inside))
    whole = [inner[0], inner[1], inner[2] - inner[0], inner[3] - inner[1]]
    table = pa.table(
        [
            samples["key"].combine_chunks().take(pa.array(at[inside])),
            boxes["label"].take(chosen),
            *(pa.array(side[inside]) for side in whole),
        ],
        schema=BOXES,
    )
    once = table.group_by(BOXES.names).aggregate([]).sort_by([(name, "ascending") for name in (KEY, *BOXES.names[1:])])
    return Boxed(
        table=once.select(BOXES.names),
        unmatched=int((~known).sum()),
        outside=int((known & ~inside).sum()),
        cut=int(cut.sum()),
    )
