"""`medlora evaluate` on anybody's predictions, as a user types it."""

from __future__ import annotations

import json

import pytest
from made_predictions import binary

from medlora.cli.main import run as medlora
from medlora.evaluation import delong_test, partial_auc


def test_options_reach_the_figures(tmp_path, capsys):
    frame = binary(200)
    frame.assign(sex=["F", "M"] * 100).to_csv(tmp_path / "a.csv", index=False)
    words = ["evaluate", str(tmp_path / "a.csv"), "-o", str(tmp_path / "e"), "--min-specificity", "0.8", "--json"]
    assert medlora([*words, "--subgroup", "sex", "--prevalence", "0.1", "--threshold", "0.4"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = {m["metric"]: m for m in told["metrics"]}
    expected = partial_auc(frame.y == "opacity", frame.p_opacity, frame.patient, min_specificity=0.8, standardised=True)
    assert found["partial_auc"]["value"] == pytest.approx(expected.value, abs=1e-12)
    hit, ill = frame.p_opacity >= 0.4, frame.y == "opacity"
    se, sp = (hit & ill).sum() / ill.sum(), (~hit & ~ill).sum() / (~ill).sum()
    assert found["sensitivity"]["value"] == pytest.approx(se)
    assert found["ppv_at_prevalence"]["value"] == pytest.approx(0.1 * se / (0.1 * se + 0.9 * (1 - sp)))
    assert set((tmp_path / "e/tables/subgroups.csv").read_text().splitlines()[1].split(",")) >= {"sex", "F"}


def test_several_with_a_margin(tmp_path, capsys):
    frame = binary(200)
    worse = frame.assign(p_opacity=frame.p_opacity.iloc[::-1].to_numpy())
    worse["p_normal"] = 1 - worse.p_opacity
    for name, table in (("a", frame), ("b", worse)):
        table.rename(columns={"y": "truth"}).to_csv(tmp_path / f"{name}.csv", index=False)
    files = [str(tmp_path / "b.csv"), str(tmp_path / "a.csv")]
    words = ["evaluate", *files, "-o", str(tmp_path / "c"), "--label-column", "truth", "--margin", "0.05", "--json"]
    assert medlora(words) == 0
    row = json.loads(capsys.readouterr().out)["differences"][0]
    test = delong_test(frame.y == "opacity", worse.p_opacity, frame.p_opacity, frame.patient, margin=0.05)
    assert row["p_noninferior"] == pytest.approx(test.p_noninferior)
    assert row["noninferior"] is False


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (lambda t: t[t.y == "opacity"], [], "one class only among"),
        (lambda t: t.assign(patient="x"), [], "of one patient"),
        (lambda t: t.head(1), [], "one class only among 1 labelled cases"),
        (lambda t: t, ["--split", "test"], "--split is for a run"),
        (lambda t: t, ["--margin", "0.1"], "--margin is for several"),
        (lambda t: t, ["--subgroup", "shoe"], "no column 'shoe'"),
    ],
)
def test_what_cannot_be_carried_out_ends_with_2(tmp_path, capsys, change, options, said):
    change(binary(60)).to_csv(tmp_path / "a.csv", index=False)
    assert medlora(["evaluate", str(tmp_path / "a.csv"), "-o", str(tmp_path / "e"), *options]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "e").exists()
