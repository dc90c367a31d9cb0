"""Centres read in the wrong system: balls in a lung whose true places are known."""

import numpy as np
import pytest

from medlora.cohorts import readings

SHAPE, SPACING = (100, 90, 40), np.array([2.0, 2.0, 3.0])
AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])  # DICOM's directions, so that voxel indices grow to the left and back
AFFINE[:3, 3] = (99.0, 80.0, -55.0)


@pytest.fixture(scope="module")
def lung():
    """HU with 14 balls of 8 mm, and their centres in RAS millimetres."""
    rng = np.random.default_rng(1)
    array = rng.normal(-850, 25, SHAPE)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1)
    voxels = rng.uniform((12, 12, 6), (88, 78, 34), (14, 3))
    for voxel in voxels:
        array[np.linalg.norm((index - voxel) * SPACING, axis=-1) < 4] = 30
    return array.astype(np.float32), voxels @ AFFINE[:3, :3].T + AFFINE[:3, 3], voxels


def asked(lung, centres, system):
    return readings.count(readings.met(centre, system, lung[0], AFFINE) for centre in centres)


def test_right_centres_are_met_and_nothing_is_said(lung):
    _, ras, voxels = lung
    for centres, system in ((ras, "ras"), (ras * (-1, -1, 1), "lps"), (voxels, "voxel")):
        counted = asked(lung, centres, system)
        assert counted == {"centres": 14, "declared": 14}
        assert readings.sentence(counted, system) is None


@pytest.mark.parametrize(
    ("system", "signs", "said"),
    [
        ("lps", (1, 1, 1), "mirrored left to right and front to back (that is, as RAS)"),
        ("ras", (-1, -1, 1), "mirrored left to right and front to back (that is, as LPS)"),
        ("ras", (-1, 1, 1), "mirrored left to right;"),
        ("ras", (1, -1, 1), "mirrored front to back;"),
        ("ras", (1, 1, -1), "with head and feet exchanged;"),
    ],
)
def test_a_wrong_system_is_named_and_is_an_error(lung, system, signs, said):
    counted = asked(lung, lung[1] * signs, system)
    sentence, certain = readings.sentence(counted, system)
    assert said in sentence
    assert certain
    assert counted["other"]["met"] >= 12  # of 14: a mirrored centre may leave the array
    assert counted["declared"] < 5


def test_voxels_counted_from_the_other_side_or_in_the_other_order(lung):
    flipped = asked(lung, (99, 0, 0) + lung[2] * (-1, 1, 1), "voxel")
    assert "mirrored left to right" in readings.sentence(flipped, "voxel")[0]
    assert "in the order z, y, x" in readings.sentence(asked(lung, lung[2][:, ::-1], "voxel"), "voxel")[0]


def test_a_few_centres_warn_and_fewer_say_nothing(lung):
    sentence, certain = readings.sentence(asked(lung, lung[1][:6], "lps"), "lps")
    assert "as RAS" in sentence
    assert not certain  # p = 1/64
    assert readings.sentence(asked(lung, lung[1][:3], "lps"), "lps") is None


def test_places_without_anything_there_are_no_error(lung):
    """Benign findings, negatives of a detector: nothing lies there, nor at their mirror images."""
    empty = np.random.default_rng(2).uniform((-80, -80, -40), (80, 60, 40), (40, 3))
    assert readings.sentence(asked(lung, empty, "ras"), "ras") is None
    assert readings.count([]) is None
