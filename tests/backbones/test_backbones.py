"""Backbones: the embedded weights' mapping, local files, and what is said when weights cannot be had."""

import pickle
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file

from medlora import backbones
from medlora.backbones.embedded import EMBEDDED, HYBRID, LITE0
from medlora.backbones.weights import read_state_dict
from medlora.errors import MedloraError


@pytest.fixture(scope="module")
def lite0():
    return backbones.create(LITE0.name, num_classes=3)


def test_every_tensor_has_one_name_and_shape_of_timm():
    raw = read_state_dict(LITE0.weights_file())
    expected = timm.create_model(LITE0.name).state_dict()
    mapped = {LITE0.timm_key(key): tensor for key, tensor in raw.items()}
    assert len(raw) == len(mapped) == 296
    assert {key: tuple(t.shape) for key, t in mapped.items()} == {key: tuple(t.shape) for key, t in expected.items()}


@pytest.mark.parametrize(
    ("photograph", "expected"),
    [
        ("cat", {"tiger cat", "Egyptian cat", "tabby, tabby cat"}),
        ("coffee", {"espresso", "cup"}),
        ("rocket", {"missile", "projectile, missile"}),
        ("camera", {"tripod"}),
    ],
)
def test_photographs_get_their_imagenet_classes(photograph, expected):
    """Wrong names of equal shape would pass the test above; only right ones recognise photographs."""
    skimage_data = pytest.importorskip("skimage.data")
    from PIL import Image
    from timm.data import ImageNetInfo, create_transform

    model = timm.create_model(LITE0.name).eval()
    model.load_state_dict(LITE0.state_dict())
    config = model.pretrained_cfg
    prepare = create_transform(
        config["input_size"],
        mean=config["mean"],
        std=config["std"],
        interpolation=config["interpolation"],
        crop_pct=config["crop_pct"],
    )
    image = Image.fromarray(getattr(skimage_data, photograph)()).convert("RGB")
    with torch.no_grad():
        top = model(prepare(image)[None]).topk(1).indices[0]
    assert {ImageNetInfo().index_to_description(int(index)) for index in top} <= expected


def test_lite0_keeps_every_pretrained_tensor_but_the_classifier(lite0):
    pretrained = LITE0.state_dict()
    for key, tensor in lite0.model.state_dict().items():
        if not key.startswith("classifier"):
            assert torch.equal(tensor, pretrained[key]), key
    assert lite0.model.classifier.weight.shape == (3, 1280)
    assert (lite0.source, lite0.licence, lite0.mean) == ("embedded", "apache-2.0", (0.5, 0.5, 0.5))


def test_classifier_is_seeded_and_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    first = backbones.create(num_classes=2, seed=1).model.classifier.weight
    after = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(first, backbones.create(num_classes=2, seed=1).model.classifier.weight)
    assert not torch.equal(first, backbones.create(num_classes=2, seed=2).model.classifier.weight)


@pytest.mark.parametrize("embedded", [HYBRID, LITE0], ids=lambda embedded: embedded.name)
def test_damaged_embedded_file_is_refused(embedded, monkeypatch, tmp_path):
    damaged = tmp_path / "weights"
    damaged.write_bytes(embedded.weights_file().read_bytes()[:-1] + b"x")
    monkeypatch.setitem(EMBEDDED, embedded.name, replace(embedded, weights_file=lambda: damaged))
    with pytest.raises(MedloraError, match="damaged"):
        backbones.create(embedded.name)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18", "convnext_atto"])
@pytest.mark.parametrize("form", ["model.safetensors", "model.pth", "checkpoint.pth", "headless.safetensors"])
def test_local_file_is_loaded_whole(name, form, tmp_path):
    torch.manual_seed(0)
    source = timm.create_model(name, num_classes=0 if "headless" in form else 11)
    state = source.state_dict()
    if form.endswith("safetensors"):
        save_file(state, tmp_path / form)
    else:
        wrapped = {"epoch": 3, "state_dict": {f"module.{key}": tensor for key, tensor in state.items()}}
        torch.save(wrapped if "checkpoint" in form else state, tmp_path / form)
    made = backbones.create(name, weights=tmp_path / form, num_classes=2)
    head = timm.create_model(name).pretrained_cfg["classifier"]
    for key, tensor in made.model.state_dict().items():
        if not key.startswith(head + "."):
            assert torch.equal(tensor, state[key]), key
    assert (made.source, made.licence) == ("file", "unknown (weights from a file)")


def test_vit_position_embedding_follows_the_image_size(tmp_path):
    torch.manual_seed(0)
    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "vit.safetensors")
    made = backbones.create("vit_tiny_patch16_224", weights=tmp_path / "vit.safetensors", num_classes=2, image_size=96)
    assert made.model.pos_embed.shape == (1, 1 + 36, 192)
    assert made.model(torch.zeros(1, 3, 96, 96)).shape == (1, 2)


def test_weights_of_another_model_are_refused(tmp_path):
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "resnet.safetensors")
    with pytest.raises(MedloraError, match="do not fit vit_tiny"):
        backbones.create("vit_tiny_patch16_224", weights=tmp_path / "resnet.safetensors")


def test_missing_backbone_tensor_is_refused_not_left_random(tmp_path):
    state = timm.create_model("resnet18", num_classes=5).state_dict()
    del state["layer3.0.conv1.weight"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(MedloraError, match=r"layer3\.0\.conv1\.weight"):
        backbones.create("resnet18", weights=tmp_path / "part.safetensors", num_classes=2)


class _Hostile:
    def __reduce__(self):
        return (print, ("ran code from a weights file",))


def test_pickled_code_is_not_run(tmp_path, capsys):
    with (tmp_path / "hostile.pth").open("wb") as file:
        pickle.dump({"weight": _Hostile()}, file)
    torch.save({"weight": _Hostile()}, tmp_path / "hostile2.pth")
    for name in ("hostile.pth", "hostile2.pth"):
        with pytest.raises(MedloraError):
            backbones.create("resnet18", weights=tmp_path / name)
    assert "ran code" not in capsys.readouterr().out


@pytest.mark.slow  # the hub client tries five times, ever later
def test_weights_out_of_reach_say_what_can_be_done(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MedloraError, match="--weights FILE") as raised:
        backbones.create("resnet18")
    assert "medlora doctor" in str(raised.value)


def test_hub_cache_is_used_without_the_network(monkeypatch, tmp_path):
    """The layout of Hugging Face's cache: models--OWNER--NAME/{refs/main, snapshots/COMMIT/file}."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    torch.manual_seed(0)
    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    folder = tmp_path / "models--timm--vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(state, folder / "snapshots" / ("0" * 40) / "model.safetensors")
    made = backbones.create("vit_tiny_patch16_224", num_classes=2)
    assert torch.equal(made.model.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])
    assert made.source == "hub"
    assert [b.name for b in backbones.available()] == [
        HYBRID.name, LITE0.name, "vit_tiny_patch16_224.augreg_in21k_ft_in1k"]  # fmt: skip


def test_random_weights_only_by_that_word():
    made = backbones.create("resnet18", weights="random", num_classes=2, seed=3)
    again = backbones.create("resnet18", weights="random", num_classes=2, seed=3)
    assert made.source == "random"
    assert torch.equal(made.model.conv1.weight, again.model.conv1.weight)


@pytest.mark.parametrize(("name", "said"), [("resnet81", "nearest: "), ("resnet18.nonsense", "nonsense")])
def test_unknown_names(name, said):
    with pytest.raises(MedloraError, match=said):
        backbones.create(name)
