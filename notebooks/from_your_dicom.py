# %% [markdown]
# # From your DICOM to an adapter
#
# What to look at on the way from a folder out of the archive to an adapter that may be believed. Put your own folder and
# CSV in the second cell; without them phantoms stand in, made as untidy as real archives are. Everything runs offline.
# **Research use only.**

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import medlora
from medlora import scans

place = Path(tempfile.mkdtemp())  # put the folder for results here

# %%
SCANS, LABELS = None, None  # SCANS = "path/to/folder"; LABELS = "path/to/labels.csv"

# %% [markdown]
# The stand-in: 70 fictitious patients. Among their files lie a text file and a DICOM file that was cut short, and the CSV
# is one that a spreadsheet has saved: semicolons, headings of its own, a patient whom the archive does not know.

# %%
if SCANS is None:
    from medlora.phantoms import radiographs

    labels = pd.read_csv(radiographs.write(place / "phantoms", patients=70, seed=2, size=160, progress=False))
    SCANS, LABELS = place / "phantoms" / "dicom", place / "findings.csv"
    (SCANS / "read me.txt").write_text("exported on a Friday")
    whole = sorted(SCANS.rglob("*.dcm"))[-1]
    whole.write_bytes(whole.read_bytes()[:3000])
    rows = labels.rename(columns={"study_uid": "Study Instance UID", "label": "Finding", "site": "Hospital"})
    rows = rows[["Study Instance UID", "Finding", "Hospital"]]
    rows.loc[len(rows)] = ["1.2.3.4.5", "normal", "elsewhere"]
    rows.to_csv(LABELS, index=False, sep=";", encoding="utf-8-sig")

# %% [markdown]
# ## 1. Can it be read?
#
# `scans.read` takes any file or folder. What it cannot read is named with a reason, never skipped in silence.

# %%
found = scans.read(SCANS)
print(len(found), "scans;", *found.excluded, sep="\n")
found[0]

# %% [markdown]
# ## 2. The cohort
#
# Labels are joined to scans, one scan of each study is chosen, and the splits are drawn by patient. Read every warning.

# %%
cohort = medlora.Cohort.from_archive(SCANS, LABELS, label_column="Finding", site="Hospital", split_seed=0)
cohort.save(place / "cohort")
cohort

# %%
print(*cohort.warnings, sep="\n")
cohort.excluded.groupby(["code", "reason"]).size().rename("files").reset_index()

# %% [markdown]
# Patients of each label in each split; no patient is in two:

# %%
table = cohort.table
assert table.groupby("patient")["split"].nunique().max() == 1
table.pivot_table(index="label", columns="split", values="patient", aggfunc="nunique")[["train", "tune", "test"]]

# %% [markdown]
# **Look at the images**, some of each label, before a model does:

# %%
figure, axes = plt.subplots(len(cohort.classes), 5, figsize=(10, 2.2 * len(cohort.classes)), squeeze=False)
for row, label in zip(axes, cohort.classes, strict=True):
    for axis, scan_id in zip(row, table.loc[table["label"] == label, "scan_id"][:5], strict=False):
        axis.imshow(cohort.scan(scan_id).to_numpy("zyx")[0], cmap="gray")
        axis.set_axis_off()
    row[0].set_title(label, loc="left", fontsize=10)
figure.tight_layout()

# %% [markdown]
# **Is the label in the scanner?** Where one label comes mostly from one machine, the machine gives it away. The share of
# each label by site; they should look alike:

# %%
shares = pd.crosstab(table["site"], table["label"], normalize="index")
axis = shares.plot.barh(stacked=True, figsize=(6, 0.5 * len(shares) + 1), color=["#bbbbbb", "#ee6677"])
axis.set(xlabel="share of cases", ylabel="")
axis.legend(frameon=False, bbox_to_anchor=(1, 1));

# %% [markdown]
# ## 3. Train
#
# Small images and few epochs here, so that the notebook ends soon. On your own scans leave `settings` out at first.

# %%
run = medlora.train(cohort, place / "run", settings={"train.epochs": 3, "data.image_size": 96})
run

# %% [markdown]
# ## 4. Judge it
#
# On patients never seen, at the threshold that was frozen on the tuning split. With so few patients the intervals are
# wide, and that is the honest answer.

# %%
run.evaluate("test")

# %% [markdown]
# Beside the adapter stands the linear probe: the same frozen network with nothing but a new last layer. Where both are
# equal, use the probe; `medlora compare` decides it by a written rule.

# %%
predictions = pd.read_csv(run.folder / "predictions" / "test.csv")
figure, axis = plt.subplots(figsize=(6, 2.4))
for height, (label, part) in enumerate(predictions.groupby("y")):
    axis.plot(part.iloc[:, part.columns.str.startswith("p_")].iloc[:, -1], [height] * len(part), "|", ms=22, mew=1.5)
    axis.text(-0.02, height, label, ha="right", va="center")
axis.axvline(run.info["task"]["operating_point"]["value"], color="black", lw=1, ls="--")
axis.set(xlim=(0, 1), ylim=(-0.6, 1.6), yticks=[], xlabel="probability; dashed: the frozen threshold")
axis.spines[["left", "top", "right"]].set_visible(False)

# %% [markdown]
# ## 5. What leaves the hospital
#
# The adapter's folder: no image, no name, no patient identifier. `medlora.json` says which backbone it belongs to, how
# scans are prepared, and where the threshold lies.

# %%
for path in sorted(run.adapter_path.iterdir()):
    print(f"{path.stat().st_size:>9,} bytes  {path.name}")
run.info["backbone"]

# %% [markdown]
# At another place it needs nothing but medlora and the same backbone. The answers carry a `scan_id`; which file that is,
# only `linkage()` tells, and that table stays inside.

# %%
answers = medlora.load(run.adapter_path).predict(sorted(path for path in SCANS.iterdir() if path.is_dir())[0])
answers.table.drop(columns=["patient", "site", "y"])

# %% [markdown]
# The same on the command line:
#
# ```sh
# medlora check SCANS --labels findings.csv --label-column Finding --site Hospital -o cohort
# medlora train cohort -o run
# medlora evaluate run
# medlora predict run NEW_SCANS -o predictions.csv
# ```
