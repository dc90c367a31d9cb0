"""``medlora train --search`` on scans: interrupted and gone on with, it is the search that was not."""

import json
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from safetensors.torch import load_file

pytest.importorskip("optuna")
pytestmark = pytest.mark.slow


def words(whole, run, *more):
    named = ["--search", "rank,lr", "--trials", "3", "--set", "data.image_size=64", "--epochs", "2", "--no-timing"]
    return [sys.executable, "-m", "medlora", "train", str(whole.cohort), "-o", str(run), *named, *more]


def done(whole, run, *more):
    ended = subprocess.run(words(whole, run, *more), check=False, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_search_finds_settings_and_survives_being_killed(whole, tmp_path):
    said = done(whole, tmp_path / "once").stderr
    assert said.count("trial 1 of 3: rank 8, lr 0.001") == said.count("best of 3 trials") == 1
    table = pd.read_csv(tmp_path / "once" / "search" / "trials.csv")
    best = table.loc[table["tune_auc"].idxmax()]
    info = json.loads((tmp_path / "once" / "adapter" / "medlora.json").read_text())
    assert info["training"]["search"] == {"varied": ["rank", "lr"], "trials": 3}
    assert info["training"]["settings"]["learning_rate"] == pytest.approx(best["lr"], rel=1e-12)
    trained = load_file(tmp_path / "once" / "adapter" / "adapter_model.safetensors")
    own = load_file(
        tmp_path / "once" / "search" / f"trial-{best['trial']:02d}" / "adapter" / "adapter_model.safetensors"
    )
    assert all((trained[key] == own[key]).all() for key in own)  # the best trial again, to the bit

    run = tmp_path / "killed"
    process = subprocess.Popen(words(whole, run), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (run / "search" / "trial-02" / "metrics.csv").is_file():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done(whole, run, "--resume")
    again = load_file(run / "adapter" / "adapter_model.safetensors")
    assert all((trained[key] == again[key]).all() for key in trained)
    pd.testing.assert_frame_equal(pd.read_csv(run / "search" / "trials.csv"), table)
