"""Maps of networks whose decisive places are known, and the sanity check on those that pass it and do not."""

import numpy as np
import pytest
import torch
from torch import nn

from medlora.errors import MedloraError
from medlora.evaluation import OperatingPoint, Temperature
from medlora.scans import Scan
from medlora.training import saliency
from medlora.training.explaining import LogOdds, drawn_anew, rank_correlation
from medlora.training.predictor import Predictor
from medlora.training.task import OneOf
from medlora.transforms import CTNodulePlanes, Radiograph

SIZE = 64
LEVELS = torch.linspace(0, 1, 8)


class Levels(nn.Module):
    """Features that fire each for one grey level of the first channel: (N, 3, H, W) → (N, 8, H, W)."""

    def forward(self, images):
        return (1 - 8 * (images[:, :1] - LEVELS.view(1, -1, 1, 1)).abs()).clamp_min(0)


class Constructed(nn.Module):
    """Mean of the features, then a linear classifier that counts the fifth level alone for class 1."""

    def __init__(self):
        super().__init__()
        self.features = Levels()
        self.fc = nn.Linear(8, 2)
        with torch.no_grad():
            self.fc.weight.zero_()
            self.fc.bias.zero_()
            self.fc.weight[1, 5] = 3.0

    def get_classifier(self):
        return self.fc

    def forward(self, images):
        return self.fc(self.features(images).mean((2, 3)))


class Deaf(Constructed):
    """Its answer is a function of the image alone; the classifier is read and counts nothing."""

    def forward(self, images):
        bright = self.features(images)[:, 5].mean((1, 2))
        return torch.stack([-bright, bright], dim=1) + 0 * self.fc(self.features(images).mean((2, 3)))


def predictor(model, preset=None, classes=("normal", "sick")):
    preset = preset or Radiograph(size=SIZE, mean=(0.0,) * 3, std=(1.0,) * 3)
    point = OperatingPoint(0.5, rule="0.5", chosen_on="tune", positive=classes[1])
    return Predictor(model.eval(), preset, OneOf(list(classes)), Temperature(2.0), point, {}, torch.device("cpu"))


@pytest.fixture(scope="module")
def scan():
    """Eight stripes of grey; the sixth level also in a block at rows 8 to 19, columns 40 to 51."""
    image = np.repeat(LEVELS.numpy(), SIZE // 8)[None].repeat(SIZE, 0)  # (rows, columns)
    image[:, 40:48] = LEVELS[2]
    image[8:20, 40:52] = LEVELS[5]
    return Scan(image.T[..., None].astype(np.float32), np.eye(4), modality="DX", scan_id="0" * 16)


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "occlusion"])
def test_the_map_peaks_where_the_decision_is_made(scan, method):
    found = predictor(Constructed()).explain(scan, method=method)
    assert found.target == "sick"
    assert found.maps.shape == (1, SIZE, SIZE)
    row, column = np.unravel_index(found.maps[0].argmax(), (SIZE, SIZE))
    assert 8 <= row < 20
    assert 40 <= column < 52
    assert found.layer == ("" if method == "occlusion" else "features")
    assert found.describe()["maps"][0]["peak"] == [row, column]


def test_grad_cam_equals_its_formula(scan):
    """The log-odds are (3 · mean of level 5) / 2 at a temperature of 2; so the map is 3 · feature / (2 · pixels)."""
    model = predictor(Constructed())
    found = model.explain(scan, method="gradcam")
    feature = Levels()(torch.as_tensor(found.image)[None])[0, 5].numpy()
    np.testing.assert_allclose(found.maps[0], 1.5 * feature / SIZE**2, atol=1e-9)
    assert found.probability == pytest.approx(1 / (1 + np.exp(-1.5 * feature.mean())), abs=1e-6)


def test_occlusion_is_the_fall_of_the_log_odds(scan):
    """Against squares covered by hand: half of each overlaps the next, and a pixel has the mean of those over it."""
    model = predictor(Constructed())
    found = model.explain(scan, method="occlusion")
    image = torch.as_tensor(found.image)[None].expand(1, 3, -1, -1)
    network = LogOdds(model.model, model.task, model.calibration)
    falls = []
    for top in (8, 12):
        for left in (40, 44):
            covered = image.clone()
            covered[:, :, top : top + 8, left : left + 8] = image.mean()
            falls.append(float((network(image) - network(covered))[0, 1]))
    assert found.maps[0, 13, 45] == pytest.approx(np.mean(falls), abs=1e-6)


def test_the_check_passes_a_map_of_what_was_learnt_and_flags_one_that_was_not(scan):
    good, bad = (predictor(model).explain(scan, method="gradcam") for model in (Constructed(), Deaf()))
    assert good.warnings == ()
    assert [check.stage for check in good.checks] == ["head"]
    assert good.checks[0].similarity < 0.5
    assert bad.checks[0].correlations == (1.0, 1.0, 1.0)
    assert "stays much the same" in bad.warnings[0]


def test_an_empty_map_is_said(scan):
    found = predictor(Constructed()).explain(scan, target="normal", method="gradcam")
    assert found.checks == ()
    assert "the same everywhere" in found.warnings[0]


def test_weights_come_back_and_no_hook_stays(scan):
    network = Constructed()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    predictor(network).explain(scan, method="gradcam")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not network.features._forward_hooks
    assert not network.features._backward_hooks
    assert network.fc.weight.grad is None
    with drawn_anew([network.fc.weight], seed=1):
        assert not torch.equal(network.fc.weight, before["fc.weight"])
    assert torch.equal(network.fc.weight, before["fc.weight"])


def test_planes_are_covered_one_by_one():
    """A nodule preset's network that looks at the coronal plane alone: the other planes' maps are 0."""

    class Coronal(Constructed):
        def forward(self, images):
            return super().forward(images[:, 1:2].expand(-1, 3, -1, -1))

    volume = np.full((60, 60, 60), -300.0, np.float32)
    volume[34:40, 27:33, 34:40] = 0.0  # level 5/7 of −1000 … 400
    scan = Scan(volume, np.eye(4), modality="CT", scan_id="0" * 16)
    preset = CTNodulePlanes(size=48, mean=(0.0,) * 3, std=(1.0,) * 3)
    found = predictor(Coronal(), preset).explain(scan, (29.5, 29.5, 29.5))
    assert found.method == "occlusion"
    assert found.maps.shape == (3, 48, 48)
    assert np.ptp(found.maps[0]) == np.ptp(found.maps[2]) == 0
    row, column = np.unravel_index(found.maps[1].argmax(), (48, 48))
    assert row < 24  # towards the head
    assert column < 24  # at the patient's right, which is the left of the plane
    shared = predictor(Coronal(), preset).explain(scan, (29.5, 29.5, 29.5), method="gradcam")
    assert "share this one map" in shared.warnings[-1]


def test_tokens_equal_what_a_small_change_of_each_token_does():
    """Gradient × token is the slope of the log-odds as the token is made longer; a ViT of random weights."""
    import timm

    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=2, img_size=64).double().eval()
    network = LogOdds(vit, OneOf(["a", "b"]), Temperature())
    inputs = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    layer = saliency.last_map(network, inputs)
    assert (layer.method, layer.grid, layer.prefix) == ("tokens", (4, 4), 1)
    found = saliency._tokens(network, inputs, 1, layer)[0, 0].flatten()
    module = network.get_submodule(layer.path)
    slopes = []
    for token in range(1, 17):
        values = []
        for factor in (1 + 1e-4, 1 - 1e-4):
            scale = torch.ones(17, 1, dtype=torch.float64)
            scale[token] = factor
            handle = module.register_forward_hook(lambda _module, _inputs, out, scale=scale: out * scale)
            with torch.no_grad():
                values.append(float(network(inputs)[0, 1]))
            handle.remove()
        slopes.append((values[0] - values[1]) / 2e-4)
    np.testing.assert_allclose(found.numpy(), np.clip(slopes, 0, None), atol=1e-8)
    with pytest.raises(MedloraError, match="gradcam needs a network that ends in maps"):
        saliency.maps(network, inputs, 1, "gradcam", layer, False)


@pytest.mark.parametrize(
    ("name", "path"),
    [("resnet18", "model.layer4"), ("convnext_atto", "model.norm_pre"), ("tf_efficientnet_lite0", "model.bn2"),
     ("swin_tiny_patch4_window7_224", None)],
)  # fmt: skip
def test_the_last_map_of_a_network(name, path):
    import timm

    side = 224 if "swin" in name else 64
    network = LogOdds(timm.create_model(name, num_classes=3).eval(), OneOf(["a", "b", "c"]), Temperature())
    inputs = torch.randn(1, 3, side, side)
    layer = saliency.last_map(network, inputs)
    assert (layer and layer.path) == path
    if layer is not None:
        assert saliency.maps(network, inputs, 0, "gradcam", layer, False).shape == (1, 64, 64)


def test_log_odds_of_several_classes():
    logits = torch.tensor([[1.0, -2.0, 0.5]])
    p = torch.softmax(logits / 2, dim=1)
    torch.testing.assert_close(
        LogOdds(nn.Identity(), OneOf(["a", "b", "c"]), Temperature(2.0))(logits), torch.log(p / (1 - p))
    )


def test_rank_correlation_counts_flat_maps_as_none():
    first = np.arange(9.0).reshape(3, 3)
    assert rank_correlation(first, first**3) == pytest.approx(1)
    assert rank_correlation(first, np.zeros((3, 3))) == 0


@pytest.mark.parametrize(
    ("words", "said"), [({"target": "ill"}, "knows no class 'ill'"), ({"method": "lime"}, "unknown method 'lime'"),
                        ({"method": "tokens"}, "tokens needs a network")]
)  # fmt: skip
def test_refused(scan, words, said):
    with pytest.raises(MedloraError, match=said):
        predictor(Constructed()).explain(scan, **words)
