"""A method given in Python counts with all that it says."""

import pytest

from medlora.adapters import LoRA
from medlora.errors import MedloraError
from medlora.training.config import Config
from medlora.training.methods import settings_of
from medlora.training.task import OneOf


@pytest.mark.parametrize("alpha", [16, 64, 3.5])
def test_what_a_method_says_counts_even_where_it_is_its_own_default(alpha):
    config = Config.resolve(None, settings_of(LoRA(rank=8, alpha=alpha)))
    assert config.adapter.alpha == alpha
    assert config.adapter.rank == 8


def test_options_that_train_does_not_know_are_refused():
    with pytest.raises(MedloraError, match="rslora"):
        settings_of(LoRA(rslora=True))


def test_a_rule_for_two_classes_is_not_ignored_with_three():
    asked = Config.resolve(None, {"evaluation.operating_point": "sensitivity>=0.95"})
    OneOf(["normal", "covid"]).check(asked)
    OneOf(["normal", "pneumonia", "covid"]).check(Config())
    with pytest.raises(MedloraError, match=r"sensitivity>=0.95 is a rule for two classes, and there are 3"):
        OneOf(["normal", "pneumonia", "covid"]).check(asked)


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({}, 6),
        ({"model.backbone": "tf_efficientnet_lite0"}, 8),
        ({"model.weights": "random"}, 8),  # nothing pretrained: the hybrid's own number is not meant for it
        ({"model.backbone": "resnet18"}, 8),
        ({"train.epochs": 3}, 3),
    ],
)
def test_epochs_are_the_backbones_own_where_none_are_given(settings, epochs):
    assert Config.resolve(settings=settings).epochs == epochs


def test_how_much_of_the_patient_an_image_shows_can_be_chosen_where_a_preset_has_it():
    from types import SimpleNamespace

    from medlora import backbones
    from medlora.training.trainer import _preset

    backbone = backbones.create("medlora-hybrid", num_classes=2)
    nodules = SimpleNamespace(modalities={"CT"}, places=True)
    assert _preset(Config.resolve(None, {"data.extent": 40}), nodules, backbone).extent == 40
    assert _preset(Config(), nodules, backbone).extent == 24
    radiographs = SimpleNamespace(modalities={"DX"}, places=False)
    with pytest.raises(MedloraError, match=r"radiograph shows whole images, and has no data\.extent"):
        _preset(Config.resolve(None, {"data.extent": 40}), radiographs, backbone)
