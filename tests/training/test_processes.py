"""Several processes: what each gets of a batch, that they train as one, and who starts them."""

import pytest
import timm
import torch
import torch.distributed as dist

from medlora import adapters
from medlora.errors import MedloraError
from medlora.training import engine, processes
from medlora.training.batches import Order
from medlora.training.config import Train
from medlora.training.processes import Member
from medlora.training.task import OneOf
from medlora.transforms import Radiograph

TASK = OneOf(["absent", "present"])


class Images:
    """Noise with a bright corner in a third of the images."""

    def __init__(self, count, seed, dtype):
        self.labels = (torch.arange(count) % 3 == 0).long()
        self.images = torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(seed)).to(dtype) * 0.5
        self.images[self.labels == 1, :, :12, :12] += 0.3

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], self.labels[index], index


def trained(rank, world, folder, options, dtype, rate):
    """Train in this process, one of ``world``; the trained tensors."""
    torch.set_num_threads(1)
    torch.manual_seed(rank)  # another start in each process: that of the first one counts
    model = timm.create_model("test_resnet", num_classes=2, pretrained=False).to(dtype)
    adapter = adapters.attach(model, adapters.LoRA(rank=2))
    preset = Radiograph(size=32, mean=(0.5,) * 3, std=(0.25,) * 3, augment=0)
    settings = Train(epochs=3, batch_size=8, learning_rate=rate, device="cpu", **options)
    member = Member(rank, world, rank, 1, dist.FileStore(str(folder / "store"), world)) if world > 1 else None
    out = folder / f"{rank}-of-{world}"
    row = engine.fit(
        model, adapter, preset, Images(25, 0, dtype), Images(15, 1, dtype), TASK, settings, out,
        [str(n) for n in range(25)],
        member=member,
    )  # fmt: skip
    out.mkdir(exist_ok=True)
    torch.save((adapter.state_dict(), row), out / "state.pt")
    return adapter.state_dict(), row


@pytest.mark.parametrize(("count", "batch_size", "world"), [(22, 8, 2), (9, 4, 3), (16, 8, 4), (13, 6, 5)])
def test_the_parts_of_all_processes_are_the_batches_of_one(count, batch_size, world):
    whole = list(Order(count, batch_size, seed=3))
    orders = [Order(count, batch_size, 3, None, rank, world) for rank in range(world)]
    parts = [list(order) for order in orders]
    for number, batch in enumerate(whole):
        shares = [order.share(number) for order in orders]
        assert sum(shares) == pytest.approx(1)
        counted = [place for part, share in zip(parts, shares, strict=True) if share for place in part[number]]
        assert sorted(counted) == sorted(batch)
        assert [len(part[number]) for part in parts] == [max(1, round(share * len(batch))) for share in shares]


@pytest.mark.parametrize(
    ("settings", "environment", "said"),
    [
        ({"nodes": 2}, {}, "started alone"),
        ({}, {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "4", "RANK": "0"}, "4 processes were started"),
        ({"devices": 2}, {"SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4"}, "2 devices"),
    ],
    ids=["no launcher", "torchrun", "srun"],
)
def test_as_many_processes_as_are_asked_for(monkeypatch, settings, environment, said):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MedloraError, match=said):
        processes.launched(Train(**settings))


def test_alone_is_alone_also_within_a_large_allocation(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")  # as sbatch sets it, without srun
    assert processes.launched(Train()) is None


@pytest.mark.slow
@pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo")
@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate": 2, "class_weights": "none"}, {"label_smoothing": 0.1, "clip": 0.05, "keep": "best"}],
    ids=["defaults", "accumulated", "clipped"],
)
@pytest.mark.parametrize(
    ("dtype", "rate", "within"),
    # AdamW's first step is the rate times the gradient's sign, which of a gradient near zero is rounding's: in single
    # precision the default rate, lest one such element turn the later steps.
    [(torch.float64, 1e-2, 1e-9), (torch.float32, 1e-3, 1e-5)],
    ids=["double precision", "single precision"],
)
def test_two_processes_train_as_one(tmp_path, options, dtype, rate, within):
    one, row = trained(
        0, 1, tmp_path, options, dtype, rate
    )  # batches of 8, 8, 8 and 1: the last has nothing for the second
    torch.multiprocessing.start_processes(trained, (2, tmp_path, options, dtype, rate), nprocs=2, start_method="spawn")
    for rank in (0, 1):
        state, found = torch.load(tmp_path / f"{rank}-of-2" / "state.pt", weights_only=True)
        assert found["epoch"] == row["epoch"]
        assert found["tune_auc"] == pytest.approx(row["tune_auc"], abs=1e-12)
        assert found["train_loss"] == pytest.approx(row["train_loss"], rel=1e-6 if dtype is torch.double else 1e-5)
        for key, value in one.items():
            torch.testing.assert_close(state[key], value, rtol=0, atol=within)
    assert not (tmp_path / "1-of-2" / "metrics.csv").exists()  # the first one writes
