"""The nodule presets: where their images lie, checked against SciPy and volumes with a bright side."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from medlora.errors import MedloraError
from medlora.scans import Scan
from medlora.transforms import CTNodule, CTNodulePlanes, preset_for, preset_from
from medlora.transforms.planes import RandMirrorPlanes

PRESET = CTNodulePlanes(size=24, mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.1), extent=36.0)
SLICES = CTNodule(size=24, mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.1), extent=36.0)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def scan(array, affine, **more):
    return Scan(np.asarray(array, np.float32), np.asarray(affine, float), modality="CT", scan_id="0" * 16, **more)


def tilted(spacing=(0.7, 0.8, 2.5), angle=13.0, origin=(-20.0, -30.0, 5.0)):
    """The affine of axial slices stacked obliquely."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = (
        (spacing[0], 0, 0),
        (0, spacing[1] * c, -spacing[1] * s),
        (0, 0, spacing[2]),
    )
    affine[:3, 3] = origin
    return LPS @ affine


def smooth(shape=(60, 64, 22), seed=0):
    coarse = np.random.default_rng(seed).uniform(-1000, 400, tuple(n // 4 + 2 for n in shape))
    at = np.meshgrid(*(np.arange(n) / 4 for n in shape), indexing="ij")
    return map_coordinates(coarse, at, order=1)


@pytest.mark.parametrize("preset", [PRESET, SLICES], ids=lambda preset: preset.name)
@pytest.mark.parametrize("affine", [tilted(), tilted(angle=0), LPS @ np.diag([1.0, 1.0, 1.0, 1.0])], ids=str)
def test_images_are_what_scipy_samples_at_the_same_places(affine, preset):
    array = smooth()
    volume = scan(array, affine)
    centre = (affine @ [31.2, 29.7, 11.4, 1])[:3]
    image = preset.preparation()(volume, tuple(centre))
    assert image.shape == (3, 24, 24)
    assert image.dtype == torch.float32
    assert type(image) is torch.Tensor
    step = (np.arange(24) - 11.5) * 1.5
    rows, columns = np.meshgrid(step, step, indexing="ij")
    zero = np.zeros_like(rows)
    # In RAS+: an axial plane's rows run to the back (-A), its columns to the left (-R); the others' rows to the feet.
    planes = ((-columns, -rows, zero), (-columns, zero, -rows), (zero, -columns, -rows))
    slices = [(-columns, -rows, zero + height) for height in (-2.5, 0, 2.5)]  # from feet to head
    for number, (x, y, z) in enumerate(planes if preset is PRESET else slices):
        at = np.stack([centre[0] + x, centre[1] + y, centre[2] + z, np.ones_like(x)])
        index = np.einsum("ij,jkl->ikl", np.linalg.inv(affine), at)[:3]
        sampled = map_coordinates(array, index, order=1, mode="nearest")
        np.testing.assert_allclose(image[number], np.clip((sampled + 1000) / 1400, 0, 1), atol=2e-3)


@pytest.mark.parametrize(
    ("towards", "bright"),
    [((1, 0, 0), ("axial right", "coronal right")), ((0, 1, 0), ("axial bottom", "sagittal right")),
     ((0, 0, 1), ("coronal top", "sagittal top"))],
    ids=["left", "back", "head"],
)  # fmt: skip
def test_left_back_and_head_are_where_a_reader_expects_them(towards, bright):
    """A volume in DICOM's coordinates (LPS) with one half bright."""
    affine = LPS @ np.array([[1, 0, 0, -30], [0, 1, 0, -30], [0, 0, 1, -30], [0, 0, 0, 1.0]])
    index = np.stack(np.meshgrid(*(np.arange(61),) * 3, indexing="ij"))
    array = np.where(np.tensordot(towards, index, 1) > 30, 400.0, -1000.0)
    planes = dict(
        zip(("axial", "coronal", "sagittal"), PRESET.preparation()(scan(array, affine), (0, 0, 0)), strict=True)
    )
    half = {"right": np.s_[:, 13:], "bottom": np.s_[13:], "top": np.s_[:11]}
    other = {"right": np.s_[:, :11], "bottom": np.s_[:11], "top": np.s_[13:]}
    for name in bright:
        plane, side = name.split()
        assert planes[plane][half[side]].min() == 1
        assert planes[plane][other[side]].max() == 0


def test_mirroring_the_planes_is_mirroring_the_patient():
    array = smooth((61, 61, 61))
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = -30
    prepare = PRESET.preparation()
    straight = prepare(scan(array, affine), (0, 0, 0))
    mirror = RandMirrorPlanes()
    for axis in range(3):
        mirror._mirrored = np.arange(3) == axis
        expected = prepare(scan(np.flip(array, axis).copy(), affine), (0, 0, 0))
        torch.testing.assert_close(mirror(straight, randomize=False), expected, atol=1e-4, rtol=0)


def test_each_side_is_mirrored_half_of_the_time():
    mirror = RandMirrorPlanes().set_random_state(seed=0)
    image = torch.arange(27.0).reshape(3, 3, 3)
    seen = {tuple(mirror(image).flatten().tolist()) for _ in range(100)}
    assert len(seen) == 8


def test_the_window_is_that_of_the_preset():
    array = np.full((40, 40, 40), -300.0)
    for window, value in (((-1000, 400), 0.5), ((-300, 400), 0.0), ((-1000, -400), 1.0)):
        prepare = replace(PRESET, window=window).preparation()
        assert prepare(scan(array, np.eye(4)), (20, 20, 20)).unique().tolist() == [pytest.approx(value)]


def test_a_centre_near_the_edge_repeats_the_last_voxels():
    array = np.zeros((30, 30, 30)) - 1000
    array[:, :, -1] = 400
    image = PRESET.preparation()(scan(array, np.eye(4)), (15, 15, 29))
    assert image[1, :12].min() == 1  # beyond the head's end of the volume
    assert image[1, 14:].max() == 0
    below, centre, above = SLICES.preparation()(scan(array, np.eye(4)), (15, 15, 29))
    assert below.max() == 0 and centre.min() == above.min() == 1


def test_missing_slices_do_not_shift_what_lies_behind_them():
    """Slices at 0 … 9, then 20 … 29 mm: a sheet at 25 mm is at 25 mm."""
    positions = np.r_[0:10, 20:30].astype(float)
    array = np.full((40, 40, 20), -1000.0)
    array[:, :, 15] = 400
    affine = np.eye(4)
    affine[2, 2] = 29 / 19  # the mean step, as scans.Scan has it
    image = replace(PRESET, size=25, extent=25.0).preparation()(
        scan(array, affine, slice_positions=positions), (20, 20, 25)
    )
    assert image[1].mean(dim=1).argmax() == 12


@pytest.mark.parametrize(
    ("make", "centre", "said"),
    [
        (lambda: scan(np.zeros((9, 9, 9)), np.eye(4)), None, "reads places in scans"),
        (lambda: scan(np.zeros((9, 9, 9)), np.eye(4)), (20, 4, 4), "outside of its scan 0000"),
        (lambda: scan(np.zeros((9, 9, 1)), np.eye(4)), (4, 4, 0), "is no volume"),
        (lambda: replace(scan(np.zeros((9, 9, 9)), np.eye(4)), modality="MR"), (4, 4, 4), "modality MR"),
    ],
)
def test_refused(make, centre, said):
    with pytest.raises(MedloraError, match=said):
        PRESET.preparation()(make(), centre)


@pytest.mark.parametrize("preset", [PRESET, SLICES], ids=lambda preset: preset.name)
def test_augmentation_is_seeded_keeps_the_shape_and_can_be_switched_off(preset):
    image = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))
    first, second = (preset.augmentation().set_random_state(seed=1)(image) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == image.shape
    assert type(first) is torch.Tensor
    assert not torch.equal(first, image)
    assert torch.equal(replace(preset, augment=0.0).augmentation()(image), image)


def test_each_plane_has_the_channel_of_its_own():
    images = torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    expected = torch.tensor([(0.1 - 0.5) / 0.5, (0.5 - 0.4) / 0.2, (0.9 - 0.3) / 0.1])
    torch.testing.assert_close(PRESET.normalise(images)[1, :, 2, 3], expected)
    with pytest.raises(MedloraError, match="gives 3 channels, but the backbone reads 1"):
        CTNodule(size=24, mean=(0.5,), std=(0.5,))


def test_described_and_made_again_and_chosen_for_places():
    assert [preset_from(preset.to_dict()) for preset in (PRESET, SLICES)] == [PRESET, SLICES]
    with pytest.raises(MedloraError, match="described without apart: by another version"):
        preset_from({key: value for key, value in SLICES.to_dict().items() if key != "apart"})
    assert preset_for({"CT"}, places=True) is CTNodule
    with pytest.raises(MedloraError, match="no preset reads places in scans of the modalities DX"):
        preset_for({"DX"}, places=True)
    assert preset_for({"CT"}) not in (CTNodule, CTNodulePlanes)
