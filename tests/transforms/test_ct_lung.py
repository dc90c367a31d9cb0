"""The preset for whole chest CT: what lies where in the picture, from volumes drawn by formulas and from phantoms."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medlora.errors import MedloraError
from medlora.scans import Scan
from medlora.transforms import CTLung, preset_for, preset_from
from medlora.transforms.lungs import find_lungs

PRESET = CTLung(size=90, mean=(0.5,) * 3, std=(0.25,) * 3)  # tiles of 30 pixels of 12 mm
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
LUNG, TISSUE = -850.0, 40.0


def chest(spacing=(4.0, 4.0, 4.0), tilt=0.0, flip=False, extra=None, size=(400.0, 300.0, 360.0)):
    """A trunk about (10, −20) mm with two lungs from z = 100 to 280 mm (RAS+), in a field of view on a table.

    Args:
        extra: (centre, half sides, HU) of a block.
    """
    affine = np.eye(4)
    c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    affine[:3, 0] = spacing[0], 0, 0
    affine[:3, 1] = 0, spacing[1] * c, -spacing[1] * s
    affine[:3, 2] = 0, 0, spacing[2] * (-1 if flip else 1)
    affine = LPS @ affine
    shape = np.array([round(length / step) for length, step in zip(size, spacing, strict=True)])
    affine[:3, 3] = np.array([10.0, -20.0, 180.0]) - affine[:3, :3] @ ((shape - 1) / 2)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    x, y, z = np.tensordot(affine[:3, :3], index, 1) + affine[:3, 3].reshape(3, 1, 1, 1)
    array = np.full(shape, -1000.0)
    array[((x - 10) / 170) ** 2 + ((y + 20) / 110) ** 2 < 1] = TISSUE
    for side in (-75, 95):
        array[(((x - side) / 55) ** 2 + ((y + 20) / 75) ** 2 < 1) & (abs(z - 190) < 90)] = LUNG
    array[(abs(x - 10) < 6) & (abs(y + 20) < 6) & (z > 250)] = -1000  # a trachea that leaves at the top
    array[(abs(x - 10) < 190) & (abs(y + 145) < 4)] = -100  # the table, apart from the body
    if extra is not None:
        at, half, hu = extra
        array[(abs(x - at[0]) < half[0]) & (abs(y - at[1]) < half[1]) & (abs(z - at[2]) < half[2])] = hu
    return Scan(array.astype(np.float32), affine, modality="CT", scan_id="0" * 16)


VOLUMES = [{}, {"tilt": 12.0}, {"flip": True}, {"spacing": (5.0, 5.0, 2.0)}]


@pytest.mark.parametrize("kind", VOLUMES, ids=str)
def test_lungs_are_found_where_they_were_drawn(kind):
    lungs = find_lungs(chest(**kind))
    assert lungs.top == pytest.approx(280, abs=5)
    assert lungs.bottom == pytest.approx(100, abs=5)
    np.testing.assert_allclose(lungs.centre, (10, -20), atol=4)
    drawn = 2 * np.pi * 55 * 75 * 180 / 1000
    assert lungs.mask.sum() * np.prod(lungs.spacing) / 1000 == pytest.approx(drawn, rel=0.05)


def test_an_opaque_lung_and_gas_of_the_bowel_hardly_move_the_picture():
    opaque = find_lungs(chest(extra=((95, -20, 190), (60, 80, 95), TISSUE)))
    np.testing.assert_allclose(opaque.centre, (10, -20), atol=6)
    assert (opaque.top, opaque.bottom) == (pytest.approx(280, abs=5), pytest.approx(100, abs=5))
    gas = find_lungs(chest(extra=((10, -20, 30), (25, 25, 20), -1000)))
    assert gas.bottom == pytest.approx(100, abs=5)


@pytest.mark.parametrize("kind", VOLUMES, ids=str)
def test_dense_blocks_end_in_their_slabs_and_on_their_sides(kind):
    """Nine slabs of 20 mm from 280 down, three in a row; 12 mm a pixel about (10, −20), the left at the right."""
    plain = PRESET.preparation()(chest(**kind))
    assert plain.shape == (3, 90, 90)
    assert plain.dtype == torch.float32
    assert type(plain) is torch.Tensor
    for at in ((-75, -20, 270), (95, 10, 190), (95, -60, 130)):
        change = PRESET.preparation()(chest(**kind, extra=(at, (14, 14, 8), 900.0))) - plain
        tiles = change.abs().reshape(3, 3, 30, 3, 30).numpy()
        slab = int((280 - at[2]) // 20)
        row, column = 14.5 + (-20 - at[1]) / 12, 14.5 + (10 - at[0]) / 12  # rows to the back, columns left (RAS+)
        for channel in range(3):
            assert tiles[channel].sum(axis=(1, 3)).argmax() == slab
            tile = tiles[channel, slab // 3, :, slab % 3]
            centre = [(tile.sum(axis=1 - axis) * np.arange(30)).sum() / tile.sum() for axis in (0, 1)]
            np.testing.assert_allclose(centre, (row, column), atol=0.5)


def test_values_are_those_of_the_windows():
    """Of the middle slab, far from edges: lung, tissue, air outside; by (HU − low) / (high − low), cut to 0…1."""
    image = PRESET.preparation()(chest()).numpy()
    tile = image[:, 30:60, 30:60]

    def at(x, y):
        return tile[:, round(14.5 + (-20 - y) / 12), round(14.5 + (10 - x) / 12)]

    np.testing.assert_allclose(at(95, -20), [150 / 1200, 150 / 1400, 0], atol=1e-5)
    np.testing.assert_allclose(at(10, -20), [1040 / 1200, 1040 / 1400, 200 / 400], atol=1e-5)
    np.testing.assert_allclose(at(10, 150), 0, atol=1e-5)


def test_mean_and_maximum_over_the_slab():
    """A sheet of 4 mm in a slab of 20 mm of lung: a fifth in the mean, all in the maximum."""
    image = PRESET.preparation()(chest(spacing=(4.0, 4.0, 1.0), extra=((95, -20, 190), (40, 40, 2.0), 150.0)))
    value = image[:, 30:60, 30:60][:, 14, round(14.5 - 85 / 12)].numpy()
    np.testing.assert_allclose(value[0], ((0.8 * LUNG + 0.2 * 150) + 1000) / 1200, atol=0.02)
    np.testing.assert_allclose(value[1], 1150 / 1400, atol=0.02)


def test_padding_of_the_field_of_view_is_air_and_so_is_what_lies_beyond():
    volume = chest(size=(350.0, 250.0, 220.0))
    array = volume.array.copy()
    array[:3], array[-3:] = -3024, -3024
    image = PRESET.preparation()(replace(volume, array=array))
    assert float(image.min()) == 0
    assert torch.isfinite(image).all()
    assert image[:, 30:60, 30:60][:, :3].max() == 0


def test_missing_slices_do_not_shift_what_lies_behind_them():
    volume = chest(extra=((95, -20, 130), (14, 14, 8), 300.0))
    keep = np.r_[0:50, 60 : volume.shape[2]]
    affine = volume.affine.copy()
    affine[:3, 2] *= (volume.shape[2] - 1) / (len(keep) - 1)
    gap = replace(volume, array=volume.array[:, :, keep], affine=affine, slice_positions=keep * 4.0)
    whole, with_gap = (PRESET.preparation()(scan)[0, 60:, 30:60] for scan in (volume, gap))
    torch.testing.assert_close(with_gap, whole, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("make", "centre", "said"),
    [
        (lambda: replace(chest(), modality="MR"), None, "modality MR"),
        (chest, (0.0, 0.0, 0.0), "reads whole scans"),
        (lambda: replace(chest(), array=np.full((50, 50, 50), 40.0, np.float32)), None, "no lungs were found"),
        (lambda: replace(chest(), array=np.full((50, 50, 50), -1000.0, np.float32)), None, "no lungs were found"),
        (lambda: replace(chest(), array=chest().array[:, :, :1]), None, "is no volume"),
    ],
)
def test_refused(make, centre, said):
    with pytest.raises(MedloraError, match=said):
        PRESET.preparation()(make(), centre)


def test_augmentation_moves_every_slab_alike_and_can_be_switched_off():
    preset = replace(PRESET, size=92)  # two pixels more than three tiles
    tile = torch.rand(3, 30, 30, generator=torch.Generator().manual_seed(0))
    image = torch.zeros(3, 92, 92)
    image[:, :90, :90] = tile.repeat(1, 3, 3)
    chain = preset.augmentation()
    chain.transforms[2].prob = chain.transforms[3].prob = 0.0  # of intensities, which differ by channel
    moved = chain.set_random_state(seed=1)(image)
    assert type(moved) is torch.Tensor
    assert moved.shape == image.shape
    assert not torch.equal(moved, image)
    assert torch.equal(moved[:, :90, :90], moved[:, :30, :30].repeat(1, 3, 3))
    first, second = (preset.augmentation().set_random_state(seed=2)(image) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(replace(preset, augment=0.0).augmentation()(image), image)


def test_steps_end_in_the_prepared_image():
    volume = chest()
    steps = list(PRESET.steps(volume))
    assert [step.name for step in steps] == ["as read", "lungs found", "slabs", "windows", "montage"]
    assert torch.equal(steps[-1].data, PRESET.preparation()(volume))
    assert steps[-1].spacing == (12.0, 12.0)
    assert np.shares_memory(steps[0].data, volume.array)
    assert len(PRESET.channel_names) == PRESET.channels


def test_described_and_made_again_and_chosen_for_whole_ct():
    assert preset_from(PRESET.to_dict()) == PRESET
    assert preset_for({"CT"}) is CTLung
