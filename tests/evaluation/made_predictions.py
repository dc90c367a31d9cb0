"""Predictions made up for the tests."""

from __future__ import annotations

import numpy as np
import pandas as pd


def binary(n: int, patients: int = 150, seed: int = 0) -> pd.DataFrame:
    """Two classes; scores run in patients."""
    rng = np.random.default_rng(seed)
    who = rng.permutation(n) if patients == n else rng.integers(0, patients, n)
    y = rng.random(n) < 0.35
    p = 1 / (1 + np.exp(1.2 - 1.6 * y - 0.7 * rng.normal(size=patients)[who] - rng.normal(size=n)))
    return pd.DataFrame({
        "case_id": [f"{i:016x}" for i in range(n)], "patient": [f"p{k}" for k in who],
        "y": np.where(y, "opacity", "normal"), "p_normal": 1 - p, "p_opacity": p,
    })  # fmt: skip


def multiclass(n: int, seed: int = 1) -> pd.DataFrame:
    """Three classes."""
    rng = np.random.default_rng(seed)
    names = ["normal", "pneumonia", "COVID-19"]
    y = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    logits = rng.normal(size=(n, 3)) + 1.8 * np.eye(3)[y]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    columns = {f"p_{c}": p[:, j] for j, c in enumerate(names)}
    patient = rng.integers(0, n, n).astype(str)
    return pd.DataFrame({"case_id": np.arange(n).astype(str), "patient": patient, "y": np.array(names)[y], **columns})


def multilabel(n: int, seed: int = 2) -> pd.DataFrame:
    """Two findings that occur together, one in ten labels unknown."""
    rng = np.random.default_rng(seed)
    columns: dict[str, object] = {"case_id": np.arange(n).astype(str)}
    for name in ("nodule", "effusion"):
        y = rng.random(n) < 0.3
        columns[f"y_{name}"] = np.where(rng.random(n) < 0.1, "", y.astype(int).astype(str))
        columns[f"p_{name}"] = 1 / (1 + np.exp(1 - 1.5 * y - rng.normal(size=n)))
    return pd.DataFrame(columns)
