from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from archives import write_csv

from medlora.cohorts import Cohort

EVIL = '<script>alert("x")</script>'
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def cohort(archive, tmp_path):
    root = archive(12, 1, Manufacturer=EVIL[:60], BurnedInAnnotation="NO")
    rows = [
        ("file", "label", "site"),
        *((f"PAT{p:03d}/0.dcm", EVIL if p % 2 else "b", f"{EVIL}{p % 3}") for p in range(11)),
    ]
    return Cohort.from_archive(root, write_csv(tmp_path / "labels.csv", rows))


def test_the_page_is_well_formed_loads_nothing_and_escapes_everything(cohort, tmp_path):
    page = (cohort.save(tmp_path / "cohort") / "check.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert "script" not in reader.tags and EVIL in "".join(reader.text)
    assert reader.addresses and all(address.startswith("data:image/png;base64,") for address in reader.addresses)
    assert not re.search(r"@import|url\(", page)
    text = " ".join("".join(reader.text).split())
    for said in (
        "11 cases from 11 scans of 11 patients; 1 left out",
        "NoLabel",
        "Research use only",
        "Drawn by patient",
    ):
        assert said in text, said


def test_jupyter_shows_the_table_and_the_warnings(cohort):
    shown = cohort._repr_html_()
    reader = Reader()
    reader.feed(shown)
    assert reader.open == [] and "script" not in reader.tags
    assert cohort.warnings and all(line in "".join(reader.text) for line in cohort.warnings)
    assert cohort.table["case_id"][0] in shown


def test_a_loaded_cohort_can_be_shown_and_saved_elsewhere(cohort, tmp_path):
    loaded = Cohort.load(cohort.save(tmp_path / "cohort"))
    assert loaded._repr_html_() == cohort._repr_html_()
    page = (loaded.save(tmp_path / "other") / "check.html").read_text(encoding="utf-8")
    assert page == (tmp_path / "cohort" / "check.html").read_text(encoding="utf-8")


def test_scans_with_burned_in_text_are_not_shown(archive, tmp_path):
    root = archive(4, 1, BurnedInAnnotation="YES")
    cohort = Cohort.from_archive(root)
    assert cohort._thumbnails == {}
    assert "4 scans have the issue BurnedInAnnotation" in cohort.warnings


def test_an_archive_without_labels(archive, tmp_path):
    cohort = Cohort.from_archive(archive(4, 2))
    assert cohort.classes == [] and set(cohort.table["split"]) == {""}
    page = " ".join((cohort.save(tmp_path / "cohort") / "check.html").read_text(encoding="utf-8").split())
    assert "(none)" in page and "8 cases from 8 scans of 4 patients" in page
    assert repr(Cohort.load(tmp_path / "cohort")) == "Cohort(8 cases of 4 patients)"
