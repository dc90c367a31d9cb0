"""The search against objectives whose best is known, interrupted and not."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest

from medlora.errors import MedloraError
from medlora.training.config import Config
from medlora.training.engine import DivergedError
from medlora.training.search import SEARCHED, check_search, search

pytest.importorskip("optuna")

EPOCHS = 8


def objective(config):
    """Best at rank 16 and a learning rate of 4e-3; the defaults, rank 8 and 1e-3, give 0.78."""
    return 0.9 - 0.1 * abs(math.log10(config.learning_rate / 4e-3)) - 0.03 * abs(math.log2(config.adapter.rank / 16))


class Trials:
    """Stands for trainings: tune_auc rises to the objective's value in eight epochs."""

    def __init__(self, value=objective, until=None):
        self.value, self.until, self.seen, self.epochs = value, until, [], []

    def __call__(self, config, folder, watching):
        if len(self.seen) == self.until:
            raise KeyboardInterrupt
        self.seen.append(config)
        end, history, settings = self.value(config), [], config.train.model_copy(update={"epochs": EPOCHS})
        self.epochs.append(0)
        for epoch in range(1, EPOCHS + 1):
            history.append({"epoch": epoch, "tune_auc": end * (1 - 0.5**epoch)})
            self.epochs[-1] = epoch
            watching.on_validation_end(None, SimpleNamespace(history=history, settings=settings))
        return SimpleNamespace(kept=history[-1])


def found(folder, trials, count=25, names=("rank", "lr"), digest="one", config=None):
    return search(names, count, config or Config(), digest, folder, trials)


def test_the_best_is_found_and_hopeless_trials_end_early(tmp_path):
    trials = Trials()
    best = found(tmp_path, trials)
    assert objective(best) > 0.86
    assert objective(best) == max(map(objective, trials.seen))
    assert trials.seen[0].adapter.rank == 8  # the settings as they were given come first
    assert trials.seen[0].learning_rate == pytest.approx(1e-3)
    assert all(config.adapter.alpha / config.adapter.rank == 8 for config in trials.seen)
    table = pd.read_csv(tmp_path / "trials.csv")
    assert len(table) == 25
    pruned = table["state"] == "pruned"
    assert (table["epochs"] == trials.epochs).all()
    assert (table["epochs"][pruned] < EPOCHS).all()
    assert (table["epochs"][~pruned] == EPOCHS).all()
    assert 5 <= pruned.sum() <= 20
    assert not pruned[:4].any()


def test_interrupted_anywhere_it_goes_on_as_if_it_had_not_been(tmp_path):
    whole = Trials()
    best = found(tmp_path / "whole", whole, count=10)
    for until in (0, 1, 6):
        folder = tmp_path / str(until)
        before, after = Trials(until=until), Trials()
        with pytest.raises(KeyboardInterrupt):
            found(folder, before, count=10)
        assert found(folder, after, count=10) == best
        assert before.seen + after.seen == whole.seen
    never = Trials()
    assert found(tmp_path / "whole", never, count=10) == best
    assert never.seen == []


def test_a_training_that_diverges_does_not_end_the_search(tmp_path):
    def diverges_when_fast(config):
        if config.learning_rate > 2e-3:
            raise DivergedError("the loss became nan", "lower the learning rate")
        return objective(config)

    best = found(tmp_path, Trials(diverges_when_fast), count=12)
    assert best.learning_rate <= 2e-3
    with pytest.raises(MedloraError, match="no trial"):
        found(tmp_path / "all", Trials(diverges_when_fast), 2, config=Config(train={"learning_rate": 0.5}))


def test_every_name_varies_its_setting(tmp_path):
    trials = Trials(lambda config: 0.8)
    found(tmp_path, trials, count=8, names=tuple(SEARCHED), config=Config(adapter={"last": [-1, -2]}))
    depths = {str(config.adapter.last) for config in trials.seen}
    assert str(trials.seen[0].adapter.last) == "[-1, -2]"
    assert len(depths) > 1
    for value in (
        lambda config: config.adapter.rank,
        lambda config: config.learning_rate,
        lambda config: config.adapter.dropout,
        lambda config: config.train.label_smoothing,
        lambda config: config.data.augment,
    ):
        assert len(set(map(value, trials.seen))) > 1


def test_another_search_is_not_gone_on_with(tmp_path):
    found(tmp_path, Trials(), count=1)
    for other in ({"digest": "two"}, {"names": ("lr",)}):
        with pytest.raises(MedloraError, match="begun with other settings"):
            found(tmp_path, Trials(), **other)


@pytest.mark.parametrize(
    ("names", "trials", "method", "said"),
    [
        (["rnak"], 12, "lora", "cannot vary rnak"),
        ([], 12, "lora", "cannot vary nothing"),
        (["lr"], 0, "lora", "--trials 0"),
        (["rank"], 12, "full", "method full has none"),
        (["depth"], 12, "probe", "method probe has none"),
    ],
)
def test_what_cannot_be_searched_is_refused(names, trials, method, said):
    with pytest.raises(MedloraError, match=said):
        check_search(names, trials, Config(adapter={"method": method}))
