"""Time of an epoch with the frozen part of the network kept: beside full fine-tuning, and beside PEFT without it.

    python scripts/bench_training.py [--nets vit_small_patch16_224,…] [--batches 6] [--rounds 3] [--device cuda]

All arms see the same images through the same augmentation, in batches of 16 at 224 pixels, forward, loss, backward and
AdamW; what an arm reads is read within its time. LoRA (rank 8) is in the last third of the network; PEFT has the same
module paths. The arms take turns within a round, and a ratio is the median over the rounds of the ratio within the
round. "Ten epochs" counts filling the cache with four views of each image. Weights are drawn at random, which changes
no time. The last table is the peak of a process's memory at batch 32, each arm in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import re
import statistics
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

NETS = ("vit_small_patch16_224", "convnext_tiny", "tf_efficientnet_lite0")
BATCH, VIEWS, EPOCHS, CLASSES = 16, 4, 10, 3


class Images:
    """Random prepared images, as :class:`medlora.training.prepared.PreparedImages` gives them."""

    def __init__(self, count, size):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(count, 1, size, size, generator=generator)
        self.labels = torch.randint(0, CLASSES, (count,), generator=generator)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], self.labels[index], index


def network(name):
    import timm

    torch.manual_seed(0)
    return timm.create_model(name, num_classes=CLASSES)


class Arm:
    """One way to train: an epoch over the batches, in seconds."""

    def __init__(self, model, parameters, data, forward, device):
        from medlora.training.batches import Order

        self.model, self.data, self.forward, self.device = model.to(device).train(), data, forward, device
        self.optimizer = torch.optim.AdamW(list(parameters), lr=1e-5)
        self.order = Order(len(data), BATCH, 0)

    def epoch(self):
        started = time.perf_counter()
        for batch in torch.utils.data.DataLoader(self.data, batch_sampler=self.order):
            inputs, labels, _ = batch
            self.optimizer.zero_grad()
            torch.nn.functional.cross_entropy(self.forward(inputs.to(self.device)), labels.to(self.device)).backward()
            self.optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.order.epoch += 1
        return time.perf_counter() - started


def arms(name, batches, device, folder):
    """The arms of a network, the seconds it took to fill the cache, and the bytes of an image and view."""
    from peft import LoraConfig, get_peft_model

    from medlora import adapters
    from medlora.training.batches import AugmentedImages, CachedViews
    from medlora.training.prefix import find_prefix
    from medlora.transforms import Radiograph

    model = network(name)
    size = model.pretrained_cfg["input_size"][-1]
    preset = Radiograph(size=size, mean=model.pretrained_cfg["mean"], std=model.pretrained_cfg["std"])
    images = Images(batches * BATCH, size)
    free = AugmentedImages(images, preset.augmentation(), seed=0)

    def whole(net):
        return lambda inputs: net(preset.normalise(inputs))

    full = network(name)
    made = {"full": Arm(full, adapters.attach(full, adapters.Full()).parameters(), free, whole(full), device)}

    adapter = adapters.attach(model, adapters.LoRA(rank=8, last="1/3"))
    made["lora"] = Arm(model, adapter.parameters(), free, whole(model), device)
    cached, filled, bytes_ = {}, {}, {}
    probe = network(name)
    for key, net, trained in (
        ("lora cached", model, adapter),
        ("probe cached", probe, adapters.attach(probe, adapters.Probe())),
    ):
        net.to("cpu")
        prefix = find_prefix(net, preset.normalise(images.images[:1]))
        assert not isinstance(prefix, str), prefix
        net.to(device)
        store = np.lib.format.open_memmap(
            folder / f"{name}-{key.split()[0]}.npy", "w+", "<f2", (len(images), VIEWS, *prefix.shape)
        )
        started = time.perf_counter()
        for view in range(VIEWS):
            for start in range(0, len(images), BATCH):
                part = torch.stack([free[(view, index)][0] for index in range(start, start + BATCH)])
                store[start : start + BATCH, view] = prefix.features(preset.normalise(part.to(device))).cpu().numpy()
        store.flush()
        filled[key] = time.perf_counter() - started
        bytes_[key] = 2 * math.prod(prefix.shape)
        cached[key] = Arm(net, trained.parameters(), CachedViews(store, images.labels, 0), prefix.suffix, device)
    made |= cached

    peft = network(name)
    paths = {target.path for target in adapter.targets}
    heads = [path for path, module in peft.named_modules() if module is peft.get_classifier()]
    groups = {p: m.groups for p, m in peft.named_modules() if isinstance(m, torch.nn.Conv2d)}
    assert all(groups.get(path, 1) == 1 for path in paths), "PEFT takes no grouped convolutions at this rank"
    pattern = "|".join(map(re.escape, sorted(paths)))
    peft = get_peft_model(peft, LoraConfig(r=8, target_modules=pattern, modules_to_save=heads))
    made["peft"] = Arm(peft, [p for p in peft.parameters() if p.requires_grad], free, whole(peft), device)
    return made, filled, bytes_


def times(name, batches, rounds, device, folder):
    made, filled, bytes_ = arms(name, batches, device, folder)
    for arm in made.values():
        arm.epoch()
    found = {key: [] for key in made}
    for _ in range(rounds):
        for key, arm in made.items():
            found[key].append(arm.epoch())

    def ratio(top, bottom):
        return statistics.median(a / b for a, b in zip(found[top], found[bottom], strict=True))

    ten = statistics.median(
        (filled["lora cached"] + EPOCHS * a) / (EPOCHS * b)
        for a, b in zip(found["lora cached"], found["full"], strict=True)
    )
    return {
        "cached / full": ratio("lora cached", "full"),
        "cached / peft": ratio("lora cached", "peft"),
        "ten epochs / full": ten,
        "uncached / full": ratio("lora", "full"),
        "probe / full": ratio("probe cached", "full"),
        "KB per view": bytes_["lora cached"] / 1000,
        "seconds of a full epoch": statistics.median(found["full"]),
    }


def peak(name, method, threads):
    """Peak of this process's memory after three steps at batch 32, in MB."""
    from medlora import adapters
    from medlora.training.peak import peak_mb

    torch.set_num_threads(threads)
    model = network(name).train()
    kind = (
        adapters.Full() if method == "full" else adapters.LoRA(rank=8, last="1/3" if method == "last third" else None)
    )
    adapter = adapters.attach(model, kind)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-5)
    images = torch.rand(32, *model.pretrained_cfg["input_size"])
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), torch.zeros(32, dtype=torch.long)).backward()
        optimizer.step()
    return peak_mb("cpu")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--batches", type=int, default=6, help="of 16 images in an epoch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(asked.threads)
    result = {}
    for name in asked.nets.split(","):
        with tempfile.TemporaryDirectory() as folder:
            result[name] = times(name, asked.batches, asked.rounds, torch.device(asked.device), Path(folder))
        print(name, " ".join(f"{key}: {value:.3f}" for key, value in result[name].items()), flush=True)
    if not asked.no_memory:
        name, peaks = "vit_small_patch16_224", {}
        for method in ("full", "all blocks", "last third"):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                peaks[method] = pool.submit(peak, name, method, asked.threads).result()
        result["peak MB"] = peaks
        print(f"{name}, peak of the process at batch 32:", {k: round(v) for k, v in peaks.items()})
        print("  against full:", {k: round(v / peaks["full"], 3) for k, v in peaks.items() if k != "full"})
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
