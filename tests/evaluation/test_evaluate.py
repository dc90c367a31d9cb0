"""The whole way from predictions to figures, against scikit-learn, statsmodels and counts by hand."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from made_predictions import binary, multiclass, multilabel
from test_reference import CANCER, VALUES

from medlora.errors import MedloraError
from medlora.evaluation import (
    OperatingPoint,
    apply_temperature,
    choose_threshold,
    compare,
    delong_test,
    evaluate,
    fit_temperature,
    net_benefit,
    paired_proportions,
    power_of_area,
    predictive_values,
    sample_size_for_margin,
    sample_size_for_width,
)
from medlora.evaluation.calibration import reliability
from medlora.evaluation.comparison import holm
from medlora.evaluation.subgroups import levels


def test_binary_against_scikit_learn():
    from sklearn import metrics

    frame = binary(300, patients=300)
    result = evaluate(frame, threshold=0.4)
    y, p = frame.y == "opacity", frame.p_opacity
    called = p >= 0.4
    expected = {
        "auc": metrics.roc_auc_score(y, p),
        "sensitivity": metrics.recall_score(y, called),
        "specificity": metrics.recall_score(~y, ~called),
        "ppv": metrics.precision_score(y, called),
        "npv": metrics.precision_score(~y, ~called),
        "accuracy": metrics.accuracy_score(y, called),
        "f1": metrics.f1_score(y, called),
        "brier": metrics.brier_score_loss(y, p),
    }
    ratios = metrics.class_likelihood_ratios(y, called)
    expected |= {"lr_positive": ratios[0], "lr_negative": ratios[1]}
    for name, value in expected.items():
        found = result.get(name)
        assert found.value == pytest.approx(value, abs=1e-12), name
        assert found.low < value < found.high
        assert (found.n_pos, found.n_neg) == (y.sum(), (~y).sum())
    assert result.get("sensitivity").at == "p_opacity ≥ 0.4 (given)"
    assert result.get("auc").at is None
    assert result.unit == "case, one per patient"
    assert "AUC of opacity 0." in str(result)
    assert "Research use only" in str(result)


def test_stands_alone():
    """No torch and no other room; what only the report or the calibration needs comes later."""
    code = (
        "import sys, medlora.evaluation;"
        "ours = {m.split('.')[1] for m in sys.modules if m.startswith('medlora.')};"
        "print(sorted(ours - {'evaluation', 'errors', 'files', 'progress', 'tables', 'encodings', '_version'}),"
        "sorted({'torch', 'monai', 'matplotlib', 'jinja2', 'statsmodels', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


def test_metrics_json_is_strict(tmp_path):
    frame = binary(40, patients=40)
    frame["p_opacity"] = np.where(frame.y == "opacity", 1.0, 0.0)
    frame["p_normal"] = 1 - frame.p_opacity
    evaluate(frame).write(tmp_path / "perfect")

    def refuse(word):
        raise AssertionError(word)

    data = json.loads((tmp_path / "perfect/metrics.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert data["n"] == 40
    keys = {"class", "metric", "value", "low", "high", "method", "n_pos", "n_neg", "at"}
    assert all(set(row) == keys for row in data["metrics"])
    slope = next(r for r in data["metrics"] if r["metric"] == "calibration_slope")
    assert slope["value"] is None
    assert "separate the classes" in slope["method"]
    with pytest.raises(MedloraError, match="already exists"):
        evaluate(frame).write(tmp_path / "perfect")
    evaluate(frame).write(tmp_path / "perfect", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["perfect"]


def test_multiclass_against_scikit_learn():
    from sklearn import metrics

    frame = multiclass(400)
    result = evaluate(frame)
    names = ["normal", "pneumonia", "COVID-19"]
    p, y = frame[[f"p_{c}" for c in names]].to_numpy(), frame.y.map(names.index).to_numpy()
    for j, name in enumerate(names):
        assert result.get("auc", name).value == pytest.approx(metrics.roc_auc_score(y == j, p[:, j]))
        assert result.get("sensitivity", name).value == pytest.approx(metrics.recall_score(y == j, p.argmax(1) == j))
    macro = metrics.roc_auc_score(y, p, multi_class="ovr", average="macro")
    micro = metrics.roc_auc_score(np.eye(3)[y], p, average="micro")
    assert result.get("auc", "macro").value == pytest.approx(macro)
    assert result.get("auc", "micro").value == pytest.approx(micro)
    assert result.get("accuracy", "all").value == pytest.approx((p.argmax(1) == y).mean())
    assert result.get("sensitivity").at == "highest probability (default)"
    with pytest.raises(MedloraError, match="does not say which class"):
        evaluate(frame, threshold=0.3)


def test_a_class_without_cases_is_said():
    frame = multiclass(300)
    result = evaluate(frame[frame.y != "COVID-19"])
    assert result.get("auc", "COVID-19").value is None
    assert "0 positive" in result.get("auc", "COVID-19").method
    assert any("No case of class COVID-19" in n for n in result.notes)


def test_multilabel_with_unknown_labels():
    from sklearn import metrics

    frame = multilabel(300)
    result = evaluate(frame)
    for name in ("nodule", "effusion"):
        known = frame[f"y_{name}"] != ""
        y = frame.loc[known, f"y_{name}"] == "1"
        found = result.get("auc", name)
        assert found.value == pytest.approx(metrics.roc_auc_score(y, frame.loc[known, f"p_{name}"]))
        assert found.n_pos + found.n_neg == known.sum()
    point = OperatingPoint({"nodule": 0.3, "effusion": 0.6}, "youden", chosen_on="tune")
    at = evaluate(frame, threshold=point)
    known = frame.y_nodule == "1"
    assert at.get("sensitivity", "nodule").value == pytest.approx((frame.p_nodule[known] >= 0.3).mean())
    assert at.get("sensitivity", "effusion").at == "p_effusion ≥ 0.6 (youden on tune)"


def test_operating_point_freezes_and_thaws():
    frame = multiclass(300)
    names = ("normal", "pneumonia", "COVID-19")
    p = frame[[f"p_{c}" for c in names]].to_numpy()
    point = choose_threshold(frame.y == "COVID-19", p[:, 2], "sensitivity>=0.95", positive="COVID-19", chosen_on="tune")
    again = OperatingPoint.from_dict(json.loads(json.dumps(point.to_dict())))
    assert again == point
    answer = again.predict(p, names)
    assert (answer[frame.y == "COVID-19"] == "COVID-19").mean() >= 0.95
    rest = answer != "COVID-19"
    assert (p[rest, 2] < point.value).all()
    assert (answer[rest] == np.array(names)[p[rest, :2].argmax(1)]).all()
    result = evaluate(frame, threshold=again)
    assert result.get("sensitivity", "COVID-19").value >= 0.95
    assert "sensitivity ≥ 0.95 on tune" in result.get("sensitivity", "COVID-19").at
    with pytest.raises(MedloraError, match="'COVID-19'"):
        again.predict(p[:, :2], names[:2])
    for wrong in ({"cut": 1}, {"value": "high"}, {"value": float("nan")}):
        with pytest.raises(MedloraError, match="not an operating point"):
            OperatingPoint.from_dict(wrong)


def test_the_answers_in_the_file_are_judged_and_others_are_said():
    frame = binary(100)
    frame["predicted"] = np.where(frame.p_opacity >= 0.3, "opacity", "normal")
    judged, hits = evaluate(frame), frame["predicted"] == "opacity"
    assert judged.get("sensitivity").value == pytest.approx(hits[frame.y == "opacity"].mean())
    assert judged.get("specificity").value == pytest.approx(1 - hits[frame.y == "normal"].mean())
    assert (
        judged.operating_point.value == frame.p_opacity[hits].min()
        and judged.notes == evaluate(frame, threshold=0.3).notes
    )
    between = ((frame.p_opacity >= 0.3) & (frame.p_opacity < 0.5)).sum()
    assert any(n.startswith(f"{between} of 100 answers") for n in evaluate(frame, threshold=0.5).notes)
    frame["predicted"] = np.where(frame.p_opacity >= 0.5, "opacity", "normal")
    assert evaluate(frame).operating_point.rule == "default"
    frame.loc[frame.p_opacity.idxmax(), "predicted"] = "normal"  # now no threshold gives these answers
    assert any(n.startswith("1 of 100 answers") for n in evaluate(frame).notes)


def test_thresholds_of_findings_are_those_of_the_answers_in_the_file():
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {f"p_{c}": random.random(60) for c in "ab"} | {f"y_{c}": random.integers(0, 2, 60) for c in "ab"}
    )
    said = {"a": frame.p_a >= 0.2, "b": frame.p_b >= 0.7}
    frame["predicted"] = ["|".join(c for c in "ab" if said[c][i]) or "none" for i in range(60)]
    judged = evaluate(frame)
    for c in "ab":
        assert judged.operating_point.value[c] == frame[f"p_{c}"][said[c]].min()
        assert judged.get("sensitivity", c).value == pytest.approx(said[c][frame[f"y_{c}"] == 1].mean())


def test_rows_without_an_answer_but_with_a_reason_are_left_out_and_said(tmp_path):
    frame = binary(40).assign(reason="")
    judged = evaluate(frame)
    frame.loc[[3, 7], ["p_normal", "p_opacity"]] = np.nan
    frame.loc[[3, 7], "reason"] = "TruncatedPixelData: The file ends before its pixels do."
    frame.to_csv(tmp_path / "a.csv", index=False)
    for given in (frame, tmp_path / "a.csv"):
        part = evaluate(given)
        assert part.predictions.n == 38 and any(n.startswith("2 of 40 rows have no answer") for n in part.notes)
    assert part.get("auc").value == pytest.approx(evaluate(binary(40).drop(index=[3, 7])).get("auc").value)
    assert judged.predictions.n == 40
    frame.loc[3, "reason"] = ""
    with pytest.raises(MedloraError, match="1 of 39"):
        evaluate(frame)


def test_seeds_and_folds_are_not_patients(tmp_path):
    frame = binary(120, patients=60)
    runs = [frame.assign(seed=i, p_opacity=np.clip(frame.p_opacity + 0.02 * i, 0, 1)) for i in range(5)]
    five = pd.concat([r.assign(p_normal=1 - r.p_opacity) for r in runs])
    one, many = evaluate(frame).get("auc"), evaluate(five).get("auc")
    assert "5 trainings" in many.method
    assert many.value == pytest.approx(one.value, abs=0.01)
    # Five trainings of one cohort do not make it five times as large.
    assert (many.high - many.low) == pytest.approx(one.high - one.low, rel=0.15)
    assert evaluate(five).predictions.patient_count == evaluate(frame).predictions.patient_count
    assert evaluate(five).to_dict()["n"] == 120
    assert (many.n_pos, many.n_neg) == (one.n_pos, one.n_neg)
    assert any("5 trainings" in n for n in evaluate(five).notes)
    evaluate(five).write(tmp_path / "five")
    poor = frame.assign(fold=np.where(frame.y == "opacity", 0, np.arange(120) % 2))
    with pytest.raises(MedloraError, match=r"training 2 of 2 .* one class only"):
        evaluate(poor)


def test_predictive_values_at_a_stated_prevalence():
    """Bayes' rule by hand, and the interval on the logit scale (Mercaldo 2007, formulas 5 and 6)."""
    ppv, npv = predictive_values((90, 100), (160, 200), 0.05)
    assert ppv.value == pytest.approx(0.9 * 0.05 / (0.9 * 0.05 + 0.2 * 0.95))
    assert npv.value == pytest.approx(0.8 * 0.95 / (0.8 * 0.95 + 0.1 * 0.05))
    half = (np.log(ppv.high / (1 - ppv.high)) - np.log(ppv.low / (1 - ppv.low))) / 2
    assert half == pytest.approx(1.959963985 * np.sqrt(0.1 / 90 + 0.8 / (0.2 * 200)))
    result = evaluate(binary(200), prevalence=0.02)
    assert result.get("ppv_at_prevalence").value < result.get("ppv").value
    assert result.get("ppv_at_prevalence").at.endswith("prevalence 0.02")
    with pytest.raises(MedloraError, match="prevalence"):
        evaluate(binary(200), prevalence=5)


def test_net_benefit_against_the_reference():
    import statsmodels.api as sm
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer(as_frame=True)
    x = sm.add_constant(data.data[["mean texture", "mean smoothness"]].to_numpy())
    y, odd = data.target.to_numpy() == 0, np.arange(569) % 2 == 0
    p = sm.GLM(y[odd].astype(float), x[odd], family=sm.families.Binomial()).fit(tol=1e-12).predict(x[~odd])
    expected = CANCER["calibration"]["net_benefit"]
    model, everyone = net_benefit(p, y[~odd], [float(t) for t in expected])
    np.testing.assert_allclose(model, [v["model"] for v in expected.values()], atol=1e-6)
    np.testing.assert_allclose(everyone, [v["all"] for v in expected.values()], atol=1e-10)
    np.testing.assert_allclose(y[~odd].sum() / p.sum(), 1 / (1 / CANCER["calibration"]["oe"]), rtol=1e-6)


def test_temperature_is_found_again():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20000, 3)) * 2
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = (p.cumsum(1) > rng.random((20000, 1))).argmax(1)
    assert fit_temperature(logits * 3, y) == pytest.approx(3, rel=0.03)
    sharp = apply_temperature(logits, 1 / 3)
    assert fit_temperature(sharp, y) == pytest.approx(3, rel=0.03)
    np.testing.assert_allclose(apply_temperature(sharp, 3), p, atol=2e-3)
    two = 1 / (1 + np.exp(-logits[:, 0]))
    np.testing.assert_allclose(apply_temperature(two, 2), 1 / (1 + np.exp(-logits[:, 0] / 2)), atol=1e-7)
    with pytest.raises(MedloraError, match="one class only"):
        fit_temperature(two, np.ones(20000, dtype=int))
    with pytest.raises(MedloraError, match="NaN"):
        fit_temperature([0.5, np.nan], [0, 1])


def test_reliability_of_a_calibrated_model():
    rng = np.random.default_rng(1)
    p = rng.random(4000)
    y = rng.random(4000) < p
    curve = reliability(p, y)
    assert ((curve.low <= curve.x) & (curve.x <= curve.high)).mean() > 0.8
    assert ((curve.group_low <= curve.mean) & (curve.mean <= curve.group_high)).sum() >= 8
    assert len(curve.mean) == 10
    over = reliability(np.clip(0.5 + 1.5 * (p - 0.5), 0.001, 0.999), y)
    assert over.smooth[5] > over.x[5] + 0.05
    assert over.smooth[-5] < over.x[-5] - 0.05
    assert reliability(np.where(y, 0.9, 0.1), y).x is None


def test_non_inferiority_and_identical_models():
    frame = binary(300, patients=120)
    y, p = frame.y == "opacity", frame.p_opacity
    same = delong_test(y, p, p, frame.patient, margin=0.03)
    assert (same.value, same.low, same.high, same.p, same.statistic) == (0, 0, 0, 1, 0)
    assert same.noninferior is True
    worse = p + np.random.default_rng(0).normal(size=300)
    test = delong_test(y, worse, p, frame.patient, margin=0.03)
    assert test.noninferior is False
    assert test.p_noninferior > 0.5
    better = delong_test(y, p, worse, frame.patient, margin=0.03)
    assert better.value == pytest.approx(-test.value)
    assert better.noninferior is True
    # The one-sided test at 2.5 % and the lower end of the 95 % interval are one decision.
    edge = delong_test(y, worse, p, frame.patient, margin=-test.low)
    assert edge.p_noninferior == pytest.approx(0.025, abs=1e-9)
    with pytest.raises(MedloraError, match="margin"):
        delong_test(y, p, worse, margin=0)


def test_paired_proportions():
    """McNemar by scipy; the interval covers as it should, is antisymmetric, and shrinks with agreement."""
    from scipy.stats import binomtest

    a = np.repeat([1, 1, 0, 0], [20, 12, 2, 16])
    b = np.repeat([1, 0, 1, 0], [20, 12, 2, 16])
    found, turned = paired_proportions(a, b, np.ones(50)), paired_proportions(b, a, np.ones(50))
    assert found.p == pytest.approx(binomtest(2, 14).pvalue)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        table = rng.multinomial(50, [0.5, 0.2, 0.1, 0.2])
        a, b = np.repeat([1, 1, 0, 0], table), np.repeat([1, 0, 1, 0], table)
        found = paired_proportions(a, b, np.ones(50))
        covered += found.low <= 0.1 <= found.high
    assert 0.935 <= covered / 1000 <= 0.975
    same = paired_proportions(a, a, np.ones(50))
    assert (same.value, same.p) == (0.0, 1.0)
    # Fifty cases of ten patients that agree prove no more than ten that do.
    clustered = paired_proportions(a, a, np.ones(50), np.arange(50) // 5)
    assert clustered.low < same.low < 0 < same.high < clustered.high
    who = np.arange(50) // 2
    found = paired_proportions(a, b, np.ones(50), who)
    assert found.se == pytest.approx(np.sqrt(25 / 24 * ((np.bincount(who, a - b) - 2 * found.value) ** 2).sum()) / 50)


def test_holm_against_statsmodels():
    from statsmodels.stats.multitest import multipletests

    p = [0.01, 0.04, 0.03, 0.005, 0.5]
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])
    found = holm([0.02, np.nan, 0.03])
    np.testing.assert_allclose(found[[0, 2]], [0.04, 0.04])
    assert np.isnan(found[1])


def test_subgroups():
    frame = binary(600, patients=600).assign(
        sex=["F", "M"] * 300, age=["045Y", "067Y", "008M", "081Y"] * 150, site="one", kvp=np.linspace(80, 120, 600)
    )
    # In men the score is turned round: a difference that must be found.
    men = frame.sex == "M"
    frame.loc[men, ["p_normal", "p_opacity"]] = frame.loc[men, ["p_opacity", "p_normal"]].to_numpy()
    result = evaluate(frame)
    rows = {(g.column, g.level): g for g in result.subgroups}
    assert set(rows) >= {("sex", "F"), ("sex", "M"), ("age", "under 18"), ("age", "80 and over"), ("age", "40–59")}
    assert not any(column == "site" for column, _ in rows)  # one level only
    assert len([1 for column, _ in rows if column == "kvp"]) == 3
    women = frame[~men]
    alone = evaluate(women).get("auc")
    assert rows["sex", "F"].auc.value == pytest.approx(alone.value)
    assert rows["sex", "F"].auc.low == pytest.approx(alone.low)
    assert rows["sex", "F"].p < 1e-6
    assert rows["sex", "F"].p_holm >= rows["sex", "F"].p
    # Two levels: the unpaired test of DeLong, without Welch's t.
    from medlora.evaluation import delong_test_unpaired

    sides = [(frame.y[m] == "opacity", frame.p_opacity[m]) for m in (~men, men)]
    z = delong_test_unpaired(*sides[0], *sides[1]).statistic
    from scipy.stats import norm

    assert rows["sex", "F"].p == pytest.approx(2 * norm.sf(abs(z)), rel=1e-6)
    small = evaluate(frame.head(60), columns=["age"])
    assert all(g.auc.value is None and "fewer than 10" in g.auc.method for g in small.subgroups)
    with pytest.raises(MedloraError, match="no column 'race'"):
        evaluate(frame, columns=["race"])


def test_levels():
    assert list(levels(pd.Series(["", "a", None, "b"], name="kernel"))) == ["not recorded", "a", "not recorded", "b"]
    thick = levels(pd.Series(np.linspace(0.5, 5, 30).astype(str), name="SliceThickness"))
    assert len(set(thick)) == 3
    assert list(levels(pd.Series([1.0, 5.0, 1.0], name="SliceThickness"))) == ["1.0", "5.0", "1.0"]


def test_covariates_join_by_case():
    frame = binary(100)
    more = pd.DataFrame({"case_id": frame.case_id[::-1], "sex": ["F", "M"] * 50})
    result = evaluate(frame, covariates=more)
    assert {g.level for g in result.subgroups if g.column == "sex"} == {"F", "M"}
    expected = dict(zip(more.case_id, more.sex, strict=True))
    assert list(result.predictions.frame.sex) == [expected[c] for c in frame.case_id]
    with pytest.raises(MedloraError, match="1 of 100 cases have no row"):
        evaluate(frame, covariates=more.iloc[1:])


def test_compare_models(tmp_path):
    frame = binary(200, patients=80)
    rng = np.random.default_rng(0)
    noisy = np.clip(frame.p_opacity + 0.4 * rng.normal(size=200), 0, 1)
    other = frame.assign(p_opacity=noisy, p_normal=1 - noisy).sample(frac=1, random_state=1)
    paths = []
    for name, table in (("adapter", frame), ("probe", other)):
        (tmp_path / name).mkdir()
        table.to_csv(tmp_path / name / "test.csv", index=False)
        paths.append(tmp_path / name / "test.csv")
    result = compare(paths, margin=0.05)
    assert list(result.evaluations) == ["adapter/test", "probe/test"]
    row = next(r for r in result.differences if r["metric"] == "auc")
    test = delong_test(frame.y == "opacity", frame.p_opacity, noisy, frame.patient, margin=0.05)
    assert row["difference"] == pytest.approx(test.value)
    assert (row["low"], row["high"], row["p"]) == pytest.approx((test.low, test.high, test.p))
    assert row["noninferior"] is test.noninferior
    assert {r["metric"] for r in result.differences} == {"auc", "sensitivity", "specificity"}
    result.write(tmp_path / "compared", title="Adapter and probe")
    page = (tmp_path / "compared/comparison.html").read_text(encoding="utf-8")
    assert "Adapter and probe" in page
    json.loads((tmp_path / "compared/comparison.json").read_text(encoding="utf-8"))
    assert "adapter/test − probe/test" in str(result)
    assert "<table" in result._repr_html_()
    three = compare({"a": frame, "b": other, "c": frame.assign(p_opacity=0.5, p_normal=0.5)})
    p = [r["p"] for r in three.differences if r["metric"] == "auc"]
    np.testing.assert_allclose([r["p_holm"] for r in three.differences if r["metric"] == "auc"], holm(p))


def test_compare_refuses_other_cases(tmp_path):
    frame = binary(100)
    with pytest.raises(MedloraError, match="1 of 100 are missing, 0 are additional"):
        compare({"a": frame, "b": frame.iloc[1:]})
    turned = frame.assign(y=np.where(frame.y == "opacity", "normal", "opacity"))
    with pytest.raises(MedloraError, match="other labels"):
        compare({"a": frame, "b": turned})
    with pytest.raises(MedloraError, match="1 model to compare"):
        compare({"a": frame})
    with pytest.raises(MedloraError, match="b: 1 of 100"):
        compare({"a": frame, "b": frame.assign(p_opacity=[np.nan, *frame.p_opacity[1:]])})


def test_compare_repeated_trainings():
    """With one training each, the stacked covariance is the paired test."""
    frame = binary(200, patients=80)
    noisy = np.clip(frame.p_opacity + 0.2 * np.random.default_rng(0).normal(size=200), 0, 1)
    other = frame.assign(p_opacity=noisy, p_normal=1 - noisy)
    five = pd.concat([other.assign(seed=i) for i in range(5)])
    repeated = next(r for r in compare({"a": frame, "b": five}).differences if r["metric"] == "auc")
    plain = next(r for r in compare({"a": frame, "b": other}).differences if r["metric"] == "auc")
    assert "5 trainings" in repeated["method"]
    for key in ("difference", "low", "high", "p"):
        assert repeated[key] == pytest.approx(plain[key], rel=1e-9)


def test_power():
    assert power_of_area(0.73, 41, 72) == pytest.approx(VALUES["power"]["auc0.73_41_72"], abs=1e-10)
    m, n = sample_size_for_width(0.9, 0.1, ratio=2)
    assert n == 2 * m
    # Studies of that size, simulated: the area varies as planned.
    rng = np.random.default_rng(0)
    shift = 2**0.5 * 1.2815515655446004  # area 0.9
    areas = []
    for _ in range(1500):
        pos, neg = rng.normal(shift, 1, m), np.sort(rng.normal(0, 1, n))
        areas.append(np.searchsorted(neg, pos).mean() / n)
    assert np.mean(areas) == pytest.approx(0.9, abs=0.003)
    assert 2 * 1.96 * np.std(areas) == pytest.approx(0.1, rel=0.06)
    assert sample_size_for_margin(0.9, 0.05)[0] > sample_size_for_margin(0.9, 0.1)[0]
    doubled = sample_size_for_margin(0.9, 0.05, design_effect=2)[0]
    assert doubled == pytest.approx(2 * sample_size_for_margin(0.9, 0.05)[0], rel=0.02)
    with pytest.raises(MedloraError, match="margin"):
        sample_size_for_margin(0.9, 0.05, difference=-0.06)
