"""Each mistake of a user: one clear message, the right exit code, no traceback, nothing half-written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image


def refused(result, *said):
    """Exit code 2, and a message of one line with its fix, that says each of ``said``."""
    code, out, err = result
    assert code == 2, (code, out, err)
    assert "Traceback" not in err
    message = err[err.index("Error: ") :]
    assert message.count("\n") <= 2, message
    for word in said:
        assert word.lower() in message.lower(), f"{word!r} not in: {message}"


@pytest.fixture
def pictures(tmp_path):
    """Twelve PNG files and their labels: a small archive of exported images."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "archive"
    folder.mkdir()
    rows = []
    for index in range(12):
        Image.fromarray(rng.integers(0, 255, (48, 40), dtype=np.uint8)).save(folder / f"image{index:02d}.png")
        rows.append(
            {"file": f"image{index:02d}.png", "label": ("sick", "well")[index % 2], "patient_id": f"p{index:02d}"}
        )
    return folder, pd.DataFrame(rows)


def write(table, tmp_path):
    path = tmp_path / "labels.csv"
    table.to_csv(path, index=False)
    return path


def test_empty_folder(call, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(call("check", tmp_path / "empty", "-o", tmp_path / "c"), "empty")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("words", [("", "--labels", "l.csv"), (".", "--labels", "")])
def test_an_empty_path_is_not_the_current_folder(call, tmp_path, words):
    refused(call("check", *words, "-o", tmp_path / "c"), "the path is empty")


def test_folder_without_any_image(call, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("nothing")
    refused(call("check", tmp_path / "a", "-o", tmp_path / "c"))
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.rename(columns={"file": "nothing", "patient_id": "nil"}), ["column"]),
        (lambda t: t.drop(columns="label"), ["label"]),
        (lambda t: pd.concat([t, t.iloc[[0]].assign(label="well")]), ["row"]),
        (lambda t: t.assign(label="sick"), ["same label"]),
        (lambda t: t.iloc[:2], ["patients"]),
    ],
    ids=["no key", "no label column", "conflicting rows", "one class", "too few patients"],
)
def test_labels_that_cannot_be_used(call, pictures, tmp_path, change, said):
    folder, table = pictures
    labels = write(change(table), tmp_path)
    refused(call("check", folder, "--labels", labels, "-o", tmp_path / "c"), *said)
    assert not (tmp_path / "c").exists()


def test_two_labels_for_a_patient_where_the_patient_is_the_key(call, pictures, tmp_path):
    folder, table = pictures
    table["patient_id"] = "p1"
    refused(call("check", folder, "--labels", write(table, tmp_path), "--key", "patient", "-o", tmp_path / "c"))


def test_labels_column_that_does_not_exist(call, pictures, tmp_path):
    folder, table = pictures
    labels = write(table, tmp_path)
    refused(call("check", folder, "--labels", labels, "--label-column", "Label2", "-o", tmp_path / "c"), "Label2")
    refused(call("check", folder, "--labels", tmp_path / "nil.csv", "-o", tmp_path / "c"), "nil.csv")


def test_truncated_dicom_among_good_ones_is_left_out_by_name(call, whole, tmp_path):
    archive = tmp_path / "archive"
    shutil.copytree(whole.archive, archive)
    victim = sorted(archive.rglob("*.dcm"))[0]
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    code, _, err = call("check", archive, "--labels", whole.labels, "-o", tmp_path / "c")
    assert code == 0, err
    excluded = pd.read_csv(tmp_path / "c" / "excluded.csv")
    assert excluded["code"].isin(["TruncatedPixelData", "DamagedPixelData"]).sum() == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or not Path("/proc/self").exists(), reason="needs a POSIX system")
def test_output_that_cannot_be_written(call, pictures, whole, tmp_path):
    folder, table = pictures
    labels = write(table, tmp_path)
    refused(call("check", folder, "--labels", labels, "-o", "/proc/cohort"), "/proc/cohort")
    refused(call("train", whole.cohort, "-o", "/proc/run"), "/proc/run")
    refused(call("predict", whole.run, whole.archive, "-o", "/proc/p.csv"), "/proc/p.csv")
    (tmp_path / "file").write_text("")
    refused(call("check", folder, "--labels", labels, "-o", tmp_path / "file" / "cohort"), "file")
    if os.geteuid() != 0:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        refused(call("check", folder, "--labels", labels, "-o", locked / "cohort"), "permission")


def test_full_disk(whole, tmp_path):
    """A limit on the size of files stands for a full disk: the run ends with one message and is not taken for whole."""
    resource = pytest.importorskip("resource")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    command = [sys.executable, "-c", "from medlora.cli import main; main()", "train", str(whole.cohort),
               "-o", str(tmp_path / "run"), "--epochs", "1", "--set", "data.image_size=64"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "Error: cannot write" in done.stderr
    status = tmp_path / "run" / "STATUS"
    assert not status.exists() or status.read_text().startswith("failed")


def test_things_that_are_not_what_they_are_taken_for(call, whole, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("")
    refused(call("train", other, "-o", tmp_path / "r"), "cohort")
    refused(call("evaluate", other), "no run")
    refused(call("predict", other, whole.archive, "-o", tmp_path / "p.csv"), "no adapter")
    refused(call("predict", whole.run, tmp_path / "nowhere", "-o", tmp_path / "p.csv"), "nowhere")
    refused(call("evaluate", whole.run, "--split", "holdout", "--overwrite"), "holdout")
    refused(call("evaluate", tmp_path / "nil.csv", "-o", tmp_path / "e"), "nil.csv")


@pytest.mark.parametrize("damage", ["cut tensors", "no json", "bad json", "other bytes", "strange operating point"])
def test_damaged_adapter(call, whole, tmp_path, damage):
    adapter = tmp_path / "adapter"
    shutil.copytree(whole.run / "adapter", adapter)
    tensors, info = adapter / "adapter_model.safetensors", adapter / "medlora.json"
    if damage == "cut tensors":
        tensors.write_bytes(tensors.read_bytes()[:-100])
    elif damage == "other bytes":
        tensors.write_bytes(tensors.read_bytes()[:-4] + b"\x00\x00\x00\x40")
    elif damage == "no json":
        info.unlink()
    elif damage == "bad json":
        info.write_text(info.read_text()[:200])
    else:
        values = json.loads(info.read_text())
        values["task"]["operating_point"] = {"threshold": "high"}
        info.write_text(json.dumps(values))
    refused(call("predict", adapter, whole.archive, "-o", tmp_path / "p.csv"))
    assert not (tmp_path / "p.csv").exists()


def test_damaged_cohort(call, whole, tmp_path):
    cohort = tmp_path / "cohort"
    shutil.copytree(whole.cohort, cohort)
    table = cohort / "cohort.csv"
    table.write_text(table.read_text()[:-300])
    refused(call("train", cohort, "-o", tmp_path / "run"), "cohort")
    assert not (tmp_path / "run").exists()


def test_archive_that_moved_away(call, whole, tmp_path):
    cohort = tmp_path / "cohort"
    shutil.copytree(whole.cohort, cohort)
    whole.archive.rename(whole.archive.with_name("away"))
    try:
        refused(call("train", cohort, "-o", tmp_path / "run", "--epochs", 1), "archive")
    finally:
        whole.archive.with_name("away").rename(whole.archive)
    assert (tmp_path / "run" / "STATUS").read_text().startswith("failed")
    refused(call("evaluate", tmp_path / "run"), "did not end well")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rank", "0"], ["adapter.rank"]),
        (["--set", "train.epoch=3"], ["train.epochs"]),
        (["--set", "train.epochs"], ["block.key=value"]),
        (["--targets", "atention"], ["atention", "attention"]),
        (["--targets", "mlp"], ["mlp"]),
        (["--classes", "sick,healthy"], ["sick"]),
        (["--backbone", "resnet81"], ["resnet"]),
        (["--device", "tpu"], ["tpu"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
        (["--method", "lore"], ["lore"]),
    ],
)
def test_bad_options_of_train(call, whole, tmp_path, words, said):
    refused(call("train", whole.cohort, "-o", tmp_path / "run", "--set", "data.image_size=64", *words), *said)
    status = tmp_path / "run" / "STATUS"
    assert not status.exists() or status.read_text().startswith("failed")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_request_that_fails_before_the_training_leaves_nothing_in_the_way(call, whole, tmp_path):
    code, _, err = call("train", whole.cohort, "-o", tmp_path / "run", "--backbone", "resnet81")
    assert code == 2 and "resnet" in err
    assert not (tmp_path / "run").exists()


def test_the_cohort_of_other_labels_is_not_replaced_unasked(call, whole, tmp_path):
    labels = tmp_path / "labels.csv"
    shutil.copy(whole.labels, labels)
    words = ["check", whole.archive, "--labels", labels, "-o", tmp_path / "cohort"]
    assert call(*words)[0] == 0
    labels.write_text(labels.read_text().rstrip().rpartition("\n")[0] + "\n")  # corrected: the cohort is updated
    assert call(*words)[0] == 0
    before = (tmp_path / "cohort" / "cohort.csv").read_bytes()
    shutil.copy(labels, tmp_path / "others.csv")
    code, _, err = call("check", whole.archive, "--labels", tmp_path / "others.csv", "-o", tmp_path / "cohort")
    assert code == 2 and "other labels" in err and "--overwrite" in err
    assert (tmp_path / "cohort" / "cohort.csv").read_bytes() == before
    code, _, err = call("check", whole.archive, "-o", tmp_path / "cohort")
    assert code == 2 and "other labels" in err
    assert call(*words[:2], "--labels", tmp_path / "others.csv", "-o", tmp_path / "cohort", "--overwrite")[0] == 0


def test_ctrl_c(whole, tmp_path, call):
    """Exit code 130 and one line; the run says that it was interrupted, and later verbs do not take it for whole."""
    command = [sys.executable, "-c", "from medlora.cli import main; main()", "train", str(whole.cohort),
               "-o", str(tmp_path / "run"), "--epochs", "500", "--set", "data.image_size=64"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while not (tmp_path / "run" / "metrics.csv").exists() and time.monotonic() < until:
            assert process.poll() is None, process.communicate()
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert (tmp_path / "run" / "STATUS").read_text() == "interrupted\n"
    assert not (tmp_path / "run" / "cache").exists()
    refused(call("evaluate", tmp_path / "run"), "interrupted")
    refused(call("predict", tmp_path / "run", whole.archive, "-o", tmp_path / "p.csv"), "interrupted")


def test_unexpected_error_keeps_its_traceback_in_a_log(call, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("medlora.training.Predictor.load", lambda *_: 1 / 0)
    code, _, err = call("predict", whole.run, whole.archive, "-o", tmp_path / "p.csv")
    assert code == 1
    assert "Traceback" not in err
    log = err.split("its log lies at ")[1].split("\n")[0]
    assert "ZeroDivisionError" in Path(log).read_text(encoding="utf-8")
    Path(log).unlink()
    with pytest.raises(ZeroDivisionError):
        call("predict", whole.run, whole.archive, "-o", tmp_path / "p.csv", "--debug")


def test_error_as_json_is_one_object(answer, tmp_path):
    code, said = answer("train", tmp_path / "nowhere", "-o", tmp_path / "run")
    assert code == said["exit_code"] == 2
    assert said["error"]
    assert said["fix"]
