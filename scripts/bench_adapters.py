"""Time of one training step: medlora's adapter beside PEFT's and full fine-tuning, on the same weights in one run.

    python scripts/bench_adapters.py [--nets resnet50,…] [--rounds 9] [--device cuda --autocast bf16]

A step is zero_grad, forward, cross-entropy, backward and AdamW, batch 8, rank 8, the head trained in every arm. The
arms run in another order each round; a ratio is the median over rounds of the ratio within the round. The first table
has every arm after ``model.train()``, as people run it; the second all of them in evaluation mode, beside the limit
of any frozen base: forward and the gradient of the input. --memory adds the bytes saved for the backward pass, with
LoRA-FA and with what any frozen base keeps (the limit). --bank times several adapters on one base: the switch, the
model merged, the model switched and a mere copy beside the base, and a batch of 8 samples of 8 adapters beside one
adapter on that batch. --channels-last has one more arm: medlora's, its images in torch.channels_last."""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import math
import random
import re
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import nn

from medlora.adapters import Bank, LoRA, LoRAFA, attach, roles

NETS = {
    "vit_small_patch16_224": ("attention", "mlp"),
    "swin_tiny_patch4_window7_224": ("attention", "mlp"),
    "convnext_tiny": ("mlp",),
    "resnet50": "ungrouped",
    "efficientnet_b0": "ungrouped",
    "tf_efficientnet_lite0": "ungrouped",
}
LAST = "channels last"


def paths(model: nn.Module, wanted: Any) -> list[str]:
    """The module paths adapted in both arms."""
    if wanted == "ungrouped":
        return [p for p, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups == 1]
    return [p for p, role in roles(model).items() if role.split(".")[0] in wanted]


class Arm:
    """One way to train a model."""

    def __init__(self, model: nn.Module, parameters: list[nn.Parameter], train: bool, autocast: Any) -> None:
        self.model = model.train(train)
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-5) if parameters else None
        self.autocast = autocast

    def step(self, x: torch.Tensor, y: torch.Tensor) -> float:
        start = time.perf_counter()
        if self.optimizer:
            self.optimizer.zero_grad()
        with torch.autocast(x.device.type, self.autocast) if self.autocast else contextlib.nullcontext():
            loss = F.cross_entropy(self.model(x).float(), y)
        loss.backward()
        if self.optimizer:
            self.optimizer.step()
        if x.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def saved_bytes(self, x: torch.Tensor, y: torch.Tensor) -> int:
        """Bytes of distinct storages kept for the backward pass, parameters left out."""
        own = {p.untyped_storage().data_ptr() for p in (*self.model.parameters(), *self.model.buffers())}
        seen: dict[int, int] = {}
        alive = []  # so that no storage is freed, and its address used again, while they are counted

        def pack(tensor: torch.Tensor) -> None:  # no backward follows, and an output kept here would keep its graph
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                seen[storage.data_ptr()] = storage.nbytes()
                alive.append(storage)

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda nothing: nothing):
            F.cross_entropy(self.model(x), y)
        alive.clear()  # a tensor's storage holds, through its graph, the hook that holds this list
        return sum(seen.values())


def arms(base: nn.Module, wanted: Any, train: bool, autocast: Any, last: bool) -> dict[str, Arm]:
    """medlora (also for images with channels ``last``), peft and full fine-tuning on copies of ``base``; in evaluation
    mode the limit too."""
    targets = paths(base, wanted)
    ours = copy.deepcopy(base)
    adapter = attach(ours, LoRA(rank=8, alpha=16, targets=targets))
    theirs = copy.deepcopy(base)
    head = base.pretrained_cfg["classifier"]
    pattern = "|".join(re.escape(t) for t in targets)
    theirs = get_peft_model(theirs, LoraConfig(r=8, lora_alpha=16, target_modules=pattern, modules_to_save=[head]))
    full = copy.deepcopy(base)
    found = {
        "medlora": Arm(ours, list(adapter.parameters()), train, autocast),
        "peft": Arm(theirs, [p for p in theirs.parameters() if p.requires_grad], train, autocast),
        "full": Arm(full, list(full.parameters()), train, autocast),
    }
    if last:
        again = copy.deepcopy(base)
        parameters = list(attach(again, LoRA(rank=8, alpha=16, targets=targets)).parameters())
        found[LAST] = Arm(again, parameters, train, autocast)
    wrapped = sum(1 for m in theirs.modules() if hasattr(m, "lora_A"))
    if wrapped != len(targets):
        raise RuntimeError(f"peft adapts {wrapped} modules, medlora {len(targets)}")
    if not train:
        limit = copy.deepcopy(base).requires_grad_(False)
        found["limit"] = Arm(limit, [], train, autocast)
    return found


def orders(names: list[str], rounds: int) -> Iterator[list[str]]:
    """The arms of each round, in an order by chance: what ran before an arm leaves its mark on caches and clocks."""
    chance = random.Random(0)
    for _ in range(rounds):
        yield chance.sample(names, len(names))


def measure(found: dict[str, Arm], x: torch.Tensor, y: torch.Tensor, rounds: int) -> dict[str, list[float]]:
    """Seconds per round and arm."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for number, names in enumerate(orders(list(found), rounds + 1)):
        for name in names:
            inputs = x.clone().requires_grad_(True) if name == "limit" else x
            if name == LAST:
                inputs = x.contiguous(memory_format=torch.channels_last)
            seconds = found[name].step(inputs, y)
            if number:
                times[name].append(seconds)
    return times


def ratio(a: list[float], b: list[float]) -> float:
    return statistics.median(p / q for p, q in zip(a, b, strict=True))


@torch.no_grad()
def bank(base: nn.Module, wanted: Any, x: torch.Tensor, rounds: int) -> dict[str, float]:
    """Milliseconds of a switch, and ratios to the base's and to one adapter's time on the batch ``x``."""
    model = base.requires_grad_(False).eval()
    method = LoRA(rank=8, alpha=16, targets=paths(base, wanted))
    names = [str(i) for i in range(len(x))]
    adapters = Bank(model)
    for name in names:
        with torch.enable_grad():
            adapter = attach(model, method)
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
        adapters.add(name, adapter)
    plain, again = copy.deepcopy(model), copy.deepcopy(model)
    merged = copy.deepcopy(model)
    with torch.enable_grad():
        attach(merged, method).merge()

    def switch_through() -> None:
        for name in names:
            adapters.use(name)

    switch_through()  # the last stays in use
    calls: dict[str, Callable[[], Any]] = {
        "base": lambda: plain(x),
        "copy": lambda: again(x),
        "merged": lambda: merged(x),
        "one": lambda: model(x),
        "mixed": lambda: adapters.run(x, names),
        "switch": switch_through,
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number, order in enumerate(orders(list(calls), rounds + 1)):
        for name in order:
            start = time.perf_counter()
            calls[name]()
            if x.is_cuda:
                torch.cuda.synchronize()
            if number:
                times[name].append(time.perf_counter() - start)
    return {
        "switch_ms": 1e3 * statistics.median(times["switch"]) / len(names),
        "copy/base": ratio(times["copy"], times["base"]),
        "merged/base": ratio(times["merged"], times["base"]),
        "switched/base": ratio(times["one"], times["base"]),
        "mixed/one": ratio(times["mixed"], times["one"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--autocast", choices=("bf16", "fp16"))
    parser.add_argument("--modes", default="train,eval")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--bank", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # Random weights can leave activations in the denormal range, where Intel's processors take many times as long; the
    # pretrained weights that people train do not. Every arm alike.
    torch.set_flush_denormal(True)
    if options.threads:
        torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    autocast = {"bf16": torch.bfloat16, "fp16": torch.float16, None: None}[options.autocast]
    rows = []
    for mode in filter(None, options.modes.split(",")):
        print(
            f"\n{'training' if mode == 'train' else 'evaluation'} mode: ms per step (median), ratio to peft and to full"
        )
        ratios = []
        for net in options.nets.split(","):
            torch.manual_seed(0)
            base = timm.create_model(net, num_classes=2).to(options.device)
            x = torch.randn(options.batch, 3, 224, 224, device=options.device)
            y = torch.arange(options.batch, device=options.device) % 2
            found = arms(base, NETS[net], mode == "train", autocast, options.channels_last)
            times = measure(found, x, y, options.rounds)
            row = {"net": net, "mode": mode, **{n: 1e3 * statistics.median(t) for n, t in times.items()}}
            row |= {f"/{n}": ratio(times["medlora"], times[n]) for n in times if n not in ("medlora", LAST)}
            if LAST in times:
                row[f"{LAST}/medlora"] = ratio(times[LAST], times["medlora"])
            if options.memory and mode == "train":
                row |= {f"{n}_bytes": a.saved_bytes(x, y) for n, a in found.items()}
                thin = copy.deepcopy(base)
                kept = list(attach(thin, LoRAFA(rank=8, targets=paths(base, NETS[net]))).parameters())
                row["lora_fa_bytes"] = Arm(thin, kept, True, autocast).saved_bytes(x, y)
                frozen = copy.deepcopy(base).requires_grad_(False)
                row["limit_bytes"] = Arm(frozen, [], True, autocast).saved_bytes(x.clone().requires_grad_(True), y)
            rows.append(row)
            ratios.append(row["/peft"])
            print("  ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
        print(
            f"geometric mean /peft {math.exp(statistics.fmean(map(math.log, ratios))):.3f}, largest {max(ratios):.3f}"
        )
    if options.bank:
        print("\nseveral adapters on one base, evaluation mode: ms per switch, ratios")
        for net in options.nets.split(","):
            torch.manual_seed(0)
            base = timm.create_model(net, num_classes=2).to(options.device)
            x = torch.randn(options.batch, 3, 224, 224, device=options.device)
            row = {"net": net, "mode": "bank", **bank(base, NETS[net], x, options.rounds)}
            rows.append(row)
            print("  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
