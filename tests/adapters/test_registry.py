"""The contract over timm's registry: the smallest model of each file, every role adapted, loaded in a fresh process."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.utils import reparameterize_model

sys.path.insert(0, str(Path(__file__).parent))
from contract import check, outputs, relative, settle, wake
from registry import NAMES, SHORTER

from medlora.adapters import load, roles

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SIZES = (32, 64, 96, 128, 160, 192, 224, 256, 288, 384)


def build(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    """The model, the same in every process, and an input of the smallest size that it takes."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **SHORTER.get(name, {})).eval()
    wake(model)
    fixed = model.pretrained_cfg.get("fixed_input_size")
    channels, *own = model.pretrained_cfg["input_size"]
    for size in (own[0],) if fixed else SIZES:
        x = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))
        try:
            with torch.no_grad():
                y = outputs(model, x)
        except (RuntimeError, AssertionError, ValueError, IndexError):
            continue
        if y.isfinite().all():
            settle(model, x)
            return model, x
    raise RuntimeError(f"no legal image size found for {name}")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the fresh process below: sums of several threads round otherwise, and a base is known by its bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.mark.parametrize("name", [n for n in NAMES if timm.is_model(n)])
def test_model_keeps_the_contract(name: str, shelf: Path) -> None:
    model, x = build(name)
    paths = list(roles(model))
    check(model, x, paths, shelf / name)
    adapter = load(model, shelf / name)
    with torch.no_grad():
        y = outputs(model, x)
        save_file({"x": x, "y": y}, shelf / f"{name}.safetensors")
        adapter.merge()
        if any(hasattr(m, "fuse") or hasattr(m, "reparameterize") for m in model.modules()):
            torch.set_default_dtype(torch.float64)  # fusing makes new modules of the default type
            try:
                model, x = model.double(), x.double()
                assert relative(outputs(reparameterize_model(model), x), outputs(model, x)) <= 1e-5
            finally:
                torch.set_default_dtype(torch.float32)


def test_at_least_128_models_are_in_the_contract() -> None:
    assert sum(timm.is_model(name) for name in NAMES) >= 128


def test_adapters_answer_the_same_in_a_fresh_process(shelf: Path) -> None:
    if not any(shelf.iterdir()):
        pytest.skip("no adapter was saved")
    subprocess.run([sys.executable, __file__, str(shelf)], check=True, timeout=1800)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    wrong = []
    for file in sorted(Path(sys.argv[1]).glob("*.safetensors")):
        torch.manual_seed(0)
        fresh = timm.create_model(file.stem, num_classes=5, **SHORTER.get(file.stem, {})).eval()
        wake(fresh)
        saved = load_file(file)
        settle(fresh, saved["x"])
        load(fresh, file.parent / file.stem)
        with torch.no_grad():
            if not torch.equal(outputs(fresh, saved["x"]), saved["y"]):
                wrong.append(file.stem)
    sys.exit(f"other answers after loading: {wrong}" if wrong else 0)
