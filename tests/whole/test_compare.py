"""medlora compare on the small phantom cohort: the files it promises, and that it can be taken up again."""

import json
import re

import pandas as pd
import pytest


@pytest.mark.slow
def test_compare_leaves_table_and_page(whole, tmp_path, call):
    words = ["compare", whole.cohort, "-o", tmp_path / "c", "--methods", "lora,probe", "--seeds", "2", "--epochs", "1"]
    words += ["--set", "data.image_size=64"]
    code, out, err = call(*words, "--json")
    assert code == 0, err
    table = pd.read_csv(tmp_path / "c" / "compare.csv")
    cost = ["trainable", "bytes", "seconds_per_epoch", "peak_mb"]
    assert list(table) == ["method", "seed", "fold", "class", "auc", "low", "high", *cost]
    assert set(zip(table["method"], table["seed"], strict=True)) == {(m, s) for m in ("lora", "probe") for s in (0, 1)}
    probe = pd.read_csv(tmp_path / "c" / "runs" / "probe-seed1-fold0" / "predictions" / "test.csv")
    lora = pd.read_csv(tmp_path / "c" / "runs" / "lora-seed0-fold0" / "predictions" / "test.csv")
    assert list(probe["case_id"]) == list(lora["case_id"])
    page = (tmp_path / "c" / "compare.html").read_text(encoding="utf-8")
    assert "phantom" in page
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#)""", page)
    found = json.loads(out)
    assert found["advice"]
    before = (tmp_path / "c" / "compare.csv").read_bytes()
    code, _, err = call(*words)
    assert code == 2, "an earlier comparison is not overwritten unasked"
    assert "already exists" in err
    code, _, err = call(*words, "--resume")
    assert code == 0, err
    assert (tmp_path / "c" / "compare.csv").read_bytes() == before


def test_compare_refuses_what_makes_no_comparison(whole, tmp_path, call):
    for words, said in (
        (["--methods", "lora,lorra"], "lorra"),
        (["--methods", "lora"], "two methods"),
        (["--folds", "1"], "folds"),
    ):
        code, _, err = call("compare", whole.cohort, "-o", tmp_path / "c", *words)
        assert code == 2
        assert said in err
        assert not (tmp_path / "c").exists()
