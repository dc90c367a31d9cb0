# %% [markdown]
# # Nodules on CT
#
# A label may be about a place in a scan. Here the places are nodules on phantom chest CT, drawn by a program as real DICOM:
# 36 patients, some from a scanner that the training has not seen. What changes from whole scans is little: the CSV has
# a centre in each row, and the coordinate system is declared. Everything runs offline. **Research use only.**

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import medlora
from medlora.phantoms import ct

place = Path(tempfile.mkdtemp())

# %% [markdown]
# ## 1. Scans and centres
#
# The labels have LUNA16's form: a series, a centre in DICOM's coordinates (LPS, millimetres), a diameter.

# %%
labels = ct.write(
    place / "archive", patients=36, seed=4, scanner="shifted", matrix=144, series=("scout", "thin"), progress=False
)
nodules = pd.read_csv(labels)
nodules[["patient_id", "coordX", "coordY", "coordZ", "diameter_mm", "label", "density", "margin", "split"]].head()

# %% [markdown]
# Size alone does not decide: small nodules may be malignant, large ones benign. The risk behind each label is that of a
# published model; the card of the phantoms names it.

# %%
figure, axis = plt.subplots(figsize=(6, 2.2))
for height, (label, part) in enumerate(nodules.groupby("label")):
    axis.plot(part["diameter_mm"], [height] * len(part), "|", ms=22, mew=1.5)
    axis.text(axis.get_xlim()[0], height + 0.42, f"{label} (n = {len(part)})")
axis.set(ylim=(-0.5, 1.8), yticks=[], xlabel="diameter, mm")
axis.spines[["left", "top", "right"]].set_visible(False)

# %% [markdown]
# ## 2. The cohort: each row is a case
#
# The scout is left out by the rule that picks a series of each study. `check.html` shows each centre on its slice; here
# are a few.

# %%
cohort = medlora.Cohort.from_archive(place / "archive" / "dicom", labels, coordinates="lps", split_column="split")
cohort.save(place / "cohort")
cohort

# %%
table = cohort.table
shown = pd.concat([table[table["label"] == label].nlargest(3, "diameter") for label in cohort.classes])
figure, axes = plt.subplots(2, 3, figsize=(9, 6.4))
for axis, case in zip(axes.flat, shown.itertuples(), strict=True):
    scan = cohort.scan(case.scan_id)
    x, y, z = np.linalg.solve(scan.affine, [case.x, case.y, case.z, 1])[:3]
    axis.imshow(scan.to_numpy("zyx")[round(z)], cmap="gray", vmin=-1350, vmax=150)
    axis.add_patch(plt.Circle((x, y), 14 / scan.spacing[0], fill=False, color="#ee6677", lw=1.2))
    axis.set_title(f"{case.label}, {case.diameter:.0f} mm", fontsize=9)
    axis.set_axis_off()
figure.tight_layout()

# %% [markdown]
# ## 3. The wrong coordinate system
#
# Read as RAS, the same numbers mirror every centre. Nothing crashes, which is the danger; but `check` looks at what lies
# at the places:

# %%
wrong = medlora.Cohort.from_archive(place / "archive" / "dicom", labels, coordinates="ras", split_column="split")
said = [*wrong.errors, *(warning for warning in wrong.warnings if warning not in cohort.warnings)]
print(*said, f"{len(wrong)} of {len(cohort)} cases are left", sep="\n")

# %% [markdown]
# ## 4. What the network sees
#
# Three axial slices, through the centre and 2.5 mm below and above it, each 24 mm wide, one for each colour channel of
# the backbone. The window holds lung, ground glass and soft tissue. (`CTNodulePlanes` shows three planes instead.)

# %%
from medlora import transforms

preset = transforms.CTNodule(size=96, mean=(0.5,) * 3, std=(0.5,) * 3)
prepare = preset.preparation()
figure, axes = plt.subplots(2, 6, figsize=(11, 4))
for row, label in zip(axes, cohort.classes, strict=True):
    for start, case in zip((0, 3), table[table["label"] == label].nlargest(2, "diameter").itertuples(), strict=True):
        slices = prepare(cohort.scan(case.scan_id), (case.x, case.y, case.z))
        for axis, image, name in zip(row[start:], slices, preset.channel_names, strict=False):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1)
            axis.set_title(f"{label}, {name}", fontsize=8)
            axis.set_axis_off()
figure.tight_layout()

# %% [markdown]
# ## 5. Train and judge
#
# The test patients were examined on a scanner with another kernel, dose and thickness. Thirty-six patients are far too
# few for a claim: look at the intervals.

# %%
run = medlora.train(cohort, place / "run", settings={"train.epochs": 6, "data.image_size": 64})
run.evaluate("test")

# %% [markdown]
# The nodules of the test split, from the one that the adapter finds least suspicious to the most:

# %%
answers = pd.read_csv(run.folder / "predictions" / "test.csv")  # here y is the label
places = table.set_index("case_id")[["x", "y", "z"]]
answers = answers.sort_values("p_malignant").iloc[np.linspace(0, len(answers) - 1, 8).round().astype(int)]
figure, axes = plt.subplots(1, 8, figsize=(12, 2))
for axis, case in zip(axes, answers.itertuples(), strict=True):
    axis.imshow(prepare(cohort.scan(case.scan_id), tuple(places.loc[case.case_id]))[0], cmap="gray", vmin=0, vmax=1)
    axis.set_title(
        f"{case.p_malignant:.2f}\n{case.y}", fontsize=9, color="#aa3377" if case.y == "malignant" else "#228833"
    )
    axis.set_axis_off()
figure.tight_layout()

# %% [markdown]
# ## 6. New places
#
# `predict` takes a CSV of centres without labels.

# %%
centres = place / "centres.csv"
nodules[["series_uid", "coordX", "coordY", "coordZ"]].head(4).to_csv(centres, index=False)
medlora.load(run.adapter_path).predict(place / "archive" / "dicom", centres, "lps").table.drop(
    columns=["patient", "site", "y"]
)
