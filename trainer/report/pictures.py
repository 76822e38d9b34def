"""What was drawn of images on the way."""

import base64
import re
from pathlib import Path
from typing import Any

_EARLIER = 6


def found(folder: Path) -> dict[str, Any] | None:
    """Return the last picture, earlier ones evenly spaced, and the last of the val split; None where there is none."""
    names = (re.fullmatch(r"step_(\d+)\.png", path.name) for path in folder.glob("step_*.png"))
    steps = sorted((int(match[1]), match[0]) for match in names if match)
    if not steps:
        return None
    *earlier, last = steps
    if len(earlier) > _EARLIER:
        earlier = [earlier[round(i * (len(earlier) - 1) / (_EARLIER - 1))] for i in range(_EARLIER)]
    held_out = sorted(folder.glob("val_????????.png"))
    return {
        "last": _picture(folder / last[1], last[0]),
        "earlier": [_picture(folder / name, step) for step, name in earlier],
        "held_out": _picture(held_out[-1], int(held_out[-1].stem[4:])) if held_out else None,
    }


def _picture(path: Path, step: int) -> dict[str, Any]:
    return {"step": step, "source": f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"}
