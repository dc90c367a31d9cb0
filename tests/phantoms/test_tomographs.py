"""Noise and blur of the CT scanners against physics."""

import numpy as np
import pytest

from medlora.phantoms import tomographs
from medlora.phantoms.voxels import Grid

GRID = Grid.axial((0, 0, 0), 1.4, 2.5, (16, 128, 128))
WATER = np.zeros(GRID.shape, np.float32)
WIDTH = np.full(16, 280.0)


def noise(kernel, mas=100.0, together=1, width=WIDTH):
    return tomographs.reconstruct(WATER, GRID, kernel, mas, width, np.random.default_rng(3), together)


@pytest.mark.parametrize("scanner", tomographs.TOMOGRAPHS.values(), ids=lambda s: s.key)
def test_a_quarter_of_the_dose_doubles_the_noise_and_twice_the_thickness_takes_a_third(scanner):
    for kernel in (scanner.soft, scanner.sharp):
        usual = noise(kernel)
        assert abs(usual.mean()) < 0.5
        assert noise(kernel, mas=25).std() / usual.std() == pytest.approx(2, rel=0.02)
        assert noise(kernel, together=2).std() / usual.std() == pytest.approx(1 / np.sqrt(2), rel=0.05)
    assert noise(scanner.sharp).std() > 1.3 * noise(scanner.soft).std()


def test_the_soft_kernel_has_the_noise_that_body_protocols_aim_at():
    assert 8 < noise(tomographs.A.soft).std() < 20  # HU behind 280 mm of water at 100 mAs and 2.5 mm


def test_noise_has_no_low_frequencies_and_rises_to_where_the_kernel_ends_it():
    """The ramp of filtered backprojection: the power is as the frequency, as long as the kernel keeps all contrast."""
    power = (np.abs(np.fft.fft2(noise(tomographs.A.sharp))) ** 2).mean(axis=0)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(128, 1.4)] * 2, indexing="ij"))
    rings = [power[(frequency > f) & (frequency < f + 0.02)].mean() for f in (0.01, 0.05, 0.15)]
    np.testing.assert_allclose(np.divide(rings, rings[1]), np.divide([0.02, 0.06, 0.16], 0.06), rtol=0.15)


def test_a_sharp_kernel_keeps_more_contrast_of_detail():
    bars = np.tile(np.where(np.arange(128) // 2 % 2, 100.0, 0.0), (16, 128, 1)).astype(np.float32)
    kept = [
        tomographs.reconstruct(bars, GRID, kernel, 1e9, WIDTH, np.random.default_rng(0)).std()
        for kernel in (tomographs.A.soft, tomographs.A.sharp)
    ]
    assert kept[1] > 1.15 * kept[0]


def test_twice_the_patient_more_noise():
    assert noise(tomographs.A.soft, width=WIDTH + 2 * np.log(2) / tomographs.WATER).std() == pytest.approx(
        2 * noise(tomographs.A.soft).std(), rel=0.02
    )


def test_water_width_of_a_cylinder_of_water():
    y, x = np.ogrid[-60:60, -60:60]
    hu = np.where(np.hypot(x, y) < 50, 0.0, -1000.0)[None]
    assert tomographs.water_width(hu, 2.0)[0] == pytest.approx(200, rel=0.02)
