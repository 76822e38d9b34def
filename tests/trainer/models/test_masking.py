"""Masks are fair draws of a fixed number of patches: p-values over fixed seeds, the same on every machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from shardkit.plan.shuffle import key_of, mix
from shardkit.plan.views import view_seed
from trainer.models.masking import capacity, cuts, draw, hashed, noise, visible
from trainer.models.sequences import from_binned, sequences

LEAST = 1e-4
HIGH, WIDE, IMAGES = 6, 8, 2000
PATCHES = HIGH * WIDE


@pytest.fixture(params=range(4))
def hidden(request: pytest.FixtureRequest, make_binned: Any) -> Any:
    """bool (images, patches) of a batch with the seeds that a plan of this key gives."""
    blank = torch.zeros(2 * HIGH, 2 * WIDE)
    batch = make_binned([blank] * IMAGES, [(2 * HIGH, 2 * WIDE)] * IMAGES, 2 * HIGH, 2 * WIDE, IMAGES)
    seeds = mix(key_of("masks", request.param), np.arange(IMAGES)).astype(np.int64)
    object.__setattr__(batch, "seeds", torch.from_numpy(seeds))
    return draw(from_binned(batch, 2), 0.75).masked.view(IMAGES, PATCHES).numpy()


def test_every_image_hides_as_many_patches_and_every_patch_is_hidden_as_often(hidden: Any) -> None:
    assert (hidden.sum(1) == 36).all()
    share = 36 / PATCHES
    spread = ((hidden.sum(0) - IMAGES * share) ** 2).sum() / (IMAGES * share * (1 - share)) * (PATCHES - 1) / PATCHES
    assert LEAST < stats.chi2.sf(spread, PATCHES - 1) < 1 - LEAST


def test_neighbours_of_an_image_and_of_the_batch_are_hidden_independently(hidden: Any) -> None:
    both = 36 * 35 / (PATCHES * (PATCHES - 1))  # of two patches of one image, 36 of whose patches are hidden
    grid = hidden.reshape(IMAGES, HIGH, WIDE)
    pairs = {"right": grid[:, :, 1:] & grid[:, :, :-1], "below": grid[:, 1:] & grid[:, :-1]}
    for name, found in pairs.items():
        counts = found.reshape(IMAGES, -1).sum(1)  # images are independent draws, patches of one are not
        assert stats.ttest_1samp(counts, both * found[0].size).pvalue > LEAST, name
    for patch in range(0, PATCHES, 5):
        table = np.histogram2d(hidden[1:, patch], hidden[:-1, patch], 2)[0]
        assert stats.chi2_contingency(table).pvalue > LEAST, patch


def _splitmix64(seed: int, number: int) -> int:
    """The published generator (Steele, Lea & Flood 2014) in Python's own integers: its word of this number, from 1."""
    word = (1 << 64) - 1
    x = (seed + number * 0x9E3779B97F4A7C15) & word
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & word
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & word
    return x ^ (x >> 31)


def test_noise_is_the_published_generator_s_words_from_an_image_s_seed(make_packed: Any) -> None:
    assert _splitmix64(0, 1) == 0xE220A8397B1DCDAF, "as the literature has it"
    of = sequences(make_packed([(32, 32), (16, 48)], tokens=9, sequences=3)[0], 16)
    seeds = [7, -3, (1 << 62) + 5]
    found = noise(replace(of, seeds=torch.tensor(seeds)))
    words = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]
    assert found.tolist() == [(_splitmix64(seeds[image], at) >> 11) * 2.0**-53 for image, at in words]


def test_the_length_of_everything_is_known_without_a_draw(make_packed: Any) -> None:
    """A mask's own shapes and cuts are those that operations are billed by."""
    of = sequences(make_packed([(64, 48), (33, 50)], tokens=700, sequences=5)[0], 16)
    mask = draw(of, 0.75)
    assert visible(of, 0.75).tolist() == mask.kept.tolist() == [3, 3, 169, 0, 0]
    assert capacity(of, 0.75) == len(mask.encoder) == 175 + 5
    encoder, decoder = cuts(of, 0.75)
    assert torch.equal(encoder, mask.encoder_cu)
    assert torch.equal(decoder, mask.decoder_cu)
    assert torch.unique(encoder).tolist() == [0, 4, 8, 178, 179, 180]
    assert torch.unique(decoder).tolist() == [0, 13, 26, 538, 703, 704, 705]


def test_sequences_are_bounded_by_what_no_batch_of_the_layout_exceeds(make_packed: Any, make_binned: Any) -> None:
    """CUDA's attention plans for it: an image may fill a pack, and fills its bin."""
    assert sequences(make_packed([(64, 48)], tokens=700)[0], 16).longest == 700
    assert sequences(make_binned([torch.zeros(64, 48)], [(64, 48)], 96, 64, 2), 16).longest == 24


def test_views_of_a_sample_have_draws_of_their_own_at_all_places() -> None:
    seed, places = np.array([123456789], np.uint64), torch.arange(-300, 300)
    seeds = torch.tensor([int(view_seed(seed, number).astype(np.int64)[0]) for number in range(12)])
    drawn = hashed(seeds[:, None].expand(-1, len(places)), places.expand(len(seeds), -1))
    assert len(np.unique(drawn.numpy())) == drawn.numel(), "a view has the draws of another one, some places further on"
