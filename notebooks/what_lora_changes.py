# %% [markdown]
# # What LoRA changes
#
# An adapter is a set of small matrices. Here they are opened: where in the network they sit, how large they are beside the
# weights that they change, which directions they use, and that taking them off gives the model back bit for bit. The task
# is phantom radiographs. Everything runs offline.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import medlora
from medlora import adapters, backbones
from medlora.phantoms import radiographs

place = Path(tempfile.mkdtemp())

# %% [markdown]
# ## 1. The parts that a network has
#
# Every weight that can be adapted has a role, told from the network's structure. The default backbone is a hybrid: it has
# those of a convolutional network and, in two blocks, those of a transformer's attention.

# %%
backbone = backbones.create(num_classes=2)
roles = pd.Series(adapters.roles(backbone.model)).value_counts()
sizes = pd.Series(
    {
        role: sum(backbone.model.get_submodule(path).weight.numel() for path in found.index)
        for role, found in pd.Series(adapters.roles(backbone.model)).groupby(
            lambda path: adapters.roles(backbone.model)[path]
        )
    }
)
pd.DataFrame({"modules": roles, "weights": sizes}).sort_values("weights", ascending=False)

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3), width_ratios=[2, 1])
modules = adapters.roles(backbone.model)
colours = dict(zip(sorted(set(modules.values())), plt.colormaps["tab10"].colors, strict=False))
weights = [backbone.model.get_submodule(path).weight.numel() for path in modules]
axes[0].bar(range(len(modules)), weights, color=[colours[role] for role in modules.values()], width=1)
axes[0].set(yscale="log", xlabel="module, from the image to the answer", ylabel="weights", title=backbone.name)
for role, colour in colours.items():
    axes[0].plot([], [], "s", color=colour, label=role)
axes[0].legend(frameon=False, fontsize=8, loc="upper left")
methods = {
    "probe": medlora.Probe(), "BitFit": medlora.BitFit(), "SSF": medlora.SSF(), "LoRA, rank 4": medlora.LoRA(rank=4),
    "LoRA, rank 8": medlora.LoRA(rank=8), "LoRA, rank 16": medlora.LoRA(rank=16), "full": medlora.Full(),
}  # fmt: skip
counts = {}
for name, method in methods.items():
    adapter = adapters.attach(backbone.model, method)
    counts[name] = sum(parameter.numel() for parameter in adapter.parameters())
    adapter.detach()
axes[1].barh(list(counts), list(counts.values()), color="#4477aa")
axes[1].set(xscale="log", title="trained parameters")
axes[1].invert_yaxis()
axes[1].bar_label(axes[1].containers[0], fmt="{:,.0f}", fontsize=8, padding=3)
axes[1].set_xlim(1e3, 1e8)
figure.tight_layout()

# %% [markdown]
# ## 2. Train one
#
# Rank 8 on phantom radiographs, small and short.

# %%
labels = radiographs.write(place / "archive", patients=70, seed=1, size=160, progress=False)
cohort = medlora.Cohort.from_archive(place / "archive" / "dicom", labels)
run = medlora.train(
    cohort, place / "run", adapter=medlora.LoRA(rank=8, alpha=64), settings={"train.epochs": 3, "data.image_size": 96}
)
predictor = medlora.load(run.adapter_path)
adapter = adapters.adapter_of(predictor.model)
adapter

# %% [markdown]
# ## 3. The product of two thin matrices
#
# Take one weight. It is a matrix W: output channels by input channels. The update is B·A: B is as high as W, A as wide,
# and both are only eight thin. What the network computes with is their sum.

# %%
tensors = adapter.named_tensors()
scale = adapter.method.scale(adapter.method.rank, adapter.method.alpha)
updates = {}
for target in adapter.targets:
    a, b = (tensors[f"{target.path}.lora_{letter}.weight"].detach().flatten(1) for letter in "AB")
    with adapter.disabled():
        w = predictor.model.get_submodule(target.path).weight.detach().flatten(1).clone()
    updates[target.path] = (target.role, w, scale * b, a)

path = max(updates, key=lambda name: (updates[name][1].numel() < 20_000) * (updates[name][2] @ updates[name][3]).norm())
role, w, b, a = updates[path]
limit = 3 * float(w.std())
figure, axes = plt.subplots(1, 5, figsize=(11, 3.2), width_ratios=[w.shape[1], 26, w.shape[1], w.shape[1], w.shape[1]])
panels = (
    ("W, frozen", w, limit),
    ("B", b, 3 * b.std()),
    ("A", a, 3 * a.std()),
    ("B·A", b @ a, limit),
    ("W + B·A", w + b @ a, limit),
)
for axis, (title, matrix, most) in zip(axes, panels, strict=True):
    axis.imshow(matrix, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto" if title in "BA" else "equal")
    axis.set(title=f"{title}\n{matrix.shape[0]} × {matrix.shape[1]}", xticks=[], yticks=[])
figure.suptitle(f"{path} ({role}): {w.numel():,} weights, {a.numel() + b.numel():,} trained", fontsize=10)
figure.tight_layout()

# %% [markdown]
# ## 4. Which directions?
#
# The singular values of a matrix say how strongly it acts along each of its directions. W uses all of them. The update has
# eight at most, and often fewer do most of the work: then a smaller rank would have served.

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.4))
values_w, values_u = torch.linalg.svdvals(w), torch.linalg.svdvals(b @ a)
axes[0].plot(range(1, len(values_w) + 1), values_w, ".-", color="#4477aa", label="W")
axes[0].plot(range(1, 9), values_u[:8], "o-", color="#ee6677", label="update B·A, rank 8")
axes[0].set(xlabel="direction", ylabel="singular value", title=path)
axes[0].legend(frameon=False)
for found_role, colour in colours.items():
    for target_role, _, b_, a_ in updates.values():
        if target_role == found_role:
            values = torch.linalg.svdvals(b_ @ a_)[:8]
            axes[1].plot(range(1, 9), np.cumsum(values**2) / (values**2).sum(), color=colour, alpha=0.4, lw=1)
axes[1].set(xlabel="directions", ylabel="share of the update (squared)", ylim=(0, 1.02), title="all updates")
figure.tight_layout()

# %% [markdown]
# ## 5. How much, and where?
#
# The length of each update beside the length of its weight, from the image (left) to the answer (right).

# %%
relative = [float((b_ @ a_).norm() / w_.norm()) for _, w_, b_, a_ in updates.values()]
figure, axis = plt.subplots(figsize=(10, 3))
axis.bar(range(len(updates)), relative, color=[colours[role_] for role_, *_ in updates.values()])
axis.set(xlabel="adapted weight, from the image to the answer", ylabel="‖update‖ / ‖W‖")
axis.yaxis.set_major_formatter("{x:.0%}")
for role_ in dict.fromkeys(role_ for role_, *_ in updates.values()):
    axis.plot([], [], "s", color=colours[role_], label=role_)
axis.legend(frameon=False, ncols=3)
figure.tight_layout()

# %% [markdown]
# ## 6. What it does to an answer
#
# The same scans with the adapter and without it. Within `disabled()` the model is the base; merged, the updates are added
# into the weights, and the answers stay the same.

# %%
from medlora.training.cases import where
from medlora.training.reading import prepared

test = cohort.table[cohort.table["split"] == "test"].head(16)
images = torch.stack(list(prepared(where(test), cohort.scan, predictor.preset)))
adapted = predictor.probabilities(predictor.logits(images))[:, -1]
adapter.merge()
merged = predictor.probabilities(predictor.logits(images))[:, -1]
adapter.unmerge()
print(f"merged and not merged differ by {abs(adapted - merged).max():.1e} at most")

# %%
before = {name: tensor.clone() for name, tensor in backbones.create(num_classes=2).model.state_dict().items()}
adapter.detach()
after = predictor.model.state_dict()
same = [torch.equal(before[name], after[name]) for name in before if not name.startswith("classifier")]
print(f"after detach(): {sum(same)} of {len(same)} tensors of the base are what they were, bit for bit")
assert all(same)
