"""Nodules: shape, place, and the risk that their malignancy is drawn from."""

from dataclasses import replace

import numpy as np
import pytest

from medlora.phantoms import risk
from medlora.phantoms.thorax import Thorax
from medlora.phantoms.voxels import Grid


@pytest.fixture(scope="module")
def people():
    return [Thorax.draw(np.random.default_rng([5, number])) for number in range(160)]


@pytest.fixture(scope="module")
def nodules(people):
    return [nodule for person in people for nodule in person.nodules]


def test_the_model_gives_what_its_published_coefficients_add_up_to():
    """McWilliams et al. 2013, model 2a: a woman of 70 with emphysema, whose only nodule is part-solid, 20 mm, upper."""
    person = risk.Person(age=70, female=True, family_history=False, emphysema=True, nodules=1)
    by_hand = -6.8071 + 0.0321 * 8 + 0.5635 + 0.3462 + 0.7116 + 0.3395 + 0.0803 * 3 - 5.6693 * (0.70710678 - 1.58113883)
    assert risk.logit(person, 20.0, "part-solid", True) == pytest.approx(by_hand, abs=1e-6)
    assert risk.probability(by_hand) == pytest.approx(0.647, abs=0.001)


def test_malignancy_is_drawn_from_the_risk(nodules):
    likely = np.array([nodule.risk for nodule in nodules])
    malignant = np.array([nodule.malignant for nodule in nodules])
    assert 0.42 < malignant.mean() < 0.58
    for low, high in ((0, 0.4), (0.4, 0.6), (0.6, 1)):
        of = (likely >= low) & (likely < high)
        spread = np.sqrt((likely[of] * (1 - likely[of])).sum()) / of.sum()
        assert abs(malignant[of].mean() - likely[of].mean()) < 3 * spread


def test_margins_follow_the_malignancy_as_said(nodules):
    for malignant, table in risk.MARGINS.items():
        of = [nodule.margin for nodule in nodules if nodule.malignant == malignant]
        for margin, share in table.items():
            assert of.count(margin) / len(of) == pytest.approx(share, abs=3.5 * np.sqrt(0.25 / len(of)))
        assert sum(table.values()) == pytest.approx(1)


def test_a_nodule_has_the_volume_that_its_diameter_says(nodules):
    for nodule in nodules[:40]:
        n = int(2 * 1.2 * nodule.diameter / 0.4)
        grid = Grid.axial(tuple(nodule.centre), 0.4, 0.4, (n, n, n))
        x, y, z = grid.axes(*(np.arange(n, dtype=float) for _ in range(3)))
        held = float((nodule.depth(x, y, z) > 0).sum()) * 0.4**3
        assert (6 * held / np.pi) ** (1 / 3) == pytest.approx(nodule.diameter, rel=0.08)


def test_nodules_lie_in_the_lungs_apart_from_each_other(people):
    for person in people:
        for number, nodule in enumerate(person.nodules):
            depth = float(person.chest.lung_depth(*nodule.centre.astype(np.float32)))
            assert depth > 0
            assert (depth < 0.5 * nodule.diameter) == (nodule.attachment == "pleura")
            for other in person.nodules[:number]:
                apart = np.linalg.norm(nodule.centre - other.centre)
                assert apart > 0.5 * (nodule.diameter + other.diameter)


def test_only_the_spiculated_radiate(nodules):
    for nodule in nodules:
        away = np.linalg.norm(nodule.spicules.points - nodule.centre, axis=1)
        assert (len(away) > 0) == (nodule.margin == "spiculated")
        assert (away > 0.35 * nodule.diameter).all()
        assert (away < nodule.reach + 8).all()


def test_density_and_calcium_in_hounsfield_units(people):
    """HU at the centre, by what the labels say: glass between lung and tissue, calcium above tissue."""
    seen = {}
    for person in people:
        for nodule in person.nodules:
            kind = "calcified" if nodule.calcified else nodule.density
            if kind not in seen and nodule.attachment == "none" and nodule.diameter > 8:
                grid = Grid.axial(tuple(nodule.centre), 1.0, 1.0, (5, 5, 5))
                alone = replace(person, nodules=[nodule])
                seen[kind] = alone.hounsfield(grid)[2, 2, 2]
    assert set(seen) == {"solid", "part-solid", "ground-glass", "calcified"}
    assert -750 < seen["ground-glass"] < -350
    assert 0 < seen["solid"] < 80
    assert 0 < seen["part-solid"] < 80
    assert seen["calcified"] > 300
