"""The radiograph preset: orientation, window, refusals, augmentation."""

import numpy as np
import pytest
import torch

from medlora.errors import MedloraError
from medlora.scans import Scan
from medlora.transforms import Radiograph, preset_for, preset_from

PRESET = Radiograph(size=32, mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.1))


def scan(array, modality="DX"):
    return Scan(np.asarray(array, np.float32), np.eye(4), modality=modality, scan_id="0123456789abcdef")


def test_rows_first_and_window_by_percentiles():
    """x runs along columns: a bright right half of the image is bright in the tensor's last columns."""
    array = np.zeros((64, 128, 1)) + 100.0
    array[32:] = 900.0
    image = PRESET.preparation()(scan(array))
    assert image.shape == (1, 32, 32)
    assert image.dtype == torch.float32
    assert type(image) is torch.Tensor
    assert torch.all(image[0, :, :16] == 0)
    assert torch.all(image[0, :, 16:] == 1)


def test_window_equals_numpy_percentiles_and_area_means():
    array = np.random.default_rng(0).normal(500, 80, (64, 64, 1)).astype(np.float32)
    low, high = np.percentile(array, (0.5, 99.5))
    scaled = np.clip((array[:, :, 0].T - low) / (high - low), 0, 1)
    expected = scaled.reshape(32, 2, 32, 2).mean((1, 3))
    np.testing.assert_allclose(PRESET.preparation()(scan(array))[0].numpy(), expected, atol=1e-4)


def test_normalisation_is_by_channel():
    images = torch.full((2, 1, 4, 4), 0.6)
    expected = torch.tensor([(0.6 - 0.5) / 0.5, (0.6 - 0.4) / 0.2, (0.6 - 0.3) / 0.1])
    torch.testing.assert_close(PRESET.normalise(images)[1, :, 2, 3], expected)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (scan(np.ones((8, 8, 1))), "one single value"),
        (scan(np.arange(8 * 8 * 3).reshape(8, 8, 3)), "3 slices"),
        (scan(np.arange(64).reshape(8, 8, 1), modality="CT"), "modality CT"),
    ],
)
def test_refused(bad, said):
    with pytest.raises(MedloraError, match=said):
        PRESET.pixels(bad)


def test_augmentation_is_seeded_keeps_range_and_can_be_switched_off():
    image = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))
    first, second = (PRESET.augmentation().set_random_state(seed=1)(image) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == image.shape
    assert type(first) is torch.Tensor  # not MONAI's MetaTensor, whose every operation is slower
    assert not torch.equal(first, image)
    off = Radiograph(size=32, mean=(0.5,), std=(0.5,), augment=0.0).augmentation()
    assert torch.equal(off(image), image)


def test_described_and_made_again():
    assert preset_from(PRESET.to_dict()) == PRESET
    with pytest.raises(MedloraError, match="unknown preset"):
        preset_from({"preset": "ct-knee"})
    assert preset_for({"DX", "CR"}) is Radiograph
    with pytest.raises(MedloraError, match="modalities CT, DX together"):
        preset_for({"CT", "DX"})
