# %% [markdown]
# # Evaluation for a paper
#
# `medlora.evaluation` judges anybody's predictions: a table with the truth, probabilities, and the patient. It needs no
# network and no PyTorch. The predictions here are simulated, so that the truth behind every figure is known.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from medlora import evaluation

place = Path(tempfile.mkdtemp())

# %% [markdown]
# ## 1. Predictions of two models
#
# 260 patients with one to four radiographs each, 30 % of the patients ill, two hospitals. The images of one patient are
# alike (a shared part in each score), so 600 images are not 600 independent cases. Model A is better than model B; B is
# over-confident; and at hospital 2 both are worse.

# %%
random = np.random.default_rng(7)
patients = 260
images = random.choice([1, 2, 3, 4], patients, p=[0.3, 0.3, 0.2, 0.2])
who = np.repeat(np.arange(patients), images)
ill = (random.random(patients) < 0.3)[who]
hospital = random.choice(["hospital 1", "hospital 2"], patients, p=[0.6, 0.4])[who]
shared = random.normal(size=patients)[who]
signal = np.where(hospital == "hospital 1", 2.1, 1.3) * ill


def log_odds(strength, noise):
    """Log odds of illness by a score that is normal in both groups, 30 % ill."""
    score = strength * signal + 0.8 * shared + random.normal(0, np.hypot(0.6, noise), len(who))
    apart = 1.78 * strength  # mean of both hospitals
    return apart / (1 + noise**2) * (score - apart / 2) + np.log(0.3 / 0.7)


models = {"A": log_odds(1.0, 0), "B": 2.2 * log_odds(0.75, 0.4)}
files = {}
for name, logit in models.items():
    p = 1 / (1 + np.exp(-logit))
    files[name] = place / f"{name}.csv"
    pd.DataFrame(
        {"case_id": [f"image-{i}" for i in range(len(who))], "patient": [f"patient-{i}" for i in who],
         "site": hospital, "sex": random.choice(["F", "M"], patients)[who], "y": np.where(ill, "ill", "well"),
         "p_well": 1 - p, "p_ill": p}
    ).to_csv(files[name], index=False)  # fmt: skip
pd.read_csv(files["A"]).head()

# %% [markdown]
# ## 2. One model
#
# Each figure has its interval and the method of the interval. Because patients have several images, these follow patients.

# %%
judged = evaluation.evaluate(files["A"], threshold=0.4, prevalence=0.05, min_specificity=0.9)
judged

# %%
judged.to_frame()[["metric", "value", "low", "high", "method"]].round(3)

# %% [markdown]
# **What ignoring the patients would do.** The same predictions with every image taken for a patient of its own: the
# interval is narrower, and wrong.

# %%
table = pd.read_csv(files["A"])
truth = (table["y"] == "ill").to_numpy()
figure, axis = plt.subplots(figsize=(6, 1.8))
for height, (words, groups) in enumerate({"images as if independent": None, "by patient": table["patient"]}.items()):
    area = evaluation.auc(truth, table["p_ill"], groups)
    axis.errorbar(area.value, height, xerr=[[area.value - area.low], [area.high - area.value]], fmt="o", capsize=5)
    axis.text(area.high + 0.004, height, f"{words}: {area.value:.3f} [{area.low:.3f}, {area.high:.3f}]", va="center")
axis.set(yticks=[], ylim=(-0.6, 1.6), xlim=(0.8, 1.02), xlabel="AUC, 95 % interval")
axis.spines[["left", "top", "right"]].set_visible(False)

# %% [markdown]
# ## 3. Two models on the same images
#
# A paired test, by patient (Obuchowski's form of DeLong's test), with a margin of non-inferiority and p values corrected
# for their number.

# %%
compared = evaluation.compare(files, margin=0.05)
compared

# %% [markdown]
# ## 4. Are the probabilities right?
#
# A model can rank well and still state wrong risks. Intercept 0 and slope 1 are perfect; a slope below 1 means that the
# risks are too extreme, as B's are. One number, the temperature, corrects that without changing the ranking of cases; it
# must be fitted on other patients than the test's, here on half of them.

# %%
from medlora.evaluation.calibration import reliability

figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), sharey=True)
half = who % 2 == 0
p_b = pd.read_csv(files["B"])["p_ill"].to_numpy()
temperature = evaluation.fit_temperature(p_b[half], truth[half])
cooled = evaluation.apply_temperature(p_b, temperature)
for axis, (title, p) in zip(
    axes, {"B as it is": p_b, f"B at temperature {temperature:.2f}": cooled}.items(), strict=True
):
    curve = reliability(p[~half], truth[~half], who[~half])
    intercept, slope = evaluation.calibration_intercept_slope(p[~half], truth[~half], who[~half])
    axis.plot([0, 1], [0, 1], color="#bbbbbb", lw=1)
    if curve.x is not None:
        axis.fill_between(curve.x, curve.low, curve.high, color="#4477aa", alpha=0.15, lw=0)
        axis.plot(curve.x, curve.smooth, color="#4477aa")
    axis.errorbar(
        curve.mean, curve.observed, yerr=np.abs([curve.observed - curve.group_low, curve.group_high - curve.observed]),
        fmt="o", color="#1c2733", ms=4, lw=1,
    )  # fmt: skip
    axis.set(
        title=f"{title}\nslope {slope.value:.2f} [{slope.low:.2f}, {slope.high:.2f}]",
        xlabel="stated probability",
        xlim=(0, 1),
        ylim=(0, 1),
    )
axes[0].set_ylabel("observed share")
figure.tight_layout()

# %% [markdown]
# ## 5. Is acting on it worth anything?
#
# Net benefit weighs a false alarm by the threshold: acting at 10 % means that nine false alarms are as bad as one missed
# patient. A model is useful where its curve lies above "treat all" and above zero.

# %%
thresholds = np.linspace(0.02, 0.8, 100)
figure, axis = plt.subplots(figsize=(6, 3.6))
for name, file in files.items():
    mine, everyone = evaluation.net_benefit(pd.read_csv(file)["p_ill"], truth, thresholds)
    axis.plot(thresholds, mine, label=f"model {name}")
axis.plot(thresholds, everyone, color="#bbbbbb", label="treat all")
axis.axhline(0, color="black", lw=0.8, label="treat none")
axis.set(xlabel="threshold probability", ylabel="net benefit", ylim=(-0.05, 0.32))
axis.legend(frameon=False);

# %% [markdown]
# ## 6. Subgroups
#
# The AUC over all hides that the model is worse at hospital 2. The p value, corrected over the columns tested, is that of
# "the AUC is the same at all levels".

# %%
parts = pd.DataFrame(
    {"column": part.column, "level": part.level, "images": part.n, "patients": part.patients, "AUC": str(part.auc),
     "p (Holm)": part.p_holm} for part in judged.subgroups
)  # fmt: skip
parts

# %% [markdown]
# ## 7. How large must the next study be?
#
# For an interval of a given width around the AUC, and to show that a new model is not worse by 0.05. Both count
# independent cases; where patients have several images, `design_effect` makes them more.

# %%
widths = np.linspace(0.04, 0.2, 60)
figure, axis = plt.subplots(figsize=(6, 3.6))
for area in (0.75, 0.85, 0.95):
    axis.plot(
        widths, [evaluation.sample_size_for_width(area, width, ratio=2)[0] for width in widths], label=f"AUC {area}"
    )
axis.set(yscale="log", xlabel="width of the 95 % interval", ylabel="positives needed (twice as many negatives)")
axis.legend(frameon=False)
evaluation.sample_size_for_margin(0.85, margin=0.05, ratio=2)

# %% [markdown]
# ## 8. The report
#
# One HTML file that stands alone, with the figures, the tables as CSV, and `metrics.json`.

# %%
judged.write(place / "evaluation")
compared.write(place / "comparison")
for path in sorted((place / "evaluation").rglob("*.*"))[:12]:
    print(path.relative_to(place))
