"""Line integrals against what geometry says."""

import numpy as np
import pytest

from medlora.phantoms.anatomy import Tissues
from medlora.phantoms.projection import Detector, View, water_path
from medlora.phantoms.tubes import Tubes

SHAPE, PITCH = (160, 200), 1.5
DETECTOR = Detector(SHAPE, PITCH)


def view(position="PA", turn=0.0, lean=0.0, roll=0.0, shift=(0.0, 0.0), distance=1800.0, gap=130.0):
    return View(position, turn, lean, roll, shift, distance, gap)


@pytest.mark.parametrize("radius", [3.0, 6.0, 10.0])
def test_a_tube_across_the_beam_is_as_thick_as_a_cylinder(radius):
    tube = Tubes.along(np.array([[-100.0, 0, 0], [100, 0, 0]]), radius, density=0.5)
    one = View("PA", 0, 0, 0, (0, 0), 1e7, 0)  # parallel rays
    image = one.draw(tube, DETECTOR)
    profile = image[:, 90:110].mean(axis=1)
    z = ((SHAPE[0] - 1) / 2 - np.arange(SHAPE[0])) * PITCH
    fine = np.linspace(-0.5, 0.5, 101) * PITCH  # a pixel averages over its height
    chord = 2 * np.sqrt(np.maximum(radius**2 - (z[:, None] + fine) ** 2, 0)).mean(axis=1)
    assert np.sum(profile) * PITCH == pytest.approx(0.5 * np.pi * radius**2, rel=0.02)
    assert np.abs(profile - 0.5 * chord).max() < 0.12 * radius


@pytest.mark.parametrize("direction", [(1, 0, 0), (0, 1, 0), (1, 1, 0), (1, 1, 1)])
def test_a_tube_keeps_its_volume_whichever_way_it_lies(direction):
    end = 40 * np.array(direction) / np.linalg.norm(direction)
    tube = Tubes.along(np.stack([-end, end]), 4.0, density=1.0)
    image = View("PA", 0, 0, 0, (0, 0), 1e7, 0).draw(tube, DETECTOR)
    assert image.sum() * PITCH**2 == pytest.approx(np.pi * 4.0**2 * 80, rel=0.01)


class Ball:
    """Stands for a chest: nothing but a ball of water."""

    def __init__(self, centre, radius):
        self.centre, self.radius = centre, radius

    def lung_density(self):
        return 0.25

    def tissues(self, x, y, z, softness=4.0):
        r = np.sqrt((x - self.centre[0]) ** 2 + (y - self.centre[1]) ** 2 + (z - self.centre[2]) ** 2)
        body = np.clip((self.radius - r) / softness + 0.5, 0, 1).astype(np.float32)
        return Tissues(body, np.zeros_like(body))


NOTHING = Tubes(*(np.zeros(s, np.float32) for s in ((0, 3), 0, 0, 0)))


@pytest.mark.parametrize(
    "pose",
    [
        view(),
        view("AP"),
        view(turn=0.1),
        view("AP", turn=0.1),
        view(lean=0.1),
        view("AP", lean=-0.1),
        view(roll=0.1),
        view(roll=-0.1, turn=0.05, lean=0.05, shift=(7.0, -9.0)),
        view("AP", roll=0.08, turn=-0.1, lean=0.07, shift=(-12.0, 5.0), distance=1100.0),
    ],
)
def test_soft_parts_and_tubes_take_the_same_pose(pose):
    """A ball as soft part and a ball of grains cast their shadows on the same spot."""
    centre, radius = (45.0, 60.0, 35.0), 18.0
    soft = water_path(Ball(centre, radius), NOTHING, pose, DETECTOR)
    point = np.array([centre], np.float32)
    grain = pose.draw(Tubes.balls(point, np.array([radius]), np.ones(1)), DETECTOR)
    rows, columns = np.indices(SHAPE)
    for axis in (rows, columns):
        assert (axis * soft).sum() / soft.sum() == pytest.approx((axis * grain).sum() / grain.sum(), abs=0.7)


def test_what_is_farther_from_the_detector_is_larger():
    front, back = (Ball((0, y, 0), 25.0) for y in (-80, 80))
    for position, larger, smaller in (("PA", back, front), ("AP", front, back)):
        areas = [(water_path(b, NOTHING, view(position), DETECTOR) > 5).sum() for b in (larger, smaller)]
        assert areas[0] / areas[1] == pytest.approx(((1800 - 50) / (1800 - 210)) ** 2, rel=0.06)


def test_the_thickest_path_through_a_ball_is_its_diameter():
    soft = water_path(Ball((0.0, 0.0, 0.0), 50.0), NOTHING, view(), DETECTOR)
    assert soft.max() == pytest.approx(100, abs=3)
