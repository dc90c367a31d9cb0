"""The training loop on timm's smallest net: options against what they must equal, and an interrupted run taken up."""

import importlib.util
import os

import numpy as np
import pytest
import timm
import torch

from medlora import adapters
from medlora.errors import MedloraError
from medlora.training import engine
from medlora.training.batches import CachedViews, Order
from medlora.training.callbacks import KeepBest
from medlora.training.checkpoint import Checkpoint
from medlora.training.config import Config, Train
from medlora.training.loggers import logger_for, settings_for
from medlora.training.losses import Loss, macro_auc
from medlora.training.task import OneOf
from medlora.transforms import Radiograph

NET = "test_resnet"
TASK = OneOf(["absent", "present"])


class Images:
    """Noise with a bright corner in half of the images."""

    def __init__(self, count, seed):
        random = torch.Generator().manual_seed(seed)
        self.labels = (torch.arange(count) % 3 == 0).long()
        self.images = torch.rand(count, 1, 32, 32, generator=random) * 0.5
        self.images[self.labels == 1, :, :12, :12] += 0.3

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], self.labels[index], index


def trained(folder, after=None, augment=1.0, dropout=0.1, images=Images, logger=None, **options):
    settings = Train(
        **{"epochs": 3, "batch_size": 8, "learning_rate": 1e-2, "device": "cpu", "num_workers": 0, **options}
    )
    torch.manual_seed(0)
    model = timm.create_model(NET, num_classes=2, pretrained=False)
    adapter = adapters.attach(model, adapters.LoRA(rank=2, dropout=dropout))
    preset = Radiograph(size=32, mean=(0.5,) * 3, std=(0.25,) * 3, augment=augment)
    row = engine.fit(
        model, adapter, preset, images(32, 0), Images(16, 1), TASK, settings, folder, [str(n) for n in range(32)],
        digest="made", after=after, logger=logger,
    )  # fmt: skip
    return row, adapter.state_dict()


def same(a, b, tolerance=0.0):
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=tolerance, atol=tolerance)


def test_it_learns_and_is_the_same_again(tmp_path):
    row, first = trained(tmp_path / "a", epochs=6)
    assert row["epoch"] == 6
    assert row["tune_auc"] > 0.9
    _, second = trained(tmp_path / "b", epochs=6)
    same(first, second)
    _, other = trained(tmp_path / "c", epochs=6, seed=1)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_interrupted_and_taken_up_is_the_uninterrupted_training(tmp_path, monkeypatch):
    _, whole = trained(tmp_path / "whole")
    keep = KeepBest.on_validation_end

    def interrupted(self, trainer, module):
        keep(self, trainer, module)
        if len(self.rows) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(KeepBest, "on_validation_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut")
    monkeypatch.setattr(KeepBest, "on_validation_end", keep)
    after = Checkpoint.load(tmp_path / "cut" / "checkpoints")
    assert len(after.history) == 2
    row, resumed = trained(tmp_path / "cut", after=after)
    assert row["epoch"] == 3
    same(whole, resumed)
    lines = [(tmp_path / name / "metrics.csv").read_text().splitlines() for name in ("whole", "cut")]
    assert [line.rsplit(",", 1)[0] for line in lines[0]] == [line.rsplit(",", 1)[0] for line in lines[1]]


@pytest.mark.parametrize("balance", ["balanced", "none", "logit_adjustment"])
def test_accumulated_batches_are_one_batch(tmp_path, balance):
    options = {"class_weights": balance, "epochs": 2}
    _, large = trained(tmp_path / "8", dropout=0.0, **options)
    _, small = trained(tmp_path / "4", dropout=0.0, batch_size=4, accumulate=2, **options)
    same(large, small, tolerance=1e-4)


@pytest.mark.parametrize(
    "options",
    [{"class_weights": "sampler"}, {"mixup": 0.4}, {"precision": "bf16-mixed"}, {"gradient_checkpointing": True},
     {"label_smoothing": 0.1}, {"clip": 0.0}, {"num_workers": 1}],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_options_train(tmp_path, options):
    row, _ = trained(tmp_path, epochs=2, **options)
    assert np.isfinite(row["train_loss"])


def test_workers_change_nothing(tmp_path):
    _, one = trained(tmp_path / "0", epochs=1)
    _, two = trained(tmp_path / "2", epochs=1, num_workers=2)
    same(one, two)


def test_stops_early_and_keeps_the_best(tmp_path):
    row, _ = trained(tmp_path, epochs=30, patience=2)
    rows = (tmp_path / "metrics.csv").read_text().splitlines()[1:]
    aucs = [float(line.split(",")[3]) for line in rows]
    assert len(aucs) < 30
    assert row["epoch"] == int(np.argmax(aucs)) + 1
    assert len(aucs) == row["epoch"] + 2


def test_half_precision_without_cuda_is_refused(tmp_path):
    with pytest.raises(MedloraError, match="16-mixed"):
        trained(tmp_path, precision="16-mixed")


def test_a_diverging_loss_names_the_scans(tmp_path):
    with pytest.raises(MedloraError, match="at the scans"):
        trained(tmp_path, learning_rate=1e30, clip=0.0)


class Deadly(Images):
    """Kills the process that loads one of the images."""

    def __getitem__(self, index):
        if index == 5 and torch.utils.data.get_worker_info() is not None:
            os._exit(9)
        return super().__getitem__(index)


def test_a_worker_that_dies_is_reported_with_its_scan(tmp_path):
    with pytest.raises(MedloraError, match=r"ended unexpectedly; they were at the scans 5\b"):
        trained(tmp_path, num_workers=1, images=Deadly)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")
def test_a_logger_gets_the_figures_and_no_path(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = Config.resolve(None, {"data.cohort": "/secret/place", "model.weights": "/secret/file"})
    logger = logger_for("tensorboard", tmp_path)
    logger.log_hyperparams(settings_for(config))
    trained(tmp_path, logger=logger)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    rows = (tmp_path / "metrics.csv").read_text().splitlines()[1:]
    assert [point.value for point in found.Scalars("tune_auc")] == pytest.approx([float(r.split(",")[3]) for r in rows])
    assert not any(b"secret" in path.read_bytes() for path in (tmp_path / "tensorboard").rglob("*") if path.is_file())


def test_a_logger_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("medlora.training.loggers.find_spec", lambda _name: None)
    with pytest.raises(MedloraError, match=r"needs the package mlflow\nFix: pip install 'medlora\[mlflow\]'"):
        logger_for("mlflow", tmp_path)


def test_losses_by_their_formulas():
    random = np.random.default_rng(0)
    labels = torch.tensor(random.choice(3, 200, p=[0.7, 0.2, 0.1]))
    logits = torch.tensor(random.normal(size=(200, 3)))
    counts = torch.bincount(labels).double()
    log_p = torch.log_softmax(logits, -1)[torch.arange(200), labels]
    assert float(Loss(labels, 3, "none", 0.0)(logits, labels)) == pytest.approx(float(-log_p.mean()))
    each = [float(-log_p[labels == k].mean()) for k in range(3)]  # balanced: the mean of the classes' means
    assert float(Loss(labels, 3, "balanced", 0.0)(logits, labels)) == pytest.approx(np.mean(each), rel=1e-5)
    adjusted = torch.log_softmax(logits + (counts / counts.sum()).log(), -1)[torch.arange(200), labels]
    found = Loss(labels, 3, "logit_adjustment", 0.0)(logits, labels)
    assert float(found) == pytest.approx(float(-adjusted.mean()), rel=1e-5)
    order = Order(200, 50, 0, Loss(labels, 3, "sampler", 0.0).drawing)
    drawn = [
        int(labels[index]) for epoch in range(20) for order.epoch in [epoch] for batch in order for _, index in batch
    ]
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), 1 / 3, atol=0.02)


def test_macro_auc_is_scikit_learns():
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(0)
    p, y = random.dirichlet((1, 1, 1), 60), random.integers(0, 3, 60)
    assert macro_auc(p, y) == pytest.approx(roc_auc_score(y, p, multi_class="ovr"))


def test_each_epoch_sees_every_image_once_in_an_order_of_its_own():
    order = Order(10, 4, seed=0)
    epochs = []
    for order.epoch in (0, 1, 0):
        batches = list(order)
        assert [len(batch) for batch in batches] == [4, 4, 2]
        assert len(order) == 3
        places = [place for batch in batches for place in batch]
        assert {epoch for epoch, _ in places} == {order.epoch}
        epochs.append([index for _, index in places])
        assert sorted(epochs[-1]) == list(range(10))
    assert epochs[0] == epochs[2] != epochs[1]


def test_cached_views_change_from_epoch_to_epoch():
    features = np.arange(6 * 4, dtype=np.float16).reshape(6, 4, 1)
    views = CachedViews(features, torch.zeros(6, dtype=torch.long), seed=0)
    seen = {int(views[(epoch, 2)][0]) - 8 for epoch in range(40)}
    assert seen == {0, 1, 2, 3}
    assert views[(5, 2)][0].dtype == torch.float32
    assert torch.equal(views[(5, 2)][0], views[(5, 2)][0])
