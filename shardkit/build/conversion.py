"""One file, from its bytes to an encoded and checked image, or to a verdict. Runs in a child process."""

import hashlib
from dataclasses import replace

from shardkit import burned_in, content, privacy
from shardkit.build.converted import Converted
from shardkit.burned_in.findings import text_columns
from shardkit.codecs.placement import Placement
from shardkit.config import Conversion
from shardkit.content import Content, Statistics, Thumbnail
from shardkit.dataset.hashes import pixel_hash
from shardkit.dataset.sample_row import OriginColumns, PixelColumns
from shardkit.errors import Quarantined, Verdict
from shardkit.formats.encoding import encode
from shardkit.sources.base import Decoded, ImageFacts, LoadedImage
from shardkit.sources.entries import Entry
from shardkit.sources.files import Unread
from shardkit.sources.last import Last
from shardkit.triage import halvings, judge_header, judge_pixels, judge_text

_digests = Last[str](len, 64)
_CHANGED = "the file changed while the build ran: `shardkit retry --class io_error` takes it in"


def convert_file(spec: Conversion, entry: Entry, placement: Placement) -> Converted:
    """Convert one file; what is wrong with it is a verdict.

    Parameters
    ----------
    spec : Conversion
        What all files of a build share.
    entry : Entry
        The image in the source, as it was scanned.
    placement : Placement
        Its image, as the scan saw it, in its bin.

    Raises
    ------
    MemoryError
        Maybe this process's fault: the file is tried once more in a new one.
    """
    sha256: str | None = None
    try:
        data = spec.source.read(entry)
        sha256 = _digest(entry, data)
        if len(data) != entry.size:
            raise Quarantined("io_error", _CHANGED)
        image = _stated(entry, spec.source.load(entry, data))
        flags = judge_header(image.facts, spec.dataset.rules)
        return _convert(spec, image, flags, placement, sha256)
    except Verdict as verdict:
        unsure = isinstance(verdict, Unread)
        return Converted(verdict.verdict, verdict.reason, verdict.message, sha256, unsure=unsure)  # type: ignore[arg-type]
    except MemoryError:
        raise
    except Exception as error:
        return Converted("quarantined", "internal_error", f"{type(error).__name__} while converting", sha256)


def _digest(entry: Entry, data: bytes) -> str:
    """Return the SHA-256 of a file; of one that holds several images, once for all of them."""
    if entry.part is None:
        return hashlib.sha256(data).hexdigest()
    return _digests.of(data, None, lambda: hashlib.sha256(data).hexdigest())


def _stated(entry: Entry, image: LoadedImage) -> LoadedImage:
    """Return an image with what a table says of its file."""
    if entry.facts is None:
        return image
    return replace(image, facts=entry.facts.over(image.facts), stated=entry.facts.over_stated(image.stated))


def _convert(
    spec: Conversion, image: LoadedImage, flags: tuple[str, ...], placement: Placement, sha256: str
) -> Converted:
    facts, rules = image.facts, spec.dataset.rules
    decoded = image.decode(spec.dataset.invert)
    pixels, times = decoded.pixels, halvings(facts.height, facts.width, rules.max_side)
    for _ in range(times):
        pixels = content.halve(pixels)
    if pixels.shape != (placement.height, placement.width):
        raise Quarantined("io_error", _CHANGED)
    lines = burned_in.find(pixels, decoded.bits, read=None if rules.burned_in == "flag" else True)
    pixels, marks, mended = judge_text(pixels, lines, rules)
    small, histogram = content.survey(pixels)
    padded = decoded.padding > 0
    found = content.find_content(pixels, small, padded=padded)
    stats = content.statistics(pixels, found.mask, histogram, padded=padded)
    judge_pixels(found, stats, rules)
    thumb, digest = content.thumbnail(small), pixel_hash(pixels, decoded.bits)
    repairs = facts.repairs + decoded.repairs + mended
    kept = privacy.metadata(image.stated, spec.dataset.demographics)
    return Converted(
        "written",
        "ok_repaired" if repairs else "ok",
        None,
        sha256,
        repairs,
        flags + marks + decoded.flags,
        encode(pixels, decoded.bits, placement, spec.dataset.codec_name, spec.dataset.levels),
        {
            **_pixel_columns(decoded, digest, placement, times, found, stats, thumb),
            **text_columns(lines),
            **_origin_columns(facts, decoded, repairs, _halved_spacing(kept, times)),
        },
        thumb.tobytes(),
    )


def _halved_spacing(kept: privacy.Metadata, times: int) -> privacy.Metadata:
    """Metadata of an image that was halved so many times: its pixels lie further apart."""
    row, col = kept["spacing_row"], kept["spacing_col"]
    return {
        **kept,
        "spacing_row": None if row is None else row * (1 << times),
        "spacing_col": None if col is None else col * (1 << times),
    }


def _pixel_columns(
    decoded: Decoded,
    digest: bytes,
    placement: Placement,
    times: int,
    found: Content,
    stats: Statistics,
    thumb: Thumbnail,
) -> PixelColumns:
    return {
        "pixel_hash": digest,
        "height": placement.height,
        "width": placement.width,
        "bits": decoded.bits,
        "bin_height": placement.rows,
        "bin_width": placement.cols,
        "box_top": found.box.top,
        "box_left": found.box.left,
        "box_height": found.box.height,
        "box_width": found.box.width,
        "content": found.area,
        "min": stats.min,
        "max": stats.max,
        "mean": stats.mean,
        "std": stats.std,
        "p0_5": stats.p0_5,
        "p1": stats.p1,
        "p99": stats.p99,
        "p99_5": stats.p99_5,
        "padding": decoded.padding,
        "halvings": times,
        "inverted": decoded.inverted,
        "phash": content.perceptual_hash(thumb),
    }


def _origin_columns(
    facts: ImageFacts, decoded: Decoded, repairs: tuple[str, ...], kept: privacy.Metadata
) -> OriginColumns:
    return {
        "source_rows": facts.height,
        "source_cols": facts.width,
        "source_bits": facts.bits,
        "signed": facts.signed,
        "photometric": facts.photometric,
        "modality_lut": decoded.modality_lut,
        "transfer_syntax": facts.encoding,
        "lossy": decoded.lossy,
        "decoder": decoded.decoder,
        "repairs": list(repairs),
        "modality": facts.modality or None,
        **kept,
    }
