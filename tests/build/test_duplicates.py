"""Duplicates: near pairs are exact, linked patients share a split, and the odd one out of a negative is named."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit.build.duplicates import SPLITS, Templates, components, minority_sides, shared_splits
from shardkit.dataset.near import HASH_BITS, correlation, inverted_pairs, near_pairs

PROPERTY = settings(max_examples=120, deadline=None, derandomize=True, database=None)


@given(st.integers(1, 40), st.integers(0, 60), st.integers(0, 1 << 30))
@PROPERTY
def test_components_are_labelled_by_their_first_nodes(n: int, edges: int, seed: int) -> None:
    pairs = np.random.default_rng(seed).integers(0, n, (edges, 2))
    reach = np.eye(n, dtype=bool)
    reach[pairs[:, 0], pairs[:, 1]] = reach[pairs[:, 1], pairs[:, 0]] = True
    for _ in range(n):
        reach = reach @ reach
    _, wanted = np.unique(reach.argmax(1), return_inverse=True)
    assert components(n, pairs).tolist() == wanted.tolist()


def brute(hashes: list[int], distance: int) -> set[tuple[int, int]]:
    return {(i, j) for j in range(len(hashes)) for i in range(j) if (hashes[i] ^ hashes[j]).bit_count() <= distance}


def found(pairs: np.ndarray) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in pairs}


def clustered(seed: int, clusters: int, size: int) -> list[int]:
    """Cluster centres and copies of them with zero to five bits flipped."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(clusters):
        centre = int(rng.integers(0, 1 << HASH_BITS))
        for _ in range(size):
            flips = rng.choice(HASH_BITS, int(rng.integers(0, 6)), replace=False)
            out.append(centre ^ sum(1 << int(bit) for bit in flips))
    return out


@PROPERTY
@given(seed=st.integers(0, 2**32), clusters=st.integers(1, 12), size=st.integers(1, 12), distance=st.integers(0, 3))
def test_near_pairs_of_clusters_equal_brute_force(seed: int, clusters: int, size: int, distance: int) -> None:
    hashes = clustered(seed, clusters, size)
    pairs = near_pairs(np.array(hashes, np.uint64), distance=distance)
    assert found(pairs) == brute(hashes, distance)
    assert len(pairs) == len(found(pairs))


def test_near_pairs_of_random_hashes_equal_brute_force() -> None:
    hashes = [int(h) for h in np.random.default_rng(0).integers(0, 1 << HASH_BITS, 600)]
    hashes += [h ^ 0b111 for h in hashes[:50]] + [h ^ 0b1111 for h in hashes[50:100]]
    assert found(near_pairs(np.array(hashes, np.uint64))) == brute(hashes, 3)


@PROPERTY
@given(seed=st.integers(0, 2**32), cut=st.integers(0, 60))
def test_near_pairs_across_two_arrays_equal_brute_force(seed: int, cut: int) -> None:
    hashes = clustered(seed, 6, 10)
    a, b = hashes[:cut], hashes[cut:]
    want = {(i, j) for i, x in enumerate(a) for j, y in enumerate(b) if (x ^ y).bit_count() <= 3}
    assert found(near_pairs(np.array(a, np.uint64), np.array(b, np.uint64))) == want


@pytest.mark.parametrize("n", [0, 1])
def test_few_hashes_have_no_pairs(n: int) -> None:
    assert near_pairs(np.zeros(n, np.uint64)).shape == (0, 2)


def test_a_thousand_equal_hashes_stay_connected_without_a_million_pairs() -> None:
    pairs = near_pairs(np.zeros(1000, np.uint64))
    assert len(pairs) < 100_000
    assert len(set(components(1000, pairs).tolist())) == 1


def test_inverted_pairs_are_complements_to_a_few_bits_and_no_others() -> None:
    top, x, y = (1 << HASH_BITS) - 1, 0x1234567890ABCDEF, 0x0F0F33335555AAAA
    hashes = np.array([x, y, x ^ top ^ 1, y ^ 1, x ^ top ^ 0b11110000], np.uint64)
    assert found(inverted_pairs(hashes)) == {(0, 2)}


links_of = st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=12)


@PROPERTY
@given(splits=st.lists(st.sampled_from(SPLITS), min_size=15, max_size=15), links=links_of, more=links_of)
def test_linked_patients_share_a_split_and_links_only_move_towards_training(
    splits: list[str], links: list[tuple[int, int]], more: list[tuple[int, int]]
) -> None:
    own = np.array([SPLITS.index(name) for name in splits], np.int8)
    before, after = (shared_splits(own, pairs(*found)) for found in (links, links + more))
    for a, b in links + more:
        assert after[a] == after[b]
    assert (after <= before).all()
    assert (before <= own).all()
    assert set(after.tolist()) <= set(own.tolist())
    assert (shared_splits(own, pairs()) == own).all()


def test_nobody_has_no_split() -> None:
    assert shared_splits(np.zeros(0, np.int8), pairs()).shape == (0,)


def pairs(*items: tuple[int, int]) -> np.ndarray:
    return np.array(items, np.int64).reshape(-1, 2)


def test_the_smaller_side_of_an_image_and_its_negative_is_suspect() -> None:
    assert minority_sides(5, pairs((0, 1)), pairs((1, 2))).tolist() == [2]
    assert minority_sides(5, pairs((0, 1), (3, 4)), pairs((1, 2))).tolist() == [2]


def test_both_sides_are_suspect_when_they_are_even() -> None:
    assert minority_sides(4, pairs(), pairs((1, 3))).tolist() == [1, 3]
    assert minority_sides(4, pairs((0, 1), (2, 3)), pairs((1, 3))).tolist() == [0, 1, 2, 3]


def test_without_negatives_nobody_is_suspect() -> None:
    assert minority_sides(4, pairs((0, 1)), pairs()).tolist() == []


def test_correlation_is_pearsons() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 256, (2, 9, 1024)).astype(np.uint8)
    np.testing.assert_allclose(correlation(a, b), [np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)])
    np.testing.assert_allclose(correlation(a, 255 - a), -1)


def test_an_image_of_reversed_polarity_is_suspected_among_twenty_of_its_kind_and_not_among_fewer() -> None:
    rng = np.random.default_rng(3)
    base = rng.integers(60, 200, 1024)
    thumbs = np.clip(base + rng.normal(0, 10, (24, 1024)), 0, 255).astype(np.uint8)
    thumbs[5] = 255 - thumbs[5]
    for n, want in ((24, [5]), (19, [])):
        templates, kinds = Templates(), [("CHEST", "PA")] * n
        templates.add(kinds, thumbs[:n])
        assert np.flatnonzero(templates.suspects(kinds, thumbs[:n])).tolist() == want
