"""Training in two processes against one: the same epochs, the same adapter; and every way in which one of them ends."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch trains in one process only"),
]
# 28 training cases in batches of 9: the last batch has one, and so nothing for the second process.
SETTINGS = ["--set", "data.image_size=64", "--batch-size", "9", "--epochs", "3", "--lr", "1e-4", "--no-timing"]


def words(whole, run, *more):
    return [sys.executable, "-m", "medlora", "train", str(whole.cohort), "-o", str(run), *SETTINGS, *more]


def done(whole, run, *more, start=()):
    ended = subprocess.run(
        [*start, *words(whole, run, *more)], check=False, capture_output=True, text=True, timeout=900
    )
    assert ended.returncode == 0, ended.stderr
    return ended


def same(one, two, tolerance=5e-5):
    """Root mean square, half of one of the dozen steps: AdamW divides by a gradient's size, so values whose gradient
    is all rounding go astray, the more the earlier their layer.

    That nothing but rounding differs is shown in double precision by tests/training/test_processes.py.
    """
    a, b = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (one, two))
    assert a.keys() == b.keys()
    for key in a:
        assert float((a[key] - b[key]).square().mean().sqrt()) <= tolerance, key
    first, second = (pd.read_csv(run / "metrics.csv").drop(columns="seconds") for run in (one, two))
    pd.testing.assert_frame_equal(first, second, rtol=1e-3)
    first, second = (pd.read_csv(run / "predictions" / "tune.csv") for run in (one, two))
    pd.testing.assert_frame_equal(first, second, atol=1e-3)


def processes_of(run):
    """Command lines of running processes that name ``run``."""
    listed = subprocess.run(["ps", "-eo", "args"], check=False, capture_output=True, text=True).stdout.splitlines()
    return [line for line in listed if str(run) in line]


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("--last", "1/3"),
        ("--method", "full", "--lr", "1e-5", "--set", "train.accumulate=2", "--set", "train.class_weights=sampler"),
    ],
    ids=["whole network", "frozen prefix kept", "full, accumulated, sampler"],
)
def test_two_processes_give_the_adapter_of_one(whole, tmp_path, more):
    done(whole, tmp_path / "one", *more)
    two = done(whole, tmp_path / "two", *more, "--devices", "2")
    same(tmp_path / "one", tmp_path / "two")
    assert two.stderr.count("epoch 1 of 3") == two.stdout.count("Kept: epoch") == 1
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(
        path.name for path in (tmp_path / "two").iterdir()
    )


def test_torchrun_starts_them_too(whole, tmp_path):
    done(whole, tmp_path / "one", "--devices", "2")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1",
                "--master-port", "29541", "--no-python"]  # fmt: skip
    two = done(whole, tmp_path / "two", "--devices", "2", start=launcher)
    same(tmp_path / "one", tmp_path / "two", tolerance=0.0)
    assert two.stderr.count("epoch 1 of 3") == two.stdout.count("Kept: epoch") == 1


def started(whole, run, epochs, *more):
    """A training in two processes that has finished so many epochs, and its helper's process number."""
    process = subprocess.Popen(
        words(whole, run, "--devices", "2", *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    while process.poll() is None:
        if (run / "metrics.csv").is_file() and len((run / "metrics.csv").read_text().splitlines()) > epochs:
            break
        time.sleep(0.02)
    listed = subprocess.run(
        ["ps", "-eo", "pid,ppid,args"], check=False, capture_output=True, text=True
    ).stdout.splitlines()
    rows = [line.split(None, 2) for line in listed[1:]]
    return process, [int(pid) for pid, parent, args in rows if int(parent) == process.pid and "helping" in args]


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_killed_and_resumed_is_the_uninterrupted_run(whole, tmp_path):
    done(whole, tmp_path / "once", "--devices", "2", "--epochs", "40")
    process, _ = started(whole, tmp_path / "killed", 2, "--epochs", "40")
    process.kill()
    process.wait()
    time.sleep(2)
    assert processes_of(tmp_path / "killed") == []
    resumed = done(whole, tmp_path / "killed", "--devices", "2", "--epochs", "40", "--resume")
    assert "resuming after epoch" in resumed.stderr
    same(tmp_path / "once", tmp_path / "killed", tolerance=0.0)


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_helper_that_dies_ends_the_run_with_its_name(whole, tmp_path):
    process, helpers = started(whole, tmp_path / "run", 1, "--epochs", "200")
    (helper,) = helpers
    os.kill(helper, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert "process 2 of 2 ended unexpectedly (killed by signal 9)" in err
    assert "Traceback" not in err
    assert (tmp_path / "run" / "STATUS").read_text().startswith("failed: process 2 of 2")
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").is_file()


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_ctrl_c_ends_all_with_one_message(whole, tmp_path):
    process, helpers = started(whole, tmp_path / "run", 1, "--epochs", "200")
    assert len(helpers) == 1
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all of them
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.count("interrupted;") == 1
    assert "Traceback" not in err
    assert processes_of(tmp_path / "run") == []
    assert (tmp_path / "run" / "STATUS").read_text() == "interrupted\n"


def test_a_diverging_loss_ends_all_with_one_message(whole, tmp_path):
    run = tmp_path / "run"
    more = ["--devices", "2", "--lr", "1e30", "--set", "train.clip=0"]
    ended = subprocess.run(words(whole, run, *more), check=False, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("the loss became") == 1
    assert processes_of(run) == []


def test_more_processes_than_a_batch_has_cases_are_refused(whole, tmp_path, call):
    code, _, err = call(*words(whole, tmp_path / "run", "--devices", "10")[3:])
    assert code == 2
    assert "a batch of 9 cannot be shared by 10 processes" in err
