"""Features are kept once all images could be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from trainer.assess import features

WHOLE = np.arange(12, dtype=np.float32).reshape(4, 3)
LACKING = np.where(np.arange(4)[:, None] == 2, np.nan, WHOLE).astype(np.float32)


@pytest.fixture
def images(tmp_path: Path) -> features.Images:
    return features.Images(lambda _: _loader("minmax"), "resized", tmp_path)


def _loader(*normalised: str) -> Any:
    """A loader of members that are normalised so."""
    state = {"manifest_digest": "of the manifest"}
    return SimpleNamespace(plan_spec="plan", state_dict=lambda: state, normalised=dict(enumerate(normalised)))


def test_an_image_that_could_not_be_read_is_read_again(
    images: features.Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [LACKING, WHOLE]
    monkeypatch.setattr(features, "_read", lambda *_: found.pop(0))
    np.testing.assert_array_equal(features.of_pixels(images), LACKING)
    assert not list(images.folder.iterdir())
    for _ in range(2):  # the second time from the file
        np.testing.assert_array_equal(features.of_pixels(images), WHOLE)


def test_a_file_that_lacks_an_image_is_written_again(images: features.Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older versions kept such files."""
    monkeypatch.setattr(features, "_read", lambda *_: WHOLE)
    features.of_pixels(images)
    (path,) = images.folder.iterdir()
    np.save(path, LACKING)
    np.testing.assert_array_equal(features.of_pixels(images), WHOLE)
    np.testing.assert_array_equal(np.load(path), WHOLE)


def test_members_that_a_mixture_normalises_in_another_way_have_other_features(
    images: features.Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digest is the same."""
    monkeypatch.setattr(features, "_read", lambda *_: WHOLE)
    for loader in (_loader("minmax", "minmax"), _loader("minmax", "zscore")):
        features.of_pixels(replace(images, open=Mock(return_value=loader)))
    assert len(list(images.folder.iterdir())) == 2
