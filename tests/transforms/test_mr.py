"""The preset for whole MR series: planes, sides, groups of slices, intensities."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medlora.errors import MedloraError
from medlora.scans import Scan
from medlora.transforms import MR, preset_for, preset_from

PRESET = MR(size=48, mean=(0.5,) * 3, std=(0.25,) * 3)  # tiles of 16 pixels
# Voxel axes in RAS+ for series of each plane, as DICOM has them: along a row, down a column, from slice to slice.
AXIAL = ((-1, 0, 0), (0, -1, 0), (0, 0, 1))
CORONAL = ((-1, 0, 0), (0, 0, -1), (0, 1, 0))
SAGITTAL = ((0, -1, 0), (0, 0, -1), (1, 0, 0))


def series(directions, spacing=(4.0, 4.0, 5.0), shape=(32, 32, 27), bright=None, half=None):
    """A dim volume about the origin with one bright place (RAS+ mm)."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(directions, float).T * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    array = np.random.default_rng(0).uniform(100, 110, shape)
    if bright is not None:
        index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
        places = np.tensordot(affine[:3, :3], index, 1) + affine[:3, 3].reshape(3, 1, 1, 1)
        half = np.where(np.abs(directions[2]), 7, 16) if half is None else np.array(half)
        array[(np.abs(places - np.reshape(bright, (3, 1, 1, 1))) < half.reshape(3, 1, 1, 1)).all(axis=0)] = 900.0
    return Scan(array.astype(np.float32), affine, modality="MR", scan_id="0" * 16)


# A place at the patient's left, front, and towards the head; 8 mm a pixel, 15 mm a group.
PLACE = (-30.0, 15.0, 45.0)
CASES = [
    # directions, the coordinate along the slices, row, column
    (AXIAL, 45.0, 7.5 - 15 / 8, 7.5 + 30 / 8),
    (CORONAL, 15.0, 7.5 - 45 / 8, 7.5 + 30 / 8),
    (SAGITTAL, -30.0, 7.5 - 45 / 8, 7.5 - 15 / 8),
]


@pytest.mark.parametrize(("directions", "along", "row", "column"), CASES, ids=["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_bright_place_is_where_a_reader_expects_it(directions, along, row, column, reverse):
    """From head to feet, from front to back, from right to left: all three count down along RAS+."""
    if reverse:
        directions = (*directions[:2], tuple(-np.array(directions[2])))
    image = PRESET.preparation()(series(directions, bright=PLACE))
    assert image.shape == (3, 48, 48)
    assert type(image) is torch.Tensor
    assert image.dtype == torch.float32
    group = int((67.5 - along) // 15)
    weight = image[2].numpy() - np.median(image[2].numpy())
    weight[weight < 0.3] = 0
    tiles = weight.reshape(3, 16, 3, 16).sum((1, 3))
    assert tiles.argmax() == group
    tile = weight.reshape(3, 16, 3, 16)[group // 3, :, group % 3]
    at = [(tile.sum(axis=1 - axis) * np.arange(16)).sum() / tile.sum() for axis in (0, 1)]
    np.testing.assert_allclose(at, (row, column), atol=0.6)


def test_minimum_mean_and_maximum_of_neighbours_equal_numpy():
    volume = series(AXIAL, spacing=(4.0, 4.0, 5.0), shape=(16, 16, 27))
    array = volume.array.astype(float)
    low, high = np.percentile(array, (0.5, 99.5))
    scaled = np.clip((array - low) / (high - low), 0, 1)
    groups = scaled.transpose(1, 0, 2)[:, :, ::-1].reshape(16, 16, 9, 3)  # rows down, from head to feet
    image = PRESET.preparation()(volume).numpy().reshape(3, 3, 16, 3, 16)
    for channel, expected in enumerate((groups.min(-1), groups.mean(-1), groups.max(-1))):
        for group in range(9):
            np.testing.assert_allclose(image[channel, group // 3, :, group % 3], expected[:, :, group], atol=1e-4)


def test_the_shape_of_the_field_of_view_is_kept():
    image = PRESET.preparation()(series(AXIAL, shape=(32, 16, 27), spacing=(4.0, 4.0, 5.0))).reshape(3, 3, 16, 3, 16)
    assert image[:, :, :4].max() == 0
    assert image[:, :, 12:].max() == 0
    assert image[2, :, 4:12].min() > 0


def test_the_scanner_s_scale_does_not_matter():
    volume = series(AXIAL, bright=PLACE)
    other = replace(volume, array=volume.array * 7.5 + 300)
    torch.testing.assert_close(PRESET.preparation()(other), PRESET.preparation()(volume), atol=1e-4, rtol=0)


def test_fine_in_all_directions_is_shown_axial():
    sagittal = series(SAGITTAL, spacing=(4.0, 4.0, 4.0), shape=(32, 32, 32), bright=PLACE, half=(16, 16, 16))
    axial = series(AXIAL, spacing=(4.0, 4.0, 4.0), shape=(32, 32, 32), bright=PLACE, half=(16, 16, 16))
    names = [step.says for step in PRESET.steps(sagittal)]
    assert "Axial slices" in names[1]
    bright = [PRESET.preparation()(scan)[2] > 0.5 for scan in (sagittal, axial)]
    assert torch.equal(*bright)


def test_fewer_slices_than_groups():
    image = PRESET.preparation()(series(AXIAL, shape=(32, 32, 4)))
    assert (image[2].reshape(3, 16, 3, 16).amax((1, 3)) > 0).all()


@pytest.mark.parametrize(
    ("make", "centre", "said"),
    [
        (lambda: replace(series(AXIAL), modality="CT"), None, "modality CT"),
        (lambda: series(AXIAL), (0.0, 0.0, 0.0), "reads whole scans"),
        (lambda: series(AXIAL, shape=(32, 32, 1)), None, "is no volume"),
        (lambda: replace(series(AXIAL), array=np.ones((8, 8, 8), np.float32)), None, "one single value"),
    ],
)
def test_refused(make, centre, said):
    with pytest.raises(MedloraError, match=said):
        PRESET.preparation()(make(), centre)


def test_augmentation_described_and_chosen():
    image = PRESET.preparation()(series(AXIAL, bright=PLACE))
    first, second = (PRESET.augmentation().set_random_state(seed=1)(image) for _ in range(2))
    assert torch.equal(first, second)
    assert type(first) is torch.Tensor
    assert not torch.equal(first, image)
    assert torch.equal(replace(PRESET, augment=0.0).augmentation()(image), image)
    assert preset_from(PRESET.to_dict()) == PRESET
    assert preset_for({"MR"}) is MR
