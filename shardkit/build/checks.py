"""What cannot be built is refused before anything is touched: values, formats, and places that lie in one another."""

from shardkit.codecs.base import LEVELS
from shardkit.config import BuildConfig
from shardkit.errors import ArgumentError
from shardkit.extras import has_ocr
from shardkit.formats import codecs_of, shard_format
from shardkit.sources.images import slices
from shardkit.storage import is_remote, local_path, shown

MAX_LEVELS = LEVELS  # which every image has


def check_values(config: BuildConfig) -> None:
    """Refuse numbers that cannot be used.

    Raises
    ------
    ArgumentError
        Names the option, and what it must be.
    """
    dataset, rules, run = config.dataset, config.dataset.rules, config.run
    for name, sound, wanted in (
        ("--patch", dataset.patch >= 1, "at least 1"),
        ("--shard-size", dataset.shard_bytes >= 1, "at least 1"),
        ("--workers", run.workers >= 1, "at least 1"),
        ("--max-quarantine", 0 <= run.max_quarantine <= 1, "a share between 0 and 1"),
        ("--min-side", 1 <= rules.min_side <= rules.max_side, "between 1 and --max-side"),
        ("--min-content", 0 <= rules.min_content < 1, "a share of at least 0 and below 1"),
        ("--time-limit", run.time_limit > 0, "above 0 seconds"),
        ("--memory-limit", run.memory_limit > 0, "above 0 GiB"),
        ("--modalities", len(rules.modalities) > 0, "one code or more"),
    ):
        if not sound:
            raise ArgumentError(f"{name} must be {wanted}")
    if rules.burned_in != "flag" and not has_ocr():
        raise ArgumentError(
            f"--burned-in {rules.burned_in} tells side markers from names by reading them, which needs the extra ocr:"
            " pip install 'shardkit[ocr]'"
        )
    slices.parse(dataset.slices)
    check_format(dataset.format, dataset.codec_name, dataset.levels)


def check_format(form: str, codec: str, levels: int) -> None:
    """Refuse a codec or levels that shards of this format do not have.

    Raises
    ------
    ArgumentError
        Names what there is.
    """
    codecs = codecs_of(shard_format(form))
    if codec not in codecs:
        raise ArgumentError(f"codec {codec} is not stored in {form} shards: choose one of {', '.join(codecs)}")
    if not 0 <= levels <= MAX_LEVELS:
        raise ArgumentError(f"--levels must be between 0 and {MAX_LEVELS}")
    if levels and shard_format(form).NESTED:
        raise ArgumentError("--levels is for Zarr shards: htj2k in tars holds all levels in one copy")


def check_places(config: BuildConfig) -> None:
    """Refuse a dataset inside the export, and private files inside the dataset or the export.

    Raises
    ------
    ArgumentError
        Names the option to change.
    """
    out, source, private = config.out, config.source, _place(str(config.private))
    if not is_remote(out) and local_path(out).exists() and not local_path(out).is_dir():
        raise ArgumentError(f"--out {out} is a file: name a folder")
    place, export = _place(out), _place(source)
    if private.startswith(place):
        raise ArgumentError(f"--private {private} lies inside --out: keys and paths must stay outside the dataset")
    if private.startswith(export):
        raise ArgumentError(f"--private {private} lies inside --source: choose a folder outside the export")
    if place.startswith(export):
        raise ArgumentError(f"--out {shown(out)} lies inside --source: the next build would read its own shards")
    if export.startswith(place):
        raise ArgumentError(f"--source {shown(source)} lies inside --out: choose a folder of its own for the dataset")


def _place(url: str) -> str:
    """Return a url or path resolved and with a slash at its end: what lies inside it starts with it."""
    return f"{url.rstrip('/') if is_remote(url) else local_path(url).resolve()}/".replace("//", "/")
