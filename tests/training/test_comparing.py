"""The arithmetic of a comparison against scikit-learn, and the written rule of its advice."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medlora.training.advice import Against, advice
from medlora.training.comparing import Row, weighted_auc


def test_weighted_auc_is_scikit_learns_with_repeated_cases():
    random = np.random.default_rng(0)
    y, score = random.random(80) < 0.4, np.round(random.random(80), 1)  # many ties
    weights = random.multinomial(80, np.full(80, 1 / 80), 20)
    found = weighted_auc(y, score, np.vstack([np.ones(80), weights]))
    assert found[0] == pytest.approx(roc_auc_score(y, score), abs=1e-12)
    for value, times in zip(found[1:], weights, strict=True):
        assert value == pytest.approx(roc_auc_score(np.repeat(y, times), np.repeat(score, times)), abs=1e-12)
    assert np.isnan(weighted_auc(y, score, y[None].astype(float))[0])


def rows(probe=None, full=None, ssf_full=None):
    against = {name: Against(*ends) for name, ends in (("probe", probe), ("full", full)) if ends}
    found = [Row("lora", 0.9, 0.8, 1.0, against, 1, 1, 1.0, 1.0), Row("full", 0.9, 0.8, 1.0, {}, 1, 1, 1.0, 1.0)]
    if ssf_full:
        found.append(Row("ssf", 0.9, 0.8, 1.0, {"full": Against(*ssf_full)}, 1, 1, 1.0, 1.0))
    return found


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (rows(probe=(0.0, -0.01, 0.019)), "Do not use LoRA here: the linear probe"),
        (rows(probe=(0.05, 0.03, 0.07), full=(-0.05, -0.08, -0.001)), "train the whole network"),
        (rows(probe=(0.01, -0.03, 0.07)), "Too few cases to tell LoRA from the linear probe"),
        (rows(full=(-0.05, -0.08, -0.001), ssf_full=(0.0, -0.019, 0.02)), "use ssf"),
        (rows(probe=(0.05, 0.03, 0.07), full=(0.0, -0.019, 0.02)), "Use LoRA"),
        (rows(probe=(0.05, 0.03, 0.07), full=(-0.01, -0.019, -0.001)), "though it is worse by less"),
        (rows(probe=(0.05, 0.03, 0.07), full=(0.0, -0.021, 0.02)), "Too few cases"),
    ],
)
def test_the_rule_at_its_edges(made, said):
    assert any(said in sentence for sentence in advice(made)), advice(made)


def test_no_advice_without_lora():
    assert advice([Row("full", 0.9, 0.8, 1.0, {}, 1, 1, 1.0, 1.0)]) == []
