"""The backbone with attention and convolutions that comes with medlora."""

import pytest
import torch
from safetensors.torch import load_file

from medlora import adapters, backbones
from medlora.backbones import hybrid
from medlora.backbones.embedded import HYBRID, LITE0


@pytest.fixture
def model():
    return backbones.create(HYBRID.name, num_classes=2).model


def test_every_tensor_is_that_of_the_file_and_the_file_is_small(model):
    stored = load_file(HYBRID.weights_file())
    assert HYBRID.weights_file().stat().st_size < 6e6
    for name, tensor in model.state_dict().items():
        if not name.startswith("classifier"):
            assert torch.equal(tensor, stored[name].to(tensor.dtype)), name
    assert sum(parameter.numel() for parameter in model.parameters()) < 3e6


@pytest.mark.parametrize("group", ["attention", "conv"])
def test_auto_has_attention_and_convolutions_and_each_changes_the_answer(model, group):
    torch.manual_seed(0)
    images = torch.randn(2, 3, HYBRID.side, HYBRID.side)
    before = model(images)
    adapter = adapters.attach(model, adapters.LoRA(rank=2))
    chosen = [target for target in adapter.targets if target.role.startswith(group)]
    assert len(chosen) >= (4 if group == "attention" else 10)
    state = {name: tensor.clone() for name, tensor in adapter.state_dict().items()}
    for target in chosen:
        factor = f"{target.path}.lora_B.weight"
        adapter.load_state_dict({**state, factor: torch.full_like(state[factor], 0.1)})
        assert not torch.allclose(model(images), before, atol=1e-5), target.path
    adapter.load_state_dict(state)
    assert torch.equal(model(images), before)


def test_distillation_starts_at_the_blocks_of_lite0():
    own, theirs = hybrid.inherited(), LITE0.state_dict()
    shapes = backbones.create(HYBRID.name, weights="random").model.state_dict()
    assert {name: tensor.shape for name, tensor in own.items()} == {name: shapes[name].shape for name in own}
    assert torch.equal(own["blocks.5.2.conv_dw.weight"], theirs["blocks.5.3.conv_dw.weight"])
    assert torch.equal(own["conv_stem.weight"], theirs["conv_stem.weight"])


def test_its_random_weights_are_trained_at_the_size_of_the_pretrained_ones():
    assert backbones.training_side(backbones.create(HYBRID.name, weights="random")) == HYBRID.side


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torch.export", "onnx"])
def test_an_adapted_hybrid_is_exported_and_gives_the_same_answers(model, form, tmp_path):
    torch.manual_seed(0)
    adapter = adapters.attach(model, adapters.LoRA(rank=2))
    state = adapter.state_dict()
    adapter.load_state_dict({name: tensor + 0.02 * torch.randn_like(tensor) for name, tensor in state.items()})
    images = torch.randn(3, 3, HYBRID.side, HYBRID.side)
    model.eval()
    with torch.no_grad():
        expected = model(images)
        adapter.merge()
        if form == "onnx":
            onnxruntime = pytest.importorskip("onnxruntime")
            pytest.importorskip("onnxscript")
            torch.onnx.export(model, (images,), tmp_path / "hybrid.onnx", dynamo=True)
            session = onnxruntime.InferenceSession(tmp_path / "hybrid.onnx")
            (answers,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
            answers = torch.from_numpy(answers)
        else:
            torch.export.save(torch.export.export(model, (images,)), tmp_path / "hybrid.pt2")
            answers = torch.export.load(tmp_path / "hybrid.pt2").module()(images)
    torch.testing.assert_close(answers, expected, rtol=0, atol=1e-4)
