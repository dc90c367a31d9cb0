"""A run: one training and all it left in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from medlora.errors import MedloraError
from medlora.training.config import Config

if TYPE_CHECKING:
    from medlora.cohorts import Cohort
    from medlora.evaluation import Evaluation


class Run:
    """A finished run.

    Args:
        folder: as :func:`medlora.train` left it.
        cohort: the one it was trained on, where it is at hand; else its folder is read from the run's settings.

    Raises:
        MedloraError: ``folder`` is no run.
    """

    def __init__(self, folder: str | Path, cohort: Cohort | None = None) -> None:
        self.folder = Path(folder)
        self._cohort = cohort
        if not (self.folder / "STATUS").is_file() or not (self.folder / "config.yaml").is_file():
            raise MedloraError(f"{self.folder} is no run", "give the folder that medlora train has written")

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """A finished run from its folder.

        Raises:
            MedloraError: ``folder`` is no run, or did not end well.
        """
        run = cls(folder)
        if run.status != "done":
            raise MedloraError(
                f"the run {folder} did not end well: {run.status}",
                "go on with medlora train … --resume, or train anew with --overwrite",
            )
        return run

    @property
    def status(self) -> str:
        """``running``, ``done``, ``interrupted`` or ``failed: why``."""
        return (self.folder / "STATUS").read_text(encoding="utf-8").strip()

    @property
    def adapter_path(self) -> Path:
        """The adapter's folder."""
        return self.folder / "adapter"

    @property
    def probe_path(self) -> Path | None:
        """The linear probe's folder, an adapter too, where one was trained."""
        path = self.folder / "probe"
        return path if path.is_dir() else None

    @property
    def info(self) -> dict[str, Any]:
        """What the adapter says of itself: its ``medlora.json``."""
        from medlora.adapters import read_info

        return read_info(self.adapter_path)

    @property
    def config(self) -> Config:
        """All settings."""
        return Config.resolve(self.folder / "config.yaml")

    @property
    def history(self) -> pd.DataFrame:
        """A row for each epoch: epoch, train_loss, tune_loss, tune_auc, seconds."""
        return pd.read_csv(self.folder / "metrics.csv")

    @property
    def kept(self) -> dict[str, float]:
        """The row of :attr:`history` whose adapter was kept."""
        rows = self.history
        return dict(rows[rows["epoch"] == self.info["training"]["kept_epoch"]].iloc[0])

    @property
    def cases(self) -> pd.DataFrame:
        """The cases and splits as they were when it was trained; a later ``check`` does not change them."""
        from medlora.cohorts.labelling import is_finding

        file = self.folder / "cohort.csv"
        findings = [name for name in pd.read_csv(file, nrows=0).columns if is_finding(name)]
        types = dict.fromkeys(("case_id", "scan_id", "patient", "site", "label"), "str")
        types |= dict.fromkeys(findings, "Int64")
        return pd.read_csv(file, dtype=types, keep_default_na=False, na_values={name: [""] for name in findings})

    def cohort(self) -> Cohort:
        """The cohort that it was trained on.

        Raises:
            MedloraError: its folder is unknown, gone or damaged.
        """
        from medlora.cohorts import Cohort

        if self._cohort is None:
            folder = self.config.data.cohort
            if folder is None:
                raise MedloraError(
                    f"the run {self.folder} was trained on a cohort that was never saved", "save the cohort and name it"
                )
            if not Path(folder).is_dir():
                raise MedloraError(f"the cohort {folder} of this run is gone", "name its new place with --cohort")
            self._cohort = Cohort.load(folder)
        return self._cohort

    def evaluate(
        self,
        split: str = "test",
        *,
        weights: str | Path | None = None,
        device: str = "auto",
        overwrite: bool = False,
    ) -> Evaluation:
        """Judge the adapter, and the linear probe beside it, on a split of its cohort.

        Writes ``predictions/SPLIT.csv`` and ``evaluation/SPLIT/`` into the run.

        Args:
            split: ``test``; or ``tune`` or ``train``, labelled as what they are.
            weights: the backbone's weights file, where the run was trained on one that has moved.
            device: cpu, cuda, mps or auto.
            overwrite: replace an earlier evaluation of this split.

        Raises:
            MedloraError: there is no such split, the archive is gone, or there is an earlier evaluation.
        """
        from medlora.training.judging import evaluate_run

        return evaluate_run(self, split, weights=weights, device=device, overwrite=overwrite)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.status})"

    def _repr_html_(self) -> str:
        import html

        rows = self.history.round(4).to_html(index=False, border=0)
        return f"<p><b>medlora run</b> {html.escape(str(self.folder))} ({html.escape(self.status)})</p>{rows}"
