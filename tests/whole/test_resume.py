"""A training killed at any moment and taken up again gives the adapter of the uninterrupted one, bit for bit."""

import os
import signal
import subprocess
import sys
import time

import pytest

SETTINGS = [
    "--set",
    "data.image_size=64",
    "--batch-size",
    "8",
    "--no-timing",
    "--set",
    "adapter.dropout=0.1",
]


WAYS = {"whole network": ("--epochs", "4"), "frozen prefix kept": ("--epochs", "12", "--last", "1/3")}  # by their speed


def start(whole, run, *more):
    words = [sys.executable, "-m", "medlora", "train", str(whole.cohort), "-o", str(run), *SETTINGS, *more]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def trained(run):
    return (run / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("more", WAYS.values(), ids=WAYS)
def test_killed_and_resumed_is_the_uninterrupted_run(whole, tmp_path, more):
    once = start(whole, tmp_path / "once", *more)
    assert once.wait() == 0, once.stderr.read()
    run = tmp_path / "killed"
    for epochs, after in ((0, 0.3), (1, 0.0), (2, 0.4)):  # finished epochs, and seconds after them
        process = start(whole, run, "--resume", *more)
        while process.poll() is None and (not (run / "STATUS").is_file() if epochs == 0 else finished(run) < epochs):
            time.sleep(0.02)
        time.sleep(after)
        process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
        process.wait()
        assert (run / "STATUS").read_text() == "running\n"
    last = start(whole, run, "--resume", *more)
    _, err = last.communicate()
    assert last.returncode == 0, err
    assert "resuming after epoch" in err
    assert trained(run) == trained(tmp_path / "once")
    assert ("first that is trained" in err) == ("--last" in more)


def finished(run):
    try:
        return len((run / "metrics.csv").read_text().splitlines()) - 1
    except OSError:
        return 0


def test_resume_starts_afresh_refuses_other_settings_and_gives_back_what_is_done(whole, tmp_path, call):
    words = ["train", whole.cohort, "-o", tmp_path / "run", "--set", "data.image_size=64", "--no-timing", "--resume"]
    code, _, err = call(*words, "--epochs", "1")
    assert code == 0, err
    assert "nothing to resume" in err
    made = trained(tmp_path / "run")
    code, _, err = call(*words, "--epochs", "1")
    assert code == 0
    assert "done already" in err
    assert trained(tmp_path / "run") == made
    (tmp_path / "run" / "STATUS").write_text("interrupted\n")
    code, _, err = call(*words, "--epochs", "1", "--lr", "0.01")
    assert code == 2
    assert "other settings" in err
    code, _, err = call(*words, "--epochs", "1")
    assert code == 0, err
    assert trained(tmp_path / "run") == made
