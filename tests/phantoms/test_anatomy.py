"""The chest against textbook figures."""

from dataclasses import replace

import numpy as np
import pytest

from medlora.phantoms import findings, vessels
from medlora.phantoms.anatomy import LEFT, RIGHT, Chest

STEP = 5.0


def grid():
    axes = np.arange(-220, 220, STEP), np.arange(-150, 150, STEP), np.arange(-200, 160, STEP)
    return np.meshgrid(*(a.astype(np.float32) for a in axes), indexing="ij", sparse=True)


@pytest.fixture(scope="module", params=range(6))
def chest(request):
    return Chest.draw(np.random.default_rng([11, request.param]))


def litres(fraction):
    return float(fraction.sum()) * STEP**3 / 1e6


def test_lungs_hold_what_adults_hold(chest):
    full, rest = (litres(replace(chest, breath=b).tissues(*grid()).lung) for b in (1.0, 0.0))
    assert 3.0 < full < 8.5  # total lung capacity, Stocks and Quanjer 1995
    assert 0.45 < rest / full < 0.85  # functional residual over total capacity


def test_lungs_lie_inside_the_skin_and_breathing_out_keeps_their_tissue(chest):
    grams = []
    for breath in (1.0, 0.4):
        now = replace(chest, breath=breath)
        tissues = now.tissues(*grid())
        assert np.all(tissues.lung <= tissues.body + 1e-6)
        grams.append(litres(tissues.lung) * now.lung_density())
    assert grams[1] == pytest.approx(grams[0], rel=0.12)


def test_the_heart_is_on_the_left_and_of_a_normal_width(chest):
    x, y, z = grid()
    heart = chest.heart_depth(x, y, z) > 0
    share_left = heart[np.broadcast_to(x > 0, heart.shape)].sum() / heart.sum()
    assert 0.6 < share_left < 0.9
    width = np.ptp(np.flatnonzero(heart.any(axis=(1, 2)))) * STEP
    lung = chest.tissues(x, y, z).lung > 0.5
    thorax = np.ptp(np.flatnonzero(lung.any(axis=(1, 2)))) * STEP
    assert 0.36 < width / thorax < 0.62  # cardiothoracic ratio


def test_vessels_lie_in_the_lungs(chest):
    tree = vessels.pulmonary(chest, np.random.default_rng(3))
    thin = tree.points[tree.radius < 2.0]
    assert len(thin) > 0.8 * len(tree.points)
    assert (chest.lung(*thin.T, 4.0) > 0.2).mean() > 0.9


def test_the_cubes_of_the_branches_radii_add_up_to_that_of_their_parent():
    tips = np.random.default_rng(0).uniform(0, 100, (64, 3))
    tree = vessels._tree(np.zeros(3), np.array([5.0, 0, 0]), tips, 6.0, 0.1, np.random.default_rng(1))
    radii, pieces = np.unique(tree.radius.round(4), return_counts=True)
    np.testing.assert_allclose(radii[::-1], 6.0 * 2.0 ** (-np.arange(7) / 3), rtol=1e-3)
    np.testing.assert_array_equal(pieces[::-1], 10 * 2 ** np.arange(7))
    ends = tree.points.reshape(-1, 10, 3)[-64:, -1]
    assert np.abs(ends[:, None] - tips[None]).sum(axis=2).min(axis=1).max() < 15  # every twig reaches a tip


def spread(kind, seed):
    chest = Chest.draw(np.random.default_rng([12, seed]))
    finding = findings.draw(kind, chest, 0.5, np.random.default_rng([13, seed]))
    p = finding.grains.points
    assert (chest.lung(*p.T, 4.0) > 0.5).all()
    return np.abs(p[:, 0]).mean() / chest.width, (p[:, 0] > 0).mean(), finding


def test_the_two_findings_differ_in_place():
    original, variant = ([spread(kind, seed) for seed in range(12)] for kind in ("original", "variant"))
    assert min(lateral for lateral, _, _ in original) > np.median([lateral for lateral, _, _ in variant])
    for _, left, finding in original:
        assert finding.sides == "both"
        assert 0.15 < left < 0.85
    for _, left, finding in variant:
        assert left == (1.0 if finding.sides == "left" else 0.0)
    assert {f.sides for _, _, f in variant} == {"left", "right"}


def test_points_move_with_the_breath():
    chest = replace(Chest.draw(np.random.default_rng(5)), breath=0.3)
    full = replace(chest, breath=1.0)
    for side in (RIGHT, LEFT):
        points = vessels.points_in_lung(full, side, 400, np.random.default_rng(1))
        moved = vessels.breathe(points, chest)
        assert (moved[:, 2] >= points[:, 2] - 1e-3).all()
        assert (chest.lung(*moved.T, 4.0) > 0.3).mean() > 0.85
