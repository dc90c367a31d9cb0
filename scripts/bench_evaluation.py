"""Speed of the evaluation: python scripts/bench_evaluation.py

1. Two models on 100,000 cases: areas, covariance, test. Beside medlora whatever of MLstatkit, pauc, confidenceinterval
   and torchmetrics is installed (``pip install`` them in an environment of their own: they are no dependencies), and
   scikit-learn's area alone, which has neither covariance nor test.
2. A predictions CSV of 1,000 cases to the full report, in a fresh interpreter, imports included.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

REPORT = (
    "import sys; from medlora.evaluation import evaluate; result = evaluate(sys.argv[1]);"
    "result.write(sys.argv[2]); print(result)"
)


def best(work: Callable[[], Any], repeats: int = 5) -> float:
    """Seconds of the fastest of several runs, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def contestants(y: np.ndarray, a: np.ndarray, b: np.ndarray) -> dict[str, Callable[[], Any]]:
    """What can be timed here."""
    from sklearn.metrics import roc_auc_score

    from medlora.evaluation import delong_test

    found: dict[str, Callable[[], Any]] = {
        "medlora: areas, covariance, test": lambda: delong_test(y, a, b),
        "scikit-learn: two areas only": lambda: (roc_auc_score(y, a), roc_auc_score(y, b)),
    }
    try:
        from MLstatkit import Delong_test

        found["MLstatkit: areas, test"] = lambda: Delong_test(y, a, b)
    except ImportError:
        pass
    try:
        import pauc  # type: ignore[import-not-found]

        found["pauc: areas, test"] = lambda: pauc.compare(pauc.ROC(y, a), pauc.ROC(y, b))
    except ImportError:
        pass
    try:
        from confidenceinterval import roc_auc_score as with_interval  # type: ignore[import-not-found]

        found["confidenceinterval: two areas, no test"] = lambda: (with_interval(y, a), with_interval(y, b))
    except ImportError:
        pass
    return found


def report_seconds(cases: int) -> float:
    """Wall time of a fresh interpreter from CSV to report."""
    rng = np.random.default_rng(0)
    y = rng.random(cases) < 0.3
    p = 1 / (1 + np.exp(1.2 - 1.6 * y - rng.normal(size=cases)))
    who, sex, site = (
        rng.integers(0, cases // 2, cases),
        rng.choice(["F", "M"], cases),
        rng.choice(["a", "b", "c"], cases),
    )
    with tempfile.TemporaryDirectory() as folder:
        csv = Path(folder) / "predictions.csv"
        lines = [
            f"{i},{w},{'ill' if t else 'well'},{1 - q:.6f},{q:.6f},{x},{s}"
            for i, (w, t, q, x, s) in enumerate(zip(who, y, p, sex, site, strict=True))
        ]
        csv.write_text("case_id,patient,y,p_well,p_ill,sex,site\n" + "\n".join(lines) + "\n", encoding="utf-8")
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", REPORT, str(csv), str(Path(folder) / "out")], check=True, stdout=subprocess.DEVNULL
        )
        return time.perf_counter() - start


def main() -> None:
    """Run both and print."""
    rng = np.random.default_rng(0)
    y = (rng.random(100_000) < 0.3).astype(int)
    a, b = rng.normal(size=100_000) + y, rng.normal(size=100_000) + 0.8 * y
    for name, work in contestants(y, a, b).items():
        print(f"{name:42} {best(work):7.3f} s for n = 100,000")
    print(f"{'1,000 cases, CSV to report, with imports':42} {report_seconds(1000):7.3f} s")


if __name__ == "__main__":
    main()
