"""The demo's story: another hospital's adapter, the probe and one's own adapter on the same scans."""

import json

import pandas as pd
import pytest

from medlora.cli import demo


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo, "_PATIENTS", 30)
    monkeypatch.setattr(demo, "_PATIENTS_ELSEWHERE", 20)
    monkeypatch.setattr(demo, "_EPOCHS", 1)


@pytest.mark.slow
def test_the_demo_judges_before_probe_and_after_on_the_same_scans(small, answer, tmp_path):
    folder = tmp_path / "demo"
    code, values = answer("demo", "-o", folder)
    assert code == 0
    models = {
        "before: the other hospital's adapter": folder / "before" / "predictions.csv",
        "your own linear probe": folder / "run" / "predictions" / "test.probe.csv",
        "after: your own adapter": folder / "run" / "predictions" / "test.csv",
    }
    cases = [set(pd.read_csv(path)["case_id"]) for path in models.values()]
    assert cases[0] == cases[1] == cases[2]
    assert set(values["auc"]) == set(models)
    metrics = json.loads((folder / "run" / "evaluation" / "test" / "metrics.json").read_text(encoding="utf-8"))
    after = next(row for row in metrics["metrics"] if row["metric"] == "auc")
    assert values["auc"]["after: your own adapter"]["value"] == pytest.approx(after["value"])
    assert "the other hospital" in (folder / "comparison" / "comparison.html").read_text(encoding="utf-8")
    labels = [pd.read_csv(folder / part / "labels.csv") for part in ("archive", "elsewhere/archive")]
    assert set(labels[0]["variant"].dropna()) == {"variant"}
    assert set(labels[1]["variant"].dropna()) == {"original"}
    assert not set(labels[0]["patient_id"]) & set(labels[1]["patient_id"])


@pytest.mark.parametrize(
    ("tty", "environment", "shown"),
    [
        (True, {"DISPLAY": ":0"}, True),
        (True, {"WAYLAND_DISPLAY": "wayland-0"}, True),
        (True, {}, False),
        (True, {"DISPLAY": ":10", "SSH_CONNECTION": "10.0.0.1"}, False),
        (False, {"DISPLAY": ":0"}, False),
    ],
)
def test_the_report_opens_only_where_a_person_sits_before_a_screen(monkeypatch, tty, environment, shown):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("sys.stdout.isatty", lambda: tty, raising=False)
    assert demo._has_display() is shown
