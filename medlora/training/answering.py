"""Answers for new scans: what ``medlora predict`` writes, a row for each scan or place in one, answered or not."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

from medlora.cohorts import readings
from medlora.errors import MedloraError
from medlora.progress import track
from medlora.training.asked import Asked, read_asked
from medlora.training.predictor import Predictor

if TYPE_CHECKING:
    from medlora.scans import ScanFiles, Survey

_BATCH = 32
_CENTRE = ("x_mm", "y_mm", "z_mm")  # not x, y, z: y is the true class


@dataclass(frozen=True)
class Answers:
    """Predictions for new scans.

    Attributes:
        table: a row for each scan: case_id, scan_id, patient (a hash that holds within this table), site, y (empty; of
            findings y_FINDING…), p_CLASS…, predicted, note, reason (why there is no answer); nothing in it identifies
            anybody. Where places in scans were asked about, a row for each of them, with its centre (x_mm, y_mm, z_mm,
            RAS+) and the row of the table of cases.
        sources: the files of each row of ``table``; they may carry names, so they are kept apart from it.
        warnings: what must be known before the answers are used.
    """

    table: pd.DataFrame
    sources: list[tuple[Path, ...]]
    warnings: tuple[str, ...] = ()

    @property
    def answered(self) -> int:
        """How many rows have an answer."""
        return int((self.table["reason"] == "").sum())

    def counts(self) -> dict[str, int]:
        """How often each class was answered, or each finding (and ``none``), the commonest first."""
        words = self.table.loc[self.table["reason"] == "", "predicted"]
        if "y" not in self.table:  # several findings in a cell
            words = words.str.split("|").explode()
        return {str(name): int(n) for name, n in words.value_counts().items()}

    def linkage(self) -> pd.DataFrame:
        """Which files each row is of, numbered as a spreadsheet shows it (the header is row 1).

        Paths may identify patients: keep it as the scans themselves are kept.
        """
        rows = [
            {"row": index + 2, "scan_id": self.table["scan_id"].iloc[index], "path": os.fspath(path)}
            for index, paths in enumerate(self.sources)
            for path in paths
        ]
        return pd.DataFrame(rows, columns=["row", "scan_id", "path"])

    def _repr_html_(self) -> str:
        return self.table.to_html(notebook=True, max_rows=60)


def predict(
    model: Predictor,
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    cases: str | os.PathLike[str] | None = None,
    coordinates: str | None = None,
    modality: str | None = None,
) -> Answers:
    """Answer for each scan in ``paths``, in the order of their files; or for places in them.

    Where the training chose one scan of each study by a rule, so does this; the others are rows without an answer.

    Args:
        model: the adapter on its backbone.
        paths: files or folders.
        cases: a CSV of places (see :mod:`medlora.training.asked`), where the adapter answers for places.
        coordinates: the system of their centres, where the headings do not say it.
        modality: of files that have no room to say theirs (NIfTI, MetaImage, PNG).

    Raises:
        MedloraError: a path does not exist, or there is no file at all; places are given to an adapter that answers for
            whole scans, or the reverse; or the places are, beyond doubt, given in another coordinate system.
    """
    from medlora import scans
    from medlora.cohorts.modality import with_modality

    places = [Path(paths)] if isinstance(paths, (str, os.PathLike)) else [Path(path) for path in paths]
    for place in places:
        if not place.exists():
            raise MedloraError(f"there is no {place}", "check the path")
    survey = scans.survey(places)
    survey = replace(survey, scans=[with_modality(item, modality) for item in survey.scans])
    if not survey.scans and not survey.excluded:
        raise MedloraError(f"no file in {', '.join(map(str, places))}", "give a folder or file that holds scans")

    asked = _asked(model, cases, coordinates, survey, places)
    salt = secrets.token_bytes(16)
    rows: list[dict[str, object]] = []
    sources: list[tuple[Path, ...]] = []
    waiting: list[tuple[int, torch.Tensor]] = []
    wanted, others = _selected(model, survey) if asked is None else ([], [])
    if asked is not None:
        wanted = [item for item in survey.scans if item.scan_id in asked.of_scan]
    met: list[frozenset[str]] = []
    for item in track(wanted, "predicting scans"):
        for row, image in _images(model, item, asked, met):
            if image is not None:
                waiting.append((len(rows), image))
            rows.append(_row(model, item, salt) | row)
            sources.append(item.paths)
            if len(waiting) == _BATCH:
                _answer(model, rows, waiting)
                waiting.clear()
    if waiting:
        _answer(model, rows, waiting)
    for item, reason in others:
        rows.append(_row(model, item, salt) | {"reason": f"NotSelected: {reason}"})
        sources.append(item.paths)
    if asked is not None:
        for number in asked.unmatched:
            rows.append(
                _empty(model, "") | {"row": number, "reason": "the row has no centre, or is about no scan found"}
            )
            sources.append(())
        return Answers(pd.DataFrame(rows), sources, _read_otherwise(met, asked.system))
    for left_out in survey.excluded:
        rows.append(_empty(model, left_out.scan_id or "") | {"reason": str(left_out.issue)})
        sources.append(tuple(left_out.paths))
    return Answers(pd.DataFrame(rows), sources)


def _selected(model: Predictor, survey: Survey) -> tuple[list[ScanFiles], list[tuple[ScanFiles, str]]]:
    """One scan of each study, by the rule that picked those of the training; all where there was none."""
    from medlora.cohorts import Selection

    rule = model.info["task"].get("select")
    return Selection.parse(rule).choose(survey.scans) if rule else (survey.scans, [])


def _asked(
    model: Predictor,
    cases: str | os.PathLike[str] | None,
    coordinates: str | None,
    survey: Survey,
    roots: list[Path],
) -> Asked | None:
    """The places that are asked about, or None where the adapter answers for whole scans."""
    if not model.preset.places:
        if cases is not None:
            raise MedloraError("this adapter answers for whole scans, not for places in them", "leave out --cases")
        return None
    if cases is None:
        raise MedloraError(
            "this adapter answers for places in scans (nodules), and does not look for them itself",
            "add --cases CSV with a row for each place: its scan (series_uid or file) and its centre (x, y, z)",
        )
    return read_asked(cases, coordinates, survey, roots, model.info["task"].get("select"))


def _read_otherwise(met: list[frozenset[str]], system: str) -> tuple[str, ...]:
    """A warning where more centres meet something if their coordinates are read in another way (as in a check).

    Raises:
        MedloraError: it is beyond doubt.
    """
    said = readings.sentence(readings.count(met), system)
    if said is None:
        return ()
    what, certain = said
    if certain:
        raise MedloraError(what, "declare the system that the centres are in; nothing was written")
    return (what,)


def _images(
    model: Predictor, item: ScanFiles, asked: Asked | None, met: list[frozenset[str]]
) -> Iterator[tuple[dict[str, object], torch.Tensor | None]]:
    """What is special about the rows of a scan, and the prepared image of each, None where there is a reason.

    Of places, ``met`` gets the readings of their coordinates under which something lies there.
    """
    prepare = model.preset.preparation()
    try:
        scan = item.load()
    except MedloraError as error:
        failed: dict[str, object] = {"reason": error.what}
        places = asked.of_scan[item.scan_id] if asked is not None else [None]
        yield from ((failed if place is None else failed | {"row": place.row}, None) for place in places)
        return
    for number, place in enumerate(asked.of_scan[item.scan_id] if asked is not None else [None], 1):
        row: dict[str, object] = {}
        centre = None
        if asked is not None and place is not None:
            centre = asked.centre(place, scan)
            if readings.tells(scan):
                met.append(readings.met(place.centre, asked.system, scan.array, scan.affine))
            row = {"case_id": f"{item.scan_id}:{number}", **dict(zip(_CENTRE, centre, strict=True)), "row": place.row}
        try:
            yield row, torch.as_tensor(prepare(scan, centre))
        except MedloraError as error:
            yield row | {"reason": error.what}, None


def _row(model: Predictor, item: ScanFiles, salt: bytes) -> dict[str, object]:
    row = _empty(model, item.scan_id)
    if item.identity.patient_id:
        row["patient"] = hashlib.sha256(salt + item.identity.patient_id.encode()).hexdigest()[:16]
    notes = [str(issue) for issue in item.issues]
    seen, view = model.info["task"].get("views") or [], str(item.header.get("ViewPosition") or "")
    if seen and view and view not in seen:
        notes.append(f"view {view} was not among those of the training ({', '.join(seen)})")
    row["note"] = "; ".join(notes)
    return row


def _empty(model: Predictor, scan_id: str) -> dict[str, object]:
    probabilities = {f"p_{name}": None for name in model.classes}
    identity = {"case_id": scan_id, "scan_id": scan_id, "patient": "", "site": "", **model.task.unanswered()}
    place = dict.fromkeys((*_CENTRE, "row")) if model.preset.places else {}
    return {**identity, **probabilities, "predicted": "", **place, "note": "", "reason": ""}


def _answer(model: Predictor, rows: list[dict[str, object]], waiting: list[tuple[int, torch.Tensor]]) -> None:
    probabilities = model.probabilities(model.logits(torch.stack([image for _, image in waiting])))
    predicted = model.operating_point.words(probabilities, model.classes)
    for (index, _), values, answer in zip(waiting, probabilities, predicted, strict=True):
        rows[index].update({f"p_{name}": float(value) for name, value in zip(model.classes, values, strict=True)})
        rows[index]["predicted"] = answer
