"""Pictures of the worst errors, drawn beside predictions, so that the page can be made again without the data."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image

from shardkit import Dataset
from shardkit.errors import ShardkitError
from trainer.evaluate.page import errors
from trainer.evaluate.results import Evaluation
from trainer.runs.files import atomic_write

_SIDE, _QUALITY = 256, 82


def draw(of: Evaluation, data: Sequence[str], folder: Path) -> int:
    """Draw what is not drawn yet.

    Parameters
    ----------
    of
        Says which are the worst errors.
    data
        Datasets; those that no predictions are of are left alone.
    folder
        Of the page.

    Returns
    -------
    int
        How many could not be read: the page must not fail for one image.
    """
    digests = {entry.site: entry.first.about.digest for entry in of.entries}
    sets = {site.description.digest: site for site in map(Dataset, data)}
    lost = 0
    for name, keys in errors.keys(of).items():
        site = sets.get(digests[name])
        for key in keys if site is not None else ():
            path = errors.place(folder, name, key)
            if site is not None and not path.exists():
                lost += not _drawn(site, key, path)
    return lost


def _drawn(site: Dataset, key: str, path: Path) -> bool:
    try:
        picture = Image.fromarray(site[key].thumbnail(_SIDE))
    except ShardkitError:
        return False
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as fresh:
        fresh.write_bytes(buffer.getvalue())
    return True
