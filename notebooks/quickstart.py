# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # medlora quickstart
#
# From a folder of DICOM files to an adapter and a report, on phantom radiographs: drawn by a program, not taken of people.
# Everything runs offline on a laptop, in about a minute. **Research use only.**

# %%
import tempfile
from pathlib import Path

import medlora
from medlora.phantoms import radiographs

print("medlora", medlora.__version__)
place = Path(tempfile.mkdtemp())  # put your own folder here

# %% [markdown]
# ## 1. Scans
#
# A small archive as a hospital would hand it over: DICOM files in folders, and a CSV of labels. With your own scans this
# cell is not needed.

# %%
labels = radiographs.write(place / "archive", patients=70, seed=1, size=160, progress=False)
archive = place / "archive" / "dicom"
print(labels.read_text().splitlines()[0])
print(len(list(archive.rglob("*.dcm"))), "files")

# %% [markdown]
# One scan, assembled and placed as the standard says. It shows itself:

# %%
from medlora import scans

some = scans.read(next(archive.iterdir()))
some[0]

# %% [markdown]
# ## 2. Cohort
#
# Labels are joined to scans, patients are split, and what is wrong is said. The splits follow patients, never images.

# %%
cohort = medlora.Cohort.from_archive(archive, labels=labels)
cohort

# %% [markdown]
# ## 3. Train
#
# The backbone stays frozen. Low-rank updates of its attention and convolutions, and a new head, are trained; a linear probe
# is fitted beside them, as the honest lower bar.

# %%
run = medlora.train(
    cohort, place / "run", adapter=medlora.LoRA(rank=8, alpha=64), settings={"train.epochs": 3, "data.image_size": 96}
)
run

# %%
import matplotlib.pyplot as plt

history = run.history
figure, axis = plt.subplots(figsize=(5, 3))
axis.plot(history["epoch"], history["tune_auc"], "o-")
axis.set(xlabel="epoch", ylabel="AUC on the tune split", title="phantom");

# %% [markdown]
# ## 4. Judge it
#
# On patients it has never seen, with intervals that follow patients. The threshold was fixed before, on the tune split.

# %%
report = run.evaluate("test")
report

# %%
print(report)
print("the whole report:", (run.folder / "evaluation" / "test" / "report.html").name)

# %% [markdown]
# ## 5. What was learned is a small file

# %%
for path in sorted(run.adapter_path.iterdir()):
    print(f"{path.stat().st_size:>9,} bytes  {path.name}")

# %%
answers = medlora.load(run.adapter_path).predict(next(archive.iterdir()))
answers.table.drop(columns=["patient", "site", "y"])
