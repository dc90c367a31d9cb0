"""Time of an epoch with the frozen part of the network kept: beside full fine-tuning, and beside PEFT without it.

    python scripts/bench_training.py [--nets vit_small_patch16_224,…] [--batches 6] [--rounds 3]
    python scripts/bench_training.py --device cuda --autocast bf16 --batch 64 --workers 12

All arms see the same images through the same augmentation, in batches of 16 at 224 pixels, forward, loss, backward and
AdamW; what an arm reads is read within its time. LoRA (rank 8) is in the last third of the network; PEFT has the same
module paths. The arms take turns within a round, and a ratio is the median over the rounds of the ratio within the
round. "Ten epochs" counts filling the cache with four views of each image. Weights are drawn at random, which changes
no time. The last table is the peak of a process's memory (of the GPU's, there) at batch 32, each arm in processes of
its own; the median over the rounds. The C library's allocator keeps the memory of a step while times are taken, for all
arms, and gives it back while memory is, as in trainings of that size (``medlora.training.allocator``).
``--nets ""`` leaves the times out.
"""

from __future__ import annotations

import argparse
import contextlib
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

from medlora.training.allocator import SMALL, told

NETS = ("vit_small_patch16_224", "convnext_tiny", "tf_efficientnet_lite0", "medlora-hybrid")
VIEWS, EPOCHS, CLASSES = 4, 10, 3


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

    import medlora.backbones.hybrid  # noqa: F401  (registers its network with timm)

    torch.manual_seed(0)
    return timm.create_model(name, num_classes=CLASSES)


def halved(device, autocast):
    return torch.autocast(device.type, autocast) if autocast else contextlib.nullcontext()


class Arm:
    """One way to train: an epoch over the batches, in seconds."""

    def __init__(self, model, parameters, data, forward, asked):
        from medlora.training.batches import Order

        self.device, self.autocast = asked.device, asked.autocast
        self.model, self.forward = model.to(self.device).train(), forward
        self.optimizer = torch.optim.AdamW(list(parameters), lr=1e-5)
        self.order = Order(len(data), asked.batch, 0)
        self.loader = torch.utils.data.DataLoader(
            data,
            batch_sampler=self.order,
            num_workers=asked.workers,
            persistent_workers=asked.workers > 0,
            pin_memory=self.device.type == "cuda",
        )

    def epoch(self):
        started = time.perf_counter()
        for inputs, labels, _ in self.loader:
            self.optimizer.zero_grad()
            with halved(self.device, self.autocast):
                outputs = self.forward(inputs.to(self.device, non_blocking=True))
            goal = labels.to(self.device, non_blocking=True)
            torch.nn.functional.cross_entropy(outputs.float(), goal).backward()
            self.optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.order.epoch += 1
        return time.perf_counter() - started


def arms(name, asked, folder):
    """The arms of a network, the seconds it took to fill the cache, and the bytes of an image and view."""
    from peft import LoraConfig, get_peft_model

    from medlora import adapters
    from medlora.training.batches import AugmentedImages, CachedViews
    from medlora.training.prefix import find_prefix
    from medlora.transforms import Radiograph

    model = network(name)
    size = model.pretrained_cfg["input_size"][-1]
    preset = Radiograph(size=size, mean=model.pretrained_cfg["mean"], std=model.pretrained_cfg["std"])
    images = Images(asked.batches * asked.batch, size)
    free = AugmentedImages(images, preset.augmentation(), seed=0, workers=asked.workers)

    def whole(net):
        return lambda inputs: net(preset.normalise(inputs))

    full = network(name)
    made = {"full": Arm(full, adapters.attach(full, adapters.Full()).parameters(), free, whole(full), asked)}

    adapter = adapters.attach(model, adapters.LoRA(rank=8, last="1/3"))
    made["lora"] = Arm(model, adapter.parameters(), free, whole(model), asked)
    cached, filled, bytes_ = {}, {}, {}
    probe = network(name)
    for key, net, trained in (
        ("lora cached", model, adapter),
        ("probe cached", probe, adapters.attach(probe, adapters.Probe())),
    ):
        net.to("cpu")
        prefix = find_prefix(net, preset.normalise(images.images[:1]))
        assert not isinstance(prefix, str), prefix
        net.to(asked.device)
        store = np.lib.format.open_memmap(
            folder / f"{name}-{key.split()[0]}.npy", "w+", "<f2", (len(images), VIEWS, *prefix.shape)
        )
        started = time.perf_counter()
        places = [(view, index) for view in range(VIEWS) for index in range(len(images))]
        loader = torch.utils.data.DataLoader(free, sampler=places, batch_size=asked.batch, num_workers=asked.workers)
        for number, (part, _, where) in enumerate(loader):
            with halved(asked.device, asked.autocast):
                features = prefix.features(preset.normalise(part.to(asked.device)))
            store[where.numpy(), number * asked.batch // len(images)] = features.half().cpu().numpy()
        store.flush()
        filled[key] = time.perf_counter() - started
        bytes_[key] = 2 * math.prod(prefix.shape)
        cached[key] = Arm(net, trained.parameters(), CachedViews(store, images.labels, 0), prefix.suffix, asked)
    made |= cached

    peft = network(name)
    paths = {target.path for target in adapter.targets}
    heads = [path for path, module in peft.named_modules() if module is peft.get_classifier()]
    groups = {p: m.groups for p, m in peft.named_modules() if isinstance(m, torch.nn.Conv2d)}
    assert all(groups.get(path, 1) == 1 for path in paths), "PEFT takes no grouped convolutions at this rank"
    pattern = "|".join(map(re.escape, sorted(paths)))
    peft = get_peft_model(peft, LoraConfig(r=8, target_modules=pattern, modules_to_save=heads))
    made["peft"] = Arm(peft, [p for p in peft.parameters() if p.requires_grad], free, whole(peft), asked)
    return made, filled, bytes_


def times(name, asked, folder):
    made, filled, bytes_ = arms(name, asked, folder)
    for arm in made.values():
        arm.epoch()
    found = {key: [] for key in made}
    for _ in range(asked.rounds):
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


def peak(name, method, threads, device, autocast):
    """Peak of this process's memory after three steps at batch 32, and before there is a network, in MB."""
    import timm  # noqa: F401

    from medlora import adapters
    from medlora.training.peak import peak_mb

    with told(SMALL + 1):
        torch.set_num_threads(threads)
        libraries = peak_mb(device.type)
        model = network(name).train().to(device)
        kind = (
            adapters.Full()
            if method == "full"
            else adapters.LoRA(rank=8, last="1/3" if method == "last third" else None)
        )
        adapter = adapters.attach(model, kind)
        optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-5)
        images = torch.rand(32, *model.pretrained_cfg["input_size"], device=device)
        for _ in range(3):
            optimizer.zero_grad()
            with halved(device, autocast):
                outputs = model(images)
            torch.nn.functional.cross_entropy(
                outputs.float(), torch.zeros(32, dtype=torch.long, device=device)
            ).backward()
            optimizer.step()
        return peak_mb(device.type), libraries


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--batches", type=int, default=6, help="in an epoch")
    parser.add_argument("--batch", type=int, default=16, help="images")
    parser.add_argument("--workers", type=int, default=0, help="processes that read, of each arm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--autocast", choices=("bf16", "fp16"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    asked = parser.parse_args()
    asked.autocast = {"bf16": torch.bfloat16, "fp16": torch.float16, None: None}[asked.autocast]
    warnings.filterwarnings("ignore")
    torch.set_num_threads(asked.threads)
    result = {}
    for name in filter(None, asked.nets.split(",")):
        with tempfile.TemporaryDirectory() as folder, told(SMALL):
            result[name] = times(name, asked, Path(folder))
        print(name, " ".join(f"{key}: {value:.3f}" for key, value in result[name].items()), flush=True)
    if not asked.no_memory:
        name, seen = "vit_small_patch16_224", {"full": [], "all blocks": [], "last third": []}
        for _ in range(asked.rounds):
            for method, found in seen.items():
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                    words = (name, method, asked.threads, asked.device, asked.autocast)
                    found.append(pool.submit(peak, *words).result())
        peaks = {method: statistics.median(peak for peak, _ in found) for method, found in seen.items()}
        alone = statistics.median(libraries for found in seen.values() for _, libraries in found)
        result["peak MB"] = peaks | {"libraries": alone}
        print(f"{name}, peak of the process at batch 32:", {k: round(v) for k, v in peaks.items()}, "MB")
        print("  against full:", {k: round(v / peaks["full"], 3) for k, v in peaks.items() if k != "full"})
        more = {k: round((v - alone) / (peaks["full"] - alone), 3) for k, v in peaks.items() if k != "full"}
        print(f"  without the {alone:.0f} MB that the libraries take alone:", more)
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
