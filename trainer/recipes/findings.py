"""Findings that several studies train on, by the names of their public tables."""

from typing import Final

NIH14: Final = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
CHEXPERT5: Final = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""Those that CheXpert's competition counts."""
OFFICIAL: Final = """\
- Trained, chosen and tested on the split by patient. Theirs is the official one: --loader.split nih14:train/train
  chooses on patients held out of its training list, nih14:train/val; --loader.split nih14:train --select.split test
  chooses on the test list as they did, which the page then says.
"""
