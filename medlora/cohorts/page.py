"""``check.html``: what was found, for a reader; and the short form that Jupyter shows. Loads nothing."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader

from medlora.cohorts.folder import FIXED, is_acquisition
from medlora.cohorts.labelling import ALL, is_finding, labelling
from medlora.cohorts.pixels import data_uri
from medlora.cohorts.source import CHANCE, SOURCES, WARN_ABOVE
from medlora.cohorts.splits import SPLITS

if TYPE_CHECKING:
    from medlora.cohorts.cohort import Cohort

_PICTURE = re.compile(r'<img src="data:image/png;base64,([A-Za-z0-9+/=]+)" alt="(scan|place) ([0-9a-f:]+)"')
MOST_VALUES = 6
NOT_GIVEN = "(not given)"
MOST_EXCLUDED = 200


def render(cohort: Cohort) -> str:
    """The whole page."""
    return _template("check.html.jinja").render(
        cohort=cohort,
        info=cohort.info,
        groups=[name for name, _ in _groups(cohort)],
        counts=counts(cohort),
        splits=[split for split in SPLITS if (cohort.table["split"] == split).any()],
        codes=_codes(cohort),
        excluded=cohort.excluded.head(MOST_EXCLUDED).to_dict("records"),
        mix=acquisition_mix(cohort),
        sites=_sites(cohort),
        thumbnails=_thumbnails(cohort),
        places=_places(cohort),
        same=_same(cohort),
        seen={name: what.removeprefix("the ") for name, (what, _) in SOURCES.items()},
        warn_above=WARN_ABOVE,
        chance=CHANCE,
    )


def summary_html(cohort: Cohort) -> str:
    """The short form for Jupyter: counts, warnings, the first cases."""
    return _template("summary.html.jinja").render(
        cohort=cohort,
        counts=counts(cohort),
        splits=[split for split in SPLITS if (cohort.table["split"] == split).any()],
        rows=cohort.table.head(8).astype(object).where(cohort.table.head(8).notna(), "").to_dict("records"),
        columns=[name for name in cohort.table.columns if name in FIXED or is_finding(name)],
    )


def counts(cohort: Cohort) -> list[dict[str, Any]]:
    """One row per label, or three per finding: cases and patients, in all and by split."""
    rows = []
    for label, part in cohort.labelling.groups():
        by_split = {name: (len(sub), sub["patient"].nunique()) for name, sub in part.groupby("split")}
        rows.append({"label": label or "(none)", "all": (len(part), part["patient"].nunique()), "by_split": by_split})
    return rows


def acquisition_mix(cohort: Cohort) -> list[dict[str, Any]]:
    """For each acquisition field what it holds, by label: shares of the commonest values, or median and range."""
    table, groups = cohort.table, _groups(cohort)
    fields = []
    for name in [name for name in table.columns if is_acquisition(name)]:
        values = table[name]
        numeric = pd.api.types.is_numeric_dtype(values) and values.nunique() > MOST_VALUES
        rows = _quantiles(name, groups) if numeric else _shares(name, values, groups)
        fields.append({"name": name, "rows": rows, "varies": values.nunique(dropna=False) > 1})
    return sorted(fields, key=lambda field: not field["varies"])


def _groups(cohort: Cohort) -> list[tuple[str, pd.DataFrame]]:
    """The cases that the table of acquisition fields shows side by side."""
    return [(name, part) for name, part in cohort.labelling.beside() if name] or [("all", cohort.table)]


def _quantiles(name: str, groups: list[tuple[str, pd.DataFrame]]) -> list[dict[str, Any]]:
    cells = []
    for _, part in groups:
        known = part[name].dropna()
        cells.append(f"{known.median():g} ({known.min():g} to {known.max():g})" if len(known) else "–")
    return [{"value": "median (range)", "cells": cells}]


def _shares(name: str, values: pd.Series, groups: list[tuple[str, pd.DataFrame]]) -> list[dict[str, Any]]:
    said = values.map("{:g}".format, na_action="ignore") if pd.api.types.is_numeric_dtype(values) else values
    text = said.astype("string").map(uid_name if name.endswith("UID") else str, na_action="ignore").fillna(NOT_GIVEN)
    common = list(text.value_counts().index[:MOST_VALUES])
    rows = []
    for value in common:
        parts = [(text.loc[part.index] == value).mean() for _, part in groups]
        rows.append({"value": value, "cells": [f"{part:.0%}" for part in parts]})
    rest = text.nunique() - len(common)
    if rest > 0:
        parts = [(~text.loc[part.index].isin(common)).mean() for _, part in groups]
        rows.append(
            {"value": f"{rest} other value{'s' if rest > 1 else ''}", "cells": [f"{part:.0%}" for part in parts]}
        )
    return rows


def uid_name(uid: str) -> str:
    """The name that the standard gives to one of its UIDs (PS3.6 Annex A)."""
    from pydicom.uid import UID

    return UID(uid).name


def _codes(cohort: Cohort) -> list[dict[str, Any]]:
    frame = cohort.excluded
    return [
        {"code": code, "n": len(part), "files": int(part["files"].sum()), "reason": part["reason"].iloc[0]}
        for code, part in sorted(frame.groupby("code"), key=lambda item: -len(item[1]))
    ]


def _sites(cohort: Cohort) -> dict[str, Any]:
    table = cohort.table
    if (table["site"] == "").all():
        return {}
    groups = cohort.labelling.beside()
    cross = {site: [int((part["site"] == site).sum()) for _, part in groups] for site in sorted(set(table["site"]))}
    return {"labels": [name for name, _ in groups], "rows": list(cross.items())}


def pictures_in(page: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The images that an earlier page shows: examples by scan_id, places by case_id."""
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}, {}
    found: dict[str, dict[str, bytes]] = {"scan": {}, "place": {}}
    for image, kind, name in _PICTURE.findall(text):
        found[kind][name] = base64.b64decode(image)
    return found["scan"], found["place"]


def _places(cohort: Cohort) -> list[dict[str, Any]]:
    label = dict(zip(cohort.table["case_id"], cohort.labelling.texts(), strict=True))
    return [
        {"case_id": case_id, "label": label[case_id], "uri": data_uri(image)}
        for case_id, image in cohort._pictures[1].items()
        if case_id in label
    ]


def _thumbnails(cohort: Cohort) -> list[dict[str, Any]]:
    thumbnails = cohort._pictures[0]
    groups: list[dict[str, Any]] = []
    seen: set[str] = set()
    for label, part in labelling(cohort.table.drop_duplicates("scan_id")).beside():
        images = [
            {"scan_id": scan_id, "uri": data_uri(thumbnails[scan_id])}
            for scan_id in part["scan_id"]
            if scan_id in thumbnails and scan_id not in seen  # with several findings it is an example of the first
        ]
        seen.update(image["scan_id"] for image in images)
        if images:
            name = "others" if label == ALL else label or "(no label)"
            groups.append({"label": name, "images": images})
    return groups


def _same(cohort: Cohort) -> list[list[dict[str, Any]]]:
    rows = cohort.table.assign(label=cohort.labelling.texts()).drop_duplicates("scan_id").set_index("scan_id")
    return [
        [{"scan_id": s, **rows.loc[s, ["patient", "label", "split"]].to_dict()} for s in group if s in rows.index]
        for group in cohort.info["same_image_scans"][:50]
    ]


def _template(name: str) -> Any:
    environment = Environment(
        loader=PackageLoader("medlora.cohorts", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name)
