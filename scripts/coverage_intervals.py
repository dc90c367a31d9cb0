"""Coverage and width of nominal 95 % intervals, by simulation: python scripts/coverage_intervals.py [--studies 2000]

Binormal scores; patients, where there are several cases each, add a normal effect of their own. Each row simulates
studies, takes every interval from each, and prints coverage / mean width. "rule" is what medlora reports. At the end
stands, for each row, whether the rule covers 93.0 to 98.5 % and how its mean width compares with the narrowest
published method that covers at least 93 % in that row.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from medlora.evaluation import auc, auc_covariance, proportion
from medlora.evaluation.discrimination import auc_interval
from medlora.evaluation.estimate import Estimate, wilson
from medlora.evaluation.proportions import ratio_covariance

Study = tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.intp] | None]

# positives, negatives, true area: the rows of the study that the rule was built on, then others that try it.
INDEPENDENT = [
    (10, 40, 0.95), (20, 80, 0.95), (50, 50, 0.95), (100, 400, 0.95), (20, 80, 0.85), (10, 40, 0.99),
    (20, 80, 0.99), (50, 50, 0.99), (100, 400, 0.99), (10, 10, 0.85), (30, 30, 0.7), (1000, 1000, 0.99),
]  # fmt: skip
# patients, mean cases per patient, true area, whether disease runs in patients, standard deviation of their effect.
CLUSTERED = [
    (60, 3, 0.85, True, 1.0), (100, 8, 0.85, True, 1.0), (60, 3, 0.85, False, 1.0),
    (60, 3, 0.99, True, 1.0), (100, 8, 0.99, True, 1.0), (60, 3, 0.99, False, 1.0), (25, 3, 0.95, True, 1.0),
    (25, 3, 0.99, True, 1.0), (40, 6, 0.97, False, 1.0), (200, 2, 0.95, True, 1.0),
]  # fmt: skip
# the same, with the true sensitivity in place of the area.
SENSITIVITY = [(60, 3, 0.8, True, 1.0), (100, 8, 0.8, True, 1.0), (60, 3, 0.8, False, 1.0), (60, 3, 0.95, True, 1.0)]


def independent(rng: np.random.Generator, m: int, n: int, area: float) -> Study:
    """One study of independent cases."""
    y = np.repeat([True, False], [m, n])
    return y, rng.normal(size=m + n) + np.sqrt(2) * ndtri(area) * y, None


def clustered(rng: np.random.Generator, patients: int, cases: int, area: float, runs: bool, spread: float) -> Study:
    """One study of patients with 1 + Poisson(cases − 1) cases, 40 % of them positive."""
    while True:
        who = np.repeat(np.arange(patients), 1 + rng.poisson(cases - 1, patients))
        y = (rng.random(patients) < 0.4)[who] if runs else rng.random(len(who)) < 0.4
        if len(np.unique(who[y])) > 1 and len(np.unique(who[~y])) > 1:
            break
    effect = spread * rng.normal(size=patients)[who]
    shift = np.sqrt(2 * (1 + spread**2)) * ndtri(area)
    return y, effect + rng.normal(size=len(who)) + shift * y, who


def area_methods(y: NDArray[np.bool_], s: NDArray[np.float64], who: NDArray[np.intp] | None) -> dict[str, Estimate]:
    """Every interval of one study; a published method that gives none counts as the point itself."""
    m, n = int(y.sum()), int((~y).sum())
    (area,), ((naive,),) = auc_covariance(y, s)
    if who is None:
        published = {"DeLong": "wald", "logit-DeLong": "logit", "Newcombe 5": "newcombe"}
        return {"rule": auc(y, s)} | {k: auc_interval(area, naive, m, n, method=v) for k, v in published.items()}
    robust = float(auc_covariance(y, s, who)[1][0, 0])
    patients = len(np.unique(who[y])), len(np.unique(who[~y]))
    published = {"Obuchowski": "wald", "logit-Obuchowski": "logit", "Newcombe 5 at n_eff": "newcombe"}
    methods = {"rule": auc(y, s, who), "naive DeLong": auc_interval(area, naive, m, n, method="wald")}
    methods["naive logit"] = auc_interval(area, naive, m, n, method="logit")
    for name, method in published.items():
        methods[name] = auc_interval(area, robust, m, n, patients=patients, independent_variance=naive, method=method)
    return methods


def sensitivity_methods(y: NDArray[np.bool_], hit: NDArray[np.bool_], who: NDArray[np.intp]) -> dict[str, Estimate]:
    """Intervals of a sensitivity."""
    codes = np.unique(who[y], return_inverse=True)[1]
    x, n = hit[y].astype(float), int(y.sum())
    (p,), cov = ratio_covariance([(x, np.ones(n))], codes, codes.max() + 1)
    half = 1.959963984540054 * float(np.sqrt(cov[0, 0]))
    return {
        "rule": proportion(hit, y, who),
        "naive Wilson": Estimate(p, *wilson(x.sum(), n)),
        "ratio-Wald": Estimate(p, p - half, p + half),
    }


def simulate(draw: Callable[[], dict[str, Estimate]], truth: float, studies: int) -> dict[str, tuple[float, float]]:
    """Coverage and mean width of every method; widths are of the part between 0 and 1."""
    covered: dict[str, list[bool]] = {}
    width: dict[str, list[float]] = {}
    for _ in range(studies):
        for name, e in draw().items():
            low = e.low if e.low is not None else e.value
            high = e.high if e.high is not None else e.value
            assert low is not None and high is not None
            covered.setdefault(name, []).append(low <= truth <= high)
            width.setdefault(name, []).append(min(high, 1.0) - max(low, 0.0))
    return {name: (float(np.mean(covered[name])), float(np.mean(width[name]))) for name in covered}


def independent_study(rng: np.random.Generator, m: int, n: int, area: float) -> dict[str, Estimate]:
    """Intervals of an area, independent cases."""
    return area_methods(*independent(rng, m, n, area))


def clustered_study(rng: np.random.Generator, row: tuple[int, int, float, bool, float]) -> dict[str, Estimate]:
    """Intervals of an area, patients with several cases."""
    return area_methods(*clustered(rng, *row))


def sensitivity_study(rng: np.random.Generator, row: tuple[int, int, float, bool, float]) -> dict[str, Estimate]:
    """Intervals of a sensitivity: the scores of positives are normal with variance 1 + spread²."""
    patients, cases, truth, runs, spread = row
    y, s, who = clustered(rng, patients, cases, 0.5, runs, spread)
    assert who is not None
    return sensitivity_methods(y, s >= -np.sqrt(1 + spread**2) * ndtri(truth), who)


def table(studies: int, seed: int) -> Iterator[tuple[str, dict[str, tuple[float, float]]]]:
    """All rows."""
    for m, n, area in INDEPENDENT:
        draw = partial(independent_study, np.random.default_rng(seed), m, n, area)
        yield f"AUC {area} of {m}+/{n}−", simulate(draw, area, studies)
    for what, study, rows in (("AUC", clustered_study, CLUSTERED), ("sensitivity", sensitivity_study, SENSITIVITY)):
        for row in rows:
            kind = "patients' disease" if row[3] else "lesions' disease"
            draw = partial(study, np.random.default_rng(seed), row)
            yield f"{what} {row[2]} of {row[0]}×{row[1]}, {kind}", simulate(draw, row[2], studies)


def main() -> int:
    """Run, print, and end with 1 when a row misses the bars."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="also write the table as JSON")
    options = parser.parse_args()
    failed, written = [], {}
    for name, found in table(options.studies, options.seed):
        written[name] = found
        cover, width = found["rule"]
        fair = [w for method, (c, w) in found.items() if method != "rule" and c >= 0.93]
        ratio = width / min(fair) if fair else float("nan")
        good = 0.93 <= cover <= 0.985 and not ratio > 1.05
        failed += [] if good else [name]
        others = "  ".join(f"{method} {c:.3f}/{w:.4f}" for method, (c, w) in found.items())
        print(f"{'ok ' if good else 'NOT'} {name:44} width ratio {ratio:5.3f}  {others}", flush=True)
    if options.output:
        options.output.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    print(f"{len(written) - len(failed)} of {len(written)} rows within the bars, {options.studies} studies each")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
