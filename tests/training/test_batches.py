"""Augmentation as a function of seed, epoch and image alone."""

import pickle

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, get_track_meta
from monai.transforms import Randomizable

from medlora.training.batches import varied
from medlora.transforms import MR, CTLung, CTNodule, CTNodulePlanes, Radiograph

NORM = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
PRESETS = [
    Radiograph(size=32, **NORM),
    CTNodule(size=32, **NORM),
    CTNodulePlanes(size=32, **NORM),
    CTLung(size=32, **NORM),
    MR(size=32, **NORM),
]


def image_of(preset):
    channels = 1 if isinstance(preset, Radiograph) else 3
    return torch.rand(channels, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_an_image_is_varied_by_its_place_alone(preset):
    image, augmentation = image_of(preset), preset.augmentation()
    places = [(seed, epoch, index) for seed in (0, 1) for epoch in (0, 1) for index in range(3)]
    first = {place: varied(augmentation, image, *place) for place in places}
    for place in reversed(places):  # whatever was drawn before, and in another process
        assert torch.equal(varied(augmentation, image, *place), first[place])
    sent = pickle.loads(pickle.dumps(augmentation))
    assert torch.equal(varied(sent, image, *places[-1]), first[places[-1]])
    assert torch.equal(varied(preset.augmentation(), image, *places[-1]), first[places[-1]])
    assert len({tuple(value.flatten().tolist()) for value in first.values()}) > len(places) // 2


def test_nothing_of_monai_that_others_use_is_changed():
    image, augmentation = image_of(PRESETS[0]), PRESETS[0].augmentation()
    before = Randomizable.R.get_state()[1].copy()
    made = varied(augmentation, image, 0, 0, 0)
    assert np.array_equal(Randomizable.R.get_state()[1], before)
    assert get_track_meta()
    assert type(made) is torch.Tensor and not isinstance(made, MetaTensor)
