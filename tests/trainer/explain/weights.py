"""A ViT-Ti with weights that any machine draws alike, for timm and for us, and the image that it is shown."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import timm
import torch
from torch import Tensor

from trainer.models.classifier import Classifier, HeadConfig
from trainer.models.formats import position_table
from trainer.models.vit import VitConfig

SIDE, CLASSES = 224, 5
POOLS = {"token": "token", "mean": "avg"}


def tiny(pool: str) -> Any:
    """Return timm's vit_tiny_patch16_224 of one channel with five classes; `pool` is ours: token or mean."""
    model: Any = timm.create_model(
        "vit_tiny_patch16_224", in_chans=1, num_classes=CLASSES, global_pool=POOLS[pool], dynamic_img_size=True
    )
    random = np.random.default_rng(21)
    with torch.no_grad():
        for name, value in model.named_parameters():
            drawn = torch.from_numpy(random.standard_normal(value.shape)).float()
            scale = 0.5 if "bias" in name or "token" in name or "pos" in name else value[0].numel() ** -0.5
            value.copy_(1 + 0.2 * drawn if "norm" in name and "weight" in name else scale * drawn)
        model.pos_embed.copy_(position_table((SIDE // 16, SIDE // 16), 192, "absolute", 64))
    return model.eval()


def ours(pool: Literal["token", "mean"], of: Any) -> Classifier:
    """Return our classifier with timm's weights."""
    head = HeadConfig(pool=pool, norm=pool == "mean")
    encoder = VitConfig(patch=16, width=192, depth=12, heads=3).encoder(last_norm=pool == "token")
    model = Classifier(encoder, CLASSES, head)
    names = {"head.": "head.fc.", "fc_norm.": "head.fc_norm."}
    state = {}
    for name, value in of.state_dict().items():
        own = next(
            (new + name.removeprefix(old) for old, new in names.items() if name.startswith(old)), f"encoder.{name}"
        )
        if name != "pos_embed":
            state[own] = value
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def image() -> Tensor:
    """Return noise: float32 (224, 224)."""
    return torch.from_numpy(np.random.default_rng(17).random((SIDE, SIDE), np.float32))
