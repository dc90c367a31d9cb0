"""Training in two processes (DistributedDataParallel, gloo) moves an adapter as training in one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from medlora.adapters import Adapter, DoRA, LoRA, attach

METHODS = {
    "lora": LoRA(rank=2),
    "slices": LoRA(rank=2, targets=("attention.q", "attention.v", "mlp")),
    "dora": DoRA(rank=2),
}


def net() -> nn.Module:
    import timm

    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=3).double()


def train(model: nn.Module, adapter: Adapter, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.5)
    model.train()
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return adapter.state_dict()


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(8, 3, 32, 32, generator=generator).double(), torch.arange(8) % 3


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(str(Path(folder) / "store"), 2), rank=rank, world_size=2)
    try:
        for name, method in METHODS.items():
            model = net()
            torch.manual_seed(rank)  # DDP sends the first process's draw of A to the other
            adapter = attach(model, method)
            x, y = data()
            state = train(DistributedDataParallel(model), adapter, x[rank::2], y[rank::2])
            torch.save(state, Path(folder) / f"{name}-{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo")
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    mp.start_processes(worker, args=(str(tmp_path),), nprocs=2, start_method="spawn")
    for name, method in METHODS.items():
        model = net()
        torch.manual_seed(0)
        adapter = attach(model, method)
        start = {k: v.clone() for k, v in adapter.state_dict().items()}
        want = train(model, adapter, *data())
        assert not any(torch.equal(want[k], start[k]) for k in want)
        for rank in (0, 1):
            got = torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True)
            assert got.keys() == want.keys()
            for key, tensor in want.items():
                torch.testing.assert_close(got[key], tensor, rtol=1e-5, atol=1e-8)
