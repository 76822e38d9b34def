"""What the page and the terminal say of maps and protocols."""

from collections.abc import Mapping
from typing import Any, Final

from shardkit.report import number
from trainer.explain.finding import Finds
from trainer.explain.protocols import Protocol

SOURCES: Final = {"run": "this run", "centre": "centre box", "random": "random map"}
NAMES: Final = {"anomaly": "anomaly maps", "rollout": "attention roll-out", "gradcam": "Grad-CAM"}
PROTOCOLS: Final[dict[Protocol, str]] = {"component": "box of the largest component", "mask": "all above the threshold"}
COUNTED: Final[dict[Protocol, str]] = {
    "component": "As in Medical MAE (Xiao et al. 2023): the box around the largest component of what is above the"
    " threshold, against the labels’ box. They do not say their threshold.",
    "mask": "As in EVA-X (public code): all of the map above the threshold, without a box of its own, against the"
    " labels’ box. Areas are exact here, where that code counts pixels of 224 x 224.",
}

_GRADCAM = (
    "Grad-CAM (Selvaraju et al. 2017) of the layer {layer}: its activations, weighted by the mean over the image’s"
    " patches of the gradient of the class’s score, summed over channels and cut off below 0. Each map is scaled from"
    " its least value to its greatest: colours do not compare images, and a map has a greatest value where the class is"
    " absent, too."
)
_ROLLOUT = (
    "Attention roll-out (Abnar & Zuidema 2020): the mean attention of all heads, half of it for the residual,"
    " multiplied over the blocks. It says from which patches information could reach {of}, not whether it speaks for a"
    " class: it is the same for all classes, and boxes of all classes are held against it."
)
_ANOMALY = (
    "Anomaly maps: the mean absolute difference, in grey levels, between the image and what the masked autoencoder made"
    " of its patches where they were hidden. {masks} masks of {ratio:.0%} of the patches, in {rounds} rounds; in every"
    " round each patch is hidden at least once, by construction. Visible patches do not count. A large error says that"
    " a patch is hard to guess from the others: edges and devices are, too, and it is the same for all classes."
)
_NORM_PIX = (
    "The model predicts patches normalised by their own mean and deviation (norm_pix). These were given back from the"
    " image itself: an error in the brightness or contrast of a whole patch does not show in these maps."
)
_CONTEXT = (
    "A map is a hint at where a model looks, and no evidence that what it looks at is the finding. Hold it against maps"
    " that know nothing before believing it."
)


def method(about: Mapping[str, Any]) -> list[str]:
    """Return sentences on how maps were made, and on what they do not say."""
    if about["method"] == "gradcam":
        return [_GRADCAM.format(layer=about["layer"]), _CONTEXT]
    if about["method"] == "rollout":
        of = {"token": "the class token", "mean": "the mean of the patches"}[about["by"]]
        return [_ROLLOUT.format(of=of), _CONTEXT]
    said = _ANOMALY.format(masks=about["masks"], ratio=about["mask_ratio"], rounds=about["rounds"])
    return [said, *([_NORM_PIX] if about["norm_pix"] else []), _CONTEXT]


def chosen(shown: int, images: int) -> str:
    """Say which images are drawn."""
    if shown == images:
        return f"All {number(images)} images that were explained. Grey levels are those that the model was given."
    return (
        f"{number(shown)} of {number(images)} images that were explained, evenly spaced by key, which is a hash."
        " Grey levels are those that the model was given."
    )


def level(value: float) -> str:
    """Return the name of a level of intersection over union."""
    return f"AP{100 * value:.0f}"


def share(value: float | None, interval: tuple[float, float] | None = None) -> str:
    """Return a share of boxes in percent, with its interval."""
    if value is None:
        return "–"
    ends = "" if interval is None else f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    return f"{100 * value:.1f} %{ends}"


def summary(finds: Finds) -> list[str]:
    """Return lines for the terminal, one a protocol and one for each thing that a run has to beat."""
    if not finds.boxes:
        return []
    lines = []
    for protocol in PROTOCOLS:
        for source, name in SOURCES.items():
            fits = finds.fits(source)
            best, held = fits.score(protocol, fits.searched(protocol)), fits.held_out(protocol)
            said = f"AP25 {share(best.ap25, best.ap25_interval)}, AP50 {share(best.ap50, best.ap50_interval)}"
            other = f"; by the others' threshold {share(held.ap25)}, {share(held.ap50)}" if held else ""
            lines.append(f"{PROTOCOLS[protocol]}, {name}: {said} above {best.threshold:.2f}, searched{other}")
    return lines


def plain(value: Any) -> str:
    """Return an option's value."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(plain, value)) or "none"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
