"""Blocks of voxels against volumes that geometry knows."""

import numpy as np
import pytest

from medlora.phantoms.tubes import Tubes
from medlora.phantoms.voxels import Field, Grid, filled

GRIDS = {
    "cubes": Grid.axial((3.0, -2.0, 10.0), 1.0, 1.0, (60, 60, 60)),
    "flat slices": Grid.axial((3.0, -2.0, 10.0), 0.8, 2.5, (24, 75, 75)),
    "tilted gantry": Grid.axial((3.0, -2.0, 10.0), 1.4, 2.5, (24, 43, 43), tilt=np.radians(-15)),
}


@pytest.fixture(params=GRIDS, ids=str)
def grid(request):
    return GRIDS[request.param]


def volume(grid):
    return abs(np.linalg.det(grid.steps))


@pytest.mark.parametrize("radius", [2.0, 3.0, 7.0])
def test_a_ball_fills_its_volume(grid, radius):
    held = []
    for place in np.random.default_rng(0).uniform((1, -4, 8), (5, 0, 12), (30, 3)):
        share = filled(Tubes.balls(place[None], np.array([radius]), np.ones(1)), grid)
        assert share.min() >= 0
        assert share.max() <= 1
        held.append(share.sum() * volume(grid))
    # The rim is smoothed over a voxel: of a ball about as large as the slices are thick that is a part to be seen.
    assert np.mean(held) == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.08 if radius < 3 else 0.06)


@pytest.mark.parametrize("radius", [0.6, 1.2, 3.0])
def test_a_tube_fills_its_cross_section_wherever_it_runs(grid, radius):
    ends = np.array([[-9.0, -14.0, -6.0], [14.0, 9.0, 22.0]])
    share = filled(Tubes.along(ends, radius, 1.0, step=0.4), grid)
    length = float(np.linalg.norm(ends[1] - ends[0])) + 4 / 3 * radius  # with its round ends
    assert share.sum() * volume(grid) == pytest.approx(np.pi * radius**2 * length, rel=0.12)


def test_what_lies_outside_or_overlaps_counts_once(grid):
    near = np.array([[3.0, -2.0, 10.0], [3.0, -2.0, 10.0], [300.0, 0, 0]])
    balls = Tubes.balls(near, np.full(3, 5.0), np.ones(3))
    one = Tubes.balls(near[:1], np.full(1, 5.0), np.ones(1))
    np.testing.assert_array_equal(filled(balls, grid), filled(one, grid))
    assert not filled(balls.only(np.array([False, False, True])), grid).any()


def test_a_ball_across_the_edge_is_what_a_larger_block_has_there():
    large, small = Grid.axial((0, 0, 0), 1.0, 2.0, (21, 41, 41)), Grid.axial((0, 0, 0), 1.0, 2.0, (7, 13, 13))
    ball = Tubes.balls(np.array([[5.2, -4.4, 3.1]]), np.array([6.0]), np.ones(1))
    np.testing.assert_allclose(filled(ball, small), filled(ball, large)[7:14, 14:27, 14:27], atol=1e-5)


def test_a_tilted_gantry_keeps_pixels_square_and_slices_parallel(grid):
    row, column = grid.steps[:, 0], grid.steps[:, 1]
    assert np.linalg.norm(row) == pytest.approx(np.linalg.norm(column))
    assert row @ column == pytest.approx(0, abs=1e-9)
    middle = grid.indices(np.array([[3.0, -2.0, 10.0]]))[0]
    np.testing.assert_allclose(middle, (np.array(grid.shape[::-1]) - 1) / 2, atol=1e-9)


def test_a_field_is_exact_where_the_function_is_linear(grid):
    field = Field(grid, lambda x, y, z: 2 * x - 3 * y + 0.5 * z + 7)
    slices, rows, columns = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    at = np.stack([columns, rows, slices], -1) @ grid.steps.T + grid.origin
    expected = at @ [2, -3, 0.5] + 7
    np.testing.assert_allclose(field.slab(0, grid.shape[0]), expected, atol=1e-3)
    np.testing.assert_allclose(field.slab(5, 9), expected[5:9], atol=1e-3)
