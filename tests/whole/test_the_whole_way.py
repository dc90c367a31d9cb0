"""check, train, evaluate, predict on phantoms with planted identifiers: what they leave, and that it agrees."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pydicom
import pytest
from planting import SECRETS
from sklearn.metrics import roc_auc_score

import medlora
from medlora import backbones


def test_folders_are_as_the_design_says(whole):
    assert {path.name for path in whole.cohort.iterdir()} >= {"cohort.csv", "excluded.csv", "check.html", "cohort.json"}
    expected = {"config.yaml", "environment.json", "log.txt", "cohort.csv", "metrics.csv", "adapter", "predictions"}
    assert {path.name for path in whole.run.iterdir()} >= expected | {"evaluation", "STATUS"}
    assert not (whole.run / "cache").exists()
    assert {path.name for path in (whole.run / "adapter").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "medlora.json", "README.md"}  # fmt: skip
    assert (whole.run / "STATUS").read_text() == "done\n"


def test_no_patient_is_in_two_splits(whole):
    table = pd.read_csv(whole.run / "cohort.csv")
    assert table.groupby("patient")["split"].nunique().max() == 1
    assert set(table["split"]) == {"train", "tune", "test"}


def test_metrics_agree_with_scikit_learn(whole):
    predictions = pd.read_csv(whole.run / "predictions" / "test.csv")
    metrics = json.loads((whole.run / "evaluation" / "test" / "metrics.json").read_text())["metrics"]
    columns = [name for name in predictions if name.startswith("p_")]
    positive = columns[-1].removeprefix("p_")
    auc = next(row for row in metrics if row["metric"] == "auc")
    assert auc["class"] == positive
    assert auc["value"] == pytest.approx(
        roc_auc_score(predictions["y"] == positive, predictions[columns[-1]]), abs=1e-12
    )
    assert auc["low"] <= auc["value"] <= auc["high"]
    np.testing.assert_allclose(predictions[columns].sum(axis=1), 1, atol=1e-12)
    for name, of in (("sensitivity", positive), ("specificity", None)):
        row = next(m for m in metrics if m["metric"] == name)
        cases = predictions[predictions["y"] == of] if of else predictions[predictions["y"] != positive]
        right = (cases["predicted"] == positive).mean() if of else (cases["predicted"] != positive).mean()
        assert row["value"] == pytest.approx(right)
        assert row["method"]


def test_predict_from_a_moved_adapter_equals_evaluate(whole, tmp_path, call):
    """The adapter's folder alone, in another place, gives the probabilities that evaluate gave."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(whole.run / "adapter", moved)
    code, _, err = call("predict", moved, whole.archive, "-o", tmp_path / "p.csv")
    assert code == 0, err
    predicted = pd.read_csv(tmp_path / "p.csv").set_index("scan_id")
    judged = pd.read_csv(whole.run / "predictions" / "test.csv").set_index("scan_id")
    columns = [name for name in judged if name.startswith("p_")]
    assert np.abs(predicted.loc[judged.index, columns] - judged[columns]).to_numpy().max() <= 1e-6
    assert (predicted.loc[judged.index, "predicted"] == judged["predicted"]).all()


def test_the_python_calls_give_the_same(whole, tmp_path):
    cohort = medlora.Cohort.from_archive(whole.archive, labels=whole.labels)
    assert dict(zip(cohort.table["scan_id"], cohort.table["split"], strict=True)) == dict(
        pd.read_csv(whole.cohort / "cohort.csv")[["scan_id", "split"]].itertuples(index=False)
    )
    settings = {"data.image_size": 64, "train.epochs": 2, "train.batch_size": 8}
    run = medlora.train(cohort, tmp_path / "run", adapter=medlora.LoRA(rank=8, alpha=64), settings=settings)
    name = "adapter_model.safetensors"
    assert (run.adapter_path / name).read_bytes() == (whole.run / "adapter" / name).read_bytes()
    report = run.evaluate("test")
    assert "AUC" in str(report)
    answers = medlora.load(run.adapter_path).predict(whole.archive)
    assert answers.answered == len(cohort)


def test_no_identifier_outside_private(whole):
    """Searched in the bytes of every file that is left, in file names, and in all that was printed."""
    words = [part for value in SECRETS.values() for part in re.split(r"[\^ ]", value) if len(part) > 3]
    left = [path for name in ("cohort", "run", "predictions.csv") for path in _files(whole.folder / name)]
    private = [path for path in left if "private" in path.parts]
    assert private
    assert any(SECRETS["PatientID"].encode() in path.read_bytes() for path in private), "the test plants nothing"
    for path in set(left) - set(private):
        content = path.read_bytes().lower()
        for word in words:
            assert word.lower().encode() not in content, f"{word} in {path}"
            assert word.lower() not in path.name.lower()
    shown = whole.printed.lower().replace(str(whole.folder).lower(), "")
    assert not [word for word in words if word.lower() in shown]


def _files(path):
    return [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]


def test_linkage_is_written_only_when_asked(whole, tmp_path, call):
    code, _, _ = call("predict", whole.run, whole.archive, "-o", tmp_path / "p.csv", "--linkage", tmp_path / "l.csv")
    assert code == 0
    rows, linkage = pd.read_csv(tmp_path / "p.csv"), pd.read_csv(tmp_path / "l.csv")
    assert list(linkage["row"]) == list(range(2, len(rows) + 2))
    assert linkage["path"].str.contains("Kurokawa").all()


def test_report_loads_nothing_and_says_what_it_is(whole):
    text = (whole.run / "evaluation" / "test" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#)""", text)
    assert json.loads((whole.run / "adapter" / "medlora.json").read_text())["phantom"] is True
    assert text.lower().count("phantom") > 5, "figures of phantoms carry the word"
    assert "research use only" in text.lower()
    for word in ("linear probe", "Obuchowski", "confus", "adapter"):
        assert word.lower() in text.lower(), word


def test_evaluate_on_another_cohort(whole, tmp_path, answer):
    """The adapter alone on a cohort of another place; on its own cohort it says that it has seen the scans."""
    code, judged = answer("evaluate", whole.run / "adapter", "--cohort", whole.cohort, "-o", tmp_path / "other")
    assert code == 0
    assert judged["n"] == len(pd.read_csv(whole.cohort / "cohort.csv"))
    assert (tmp_path / "other" / "predictions.csv").is_file()
    code, _ = answer(
        "evaluate", whole.run / "probe", "--cohort", whole.cohort, "--split", "test", "-o", tmp_path / "probe"
    )
    assert code == 0
    code, judged = answer("evaluate", whole.run, "--cohort", whole.cohort, "-o", tmp_path / "own")
    assert code == 0
    assert "were used to train" in judged["notes"][0]
    assert "were used to train" in (tmp_path / "own" / "report.html").read_text(encoding="utf-8")


def test_a_scan_that_cannot_be_answered_is_a_row(whole, tmp_path, call):
    folder = tmp_path / "mixed"
    folder.mkdir()
    files = sorted(whole.archive.rglob("*.dcm"))
    shutil.copy(files[0], folder / "good.dcm")
    (folder / "cut.dcm").write_bytes(files[1].read_bytes()[:-2000])
    (folder / "notes.txt").write_text("no image")
    import nibabel

    nibabel.save(
        nibabel.Nifti1Image(np.arange(8 * 8 * 8, dtype=np.int16).reshape(8, 8, 8), np.eye(4)), folder / "v.nii.gz"
    )
    code, _, err = call("predict", whole.run, folder, "-o", tmp_path / "p.csv")
    assert code == 0, err
    rows = pd.read_csv(tmp_path / "p.csv", keep_default_na=False)
    assert len(rows) == 4
    assert (rows["reason"] == "").sum() == 1
    reasons = " ".join(rows["reason"])
    assert "Truncated" in reasons or "Damaged" in reasons
    assert "8 slices" in reasons
    assert "NotAnImage: The file holds no image" in reasons
    rows["y"] = ["opacity" if answer == "" else "" for answer in rows["reason"]]
    rows = pd.concat([rows, pd.read_csv(whole.run / "predictions" / "test.csv", keep_default_na=False)]).fillna("")
    rows.to_csv(tmp_path / "labelled.csv", index=False)
    code, out, err = call("evaluate", tmp_path / "labelled.csv", "-o", tmp_path / "judged")
    assert code == 0, err
    threshold = json.loads((whole.run / "adapter" / "medlora.json").read_text())["task"]["operating_point"]["value"]
    assert "3 of" in out and "rows have no answer but a reason why not" in out
    judged = json.loads((tmp_path / "judged" / "metrics.json").read_text())["metrics"]
    at = next(m["at"] for m in judged if m["metric"] == "sensitivity")
    asked = rows.loc[rows["predicted"] == "opacity", "p_opacity"].astype(float)
    assert asked.min() >= threshold and ("predicted" in at or threshold == 0.5)


def test_predict_picks_the_scan_of_a_study_as_the_training_did(whole, tmp_path, call):
    folder = tmp_path / "study"
    folder.mkdir()
    frontal = pydicom.dcmread(sorted(whole.archive.rglob("*.dcm"))[0])
    frontal.save_as(folder / "frontal.dcm")
    for n, view in enumerate(("LL", "AP"), 1):
        other = pydicom.dcmread(folder / "frontal.dcm")
        other.SeriesInstanceUID = f"{frontal.SeriesInstanceUID[:50]}.{n}"
        other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = f"{frontal.SOPInstanceUID[:50]}.{n}"
        other.ViewPosition = view
        other.save_as(folder / f"{view}.dcm")
    code, _, err = call("predict", whole.run, folder, "-o", tmp_path / "p.csv", "--linkage", tmp_path / "l.csv")
    assert code == 0, err
    rows = pd.read_csv(tmp_path / "p.csv", keep_default_na=False)
    files = pd.read_csv(tmp_path / "l.csv")["path"].str.extract(r"(\w+)\.dcm$")[0]
    reasons = dict(zip(files, rows["reason"], strict=True))
    assert reasons == {
        "frontal": "",
        "LL": "NotSelected: the view is LL, where view=frontal is asked for",
        "AP": "NotSelected: another scan of the study was preferred",
    }


def test_existing_results_are_not_overwritten_unasked(whole, call):
    for words in (["train", whole.cohort, "-o", whole.run], ["evaluate", whole.run]):
        code, _, err = call(*words)
        assert code == 2
        assert "--overwrite" in err
    assert call("evaluate", whole.run, "--overwrite")[0] == 0


@pytest.mark.parametrize("method", ["probe", "full", "ssf"])
def test_other_methods_train_too(whole, tmp_path, answer, method):
    code, done = answer("train", whole.cohort, "-o", tmp_path / "run", "--method", method, "--epochs", 1,
                        "--set", "data.image_size=64", "--set", "evaluation.probe=false")  # fmt: skip
    assert code == 0
    assert done["adapter_bytes"] > 1000
    assert answer("evaluate", tmp_path / "run")[0] == 0


def test_random_weights_are_asked_for_by_name_and_adapt_their_batchnorm(whole, tmp_path, answer):
    """Training really is in training mode: the statistics of BatchNorm move, and are saved with the adapter."""
    from safetensors.torch import load_file

    code, _ = answer("train", whole.cohort, "-o", tmp_path / "run", "--weights", "random", "--method", "full",
                     "--epochs", 1, "--set", "data.image_size=64")  # fmt: skip
    assert code == 0
    saved = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    means = [tensor for key, tensor in saved.items() if key.endswith("running_mean")]
    fresh = backbones.create(weights="random").model.state_dict()
    assert len(means) == sum(key.endswith("running_mean") for key in fresh) > 20
    assert all(tensor.abs().max() > 0 for tensor in means), "a fresh BatchNorm has means of zero"
    card = (tmp_path / "run" / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "random weights" in card
    assert answer("evaluate", tmp_path / "run")[0] == 0


def test_attention_is_adapted_in_a_transformer(whole, tmp_path, answer):
    """A backbone with attention, its weights from a file; the same file is needed again to predict."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "vit.safetensors")
    weights = ["--weights", tmp_path / "vit.safetensors"]
    code, _ = answer("train", whole.cohort, "-o", tmp_path / "run", "--backbone", "vit_tiny_patch16_224", *weights,
                     "--epochs", 1, "--set", "data.image_size=64")  # fmt: skip
    assert code == 0
    info = json.loads((tmp_path / "run" / "adapter" / "medlora.json").read_text())
    assert {target["role"].split(".")[0] for target in info["targets"]} == {"attention"}
    code, refused = answer("predict", tmp_path / "run" / "adapter", whole.archive, "-o", tmp_path / "p.csv")
    assert code == 2
    assert "--weights" in refused["fix"]
    code, _ = answer("predict", tmp_path / "run" / "adapter", whole.archive, "-o", tmp_path / "p.csv", *weights)
    assert code == 0
    torch.manual_seed(1)
    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "other.safetensors")
    code, refused = answer("predict", tmp_path / "run" / "adapter", whole.archive, "-o", tmp_path / "q.csv",
                           "--weights", tmp_path / "other.safetensors")  # fmt: skip
    assert code == 2
    assert not (tmp_path / "q.csv").exists()
