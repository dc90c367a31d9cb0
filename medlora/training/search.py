"""Settings found by trial on the tune split, for ``train --search``: Optuna proposes, hopeless trials end early.

Each trial is an ordinary run below ``search/`` in the run's folder, judged by its AUC on the tune split; the test split
is not looked at. The first trial has the settings as they are given, so what is found is never worse there. A proposal
depends on the seed and on the trials before it alone, so a search that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from lightning.pytorch.callbacks import Callback

from medlora import files
from medlora.errors import MedloraError
from medlora.progress import say
from medlora.training.config import Config
from medlora.training.engine import DivergedError
from medlora.training.methods import options_of

if TYPE_CHECKING:
    import lightning as L
    from optuna import Study
    from optuna.trial import Trial

    from medlora.training.run import Run

    RunTrial = Callable[[Config, Path, Callback], Run]

#: What may be searched, and the settings it stands for.
SEARCHED = {
    "rank": "adapter.rank, with adapter.alpha in the same proportion: 2, 4, 8, 16 or 32",
    "depth": "adapter.last: a sixth, a third, half or all of the blocks",
    "lr": "train.learning_rate: from a tenth to ten times the one given",
    "dropout": "adapter.dropout: 0 to 0.3",
    "label_smoothing": "train.label_smoothing: 0 to 0.2",
    "augment": "data.augment: 0 to 2",
}
_RANKS, _DEPTHS = (2, 4, 8, 16, 32), ("1/6", "1/3", "1/2")
_WARM_TRIALS, _WARM_EPOCHS = 4, 2  # none is pruned before so many trials are done, and so many of its own epochs


class PrunedError(MedloraError):
    """A trial that was not worth going on with."""


class Prune(Callback):
    """Tells Optuna each epoch's AUC on the tune split, and ends a trial below the median of those before.

    Args:
        trial: that is run.
    """

    def __init__(self, trial: Trial) -> None:
        self.trial = trial

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:  # noqa: D102
        row = module.history[-1]
        epoch = int(row["epoch"])
        if not np.isfinite(row["tune_auc"]):
            return
        self.trial.report(row["tune_auc"], epoch)
        if epoch < module.settings.passes and self.trial.should_prune():
            raise PrunedError(
                f"pruned after epoch {epoch}: AUC {row['tune_auc']:.3f} on the tune split is below the median of the "
                "trials before",
                "this is how a search saves time",
            )


def check_search(names: Sequence[str], trials: int, config: Config) -> None:
    """Refuse what cannot be searched.

    Raises:
        MedloraError: Optuna is missing, a name is unknown, or the method has no such setting.
    """
    if find_spec("optuna") is None:
        raise MedloraError("--search needs the package optuna", "pip install 'medlora[search]'")
    unknown = [name for name in names if name not in SEARCHED]
    if unknown or not names:
        raise MedloraError(
            f"--search cannot vary {', '.join(unknown) or 'nothing'}", f"choose among: {', '.join(SEARCHED)}"
        )
    if trials < 1:
        raise MedloraError(f"--trials {trials} is no number of trials", "give 1 or more")
    options = options_of(config.adapter.method)
    for name, option in (("rank", "rank"), ("depth", "last"), ("dropout", "dropout")):
        if name in names and option not in options:
            raise MedloraError(f"--search cannot vary {name}: method {config.adapter.method} has none", "leave it out")


def search(names: Sequence[str], trials: int, config: Config, digest: str, folder: Path, run_trial: RunTrial) -> Config:
    """Run the trials that are still to be run, and give the settings of the best.

    Args:
        names: what is varied, of :data:`SEARCHED`.
        trials: how many in all, those of an interrupted search included.
        config: settings that the search starts from.
        digest: of all that decides the result beside ``names``; a search goes on only with the same.
        folder: of the search; made where it is not there.
        run_trial: trains with some settings into a folder, with a callback, going on with what is there.

    Returns:
        ``config`` with what was found.

    Raises:
        MedloraError: the search in ``folder`` was another, or no trial came to its end.
    """
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{(folder / 'study.db').resolve().as_posix()}",
        study_name="search",
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(_WARM_TRIALS, _WARM_EPOCHS),
        load_if_exists=True,
    )
    question = json.dumps([*names, digest])
    if study.user_attrs.get("question", question) != question:
        raise MedloraError(
            f"the search in {folder} was begun with other settings, cases or names",
            "resume it with the same command, or train anew with --overwrite",
        )
    study.set_user_attr("question", question)
    if not study.trials:
        study.enqueue_trial(_given(names, config))
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    interrupted = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for index in range(len(study.get_trials(deepcopy=False, states=ended)), trials):
        seed = np.random.SeedSequence((config.train.seed, index)).generate_state(1)[0]
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=_WARM_TRIALS, seed=int(seed))
        trial = optuna.trial.Trial(study, interrupted.pop()._trial_id) if interrupted else study.ask()
        chosen = _with(_propose(trial, names, config), config)
        say(f"trial {index + 1} of {trials}: {_listed(trial.params)}")
        try:
            run = run_trial(chosen, folder / f"trial-{trial.number + 1:02d}", Prune(trial))
        except (PrunedError, DivergedError) as error:
            say(error.what)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, run.kept["tune_auc"])
        _write_table(study, folder / "trials.csv")
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        raise MedloraError("no trial of the search came to its end", "lower --lr, or give more --trials")
    best = study.best_trial
    say(
        f"best of {trials} trials: {_listed(best.params)}; AUC {best.value:.3f} on the tune split, where it was "
        "chosen: an optimistic figure"
    )
    return _with(best.params, config)


def _depths(config: Config) -> dict[str, str | int | list[int] | None]:
    """Words for the depths tried, and ``adapter.last`` for each; the one given is among them."""
    given = config.adapter.last
    return {"all": None, **{part: part for part in _DEPTHS}, **({} if given is None else {str(given): given})}


def _given(names: Sequence[str], config: Config) -> dict[str, Any]:
    """The settings given, as a proposal."""
    last = config.adapter.last
    values = {
        "rank": config.adapter.rank,
        "depth": "all" if last is None else str(last),
        "lr": config.learning_rate,
        "dropout": config.adapter.dropout,
        "label_smoothing": config.train.label_smoothing,
        "augment": config.data.augment,
    }
    return {name: values[name] for name in names}


def _propose(trial: Trial, names: Sequence[str], config: Config) -> dict[str, Any]:
    """A value for each name; for a trial that was interrupted the one that it had."""
    given, rate = _given(names, config), config.learning_rate
    proposals: dict[str, Callable[[str], Any]] = {
        "rank": lambda name: trial.suggest_categorical(name, sorted({*_RANKS, config.adapter.rank})),
        "depth": lambda name: trial.suggest_categorical(name, list(_depths(config))),
        "lr": lambda name: trial.suggest_float(name, rate / 10, rate * 10, log=True),
        "dropout": lambda name: trial.suggest_float(name, 0, max(0.3, given[name])),
        "label_smoothing": lambda name: trial.suggest_float(name, 0, max(0.2, given[name])),
        "augment": lambda name: trial.suggest_float(name, 0, max(2.0, given[name])),
    }
    return {name: proposals[name](name) for name in names}


def _with(values: dict[str, Any], config: Config) -> Config:
    """``config`` with what was proposed."""
    config = config.model_copy(deep=True)
    adapter, settings = config.adapter, config.train
    if "rank" in values:  # the strength of an update, alpha / rank, stays
        adapter.alpha, adapter.rank = adapter.alpha * values["rank"] / adapter.rank, values["rank"]
    if "depth" in values:
        adapter.last = _depths(config)[values["depth"]]
    adapter.dropout = values.get("dropout", adapter.dropout)
    settings.learning_rate = values.get("lr", settings.learning_rate)
    settings.label_smoothing = values.get("label_smoothing", settings.label_smoothing)
    config.data.augment = values.get("augment", config.data.augment)
    return config


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def _write_table(study: Study, file: Path) -> None:
    """A row for each trial: trial, state, tune_auc, epochs, and what was varied."""
    rows = [
        {
            "trial": trial.number + 1,
            "state": trial.state.name.lower(),
            "tune_auc": trial.value,
            "epochs": trial.last_step,
            **trial.params,
        }
        for trial in study.get_trials(deepcopy=False)
    ]
    files.write_text(file, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
