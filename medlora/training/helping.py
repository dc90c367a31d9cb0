"""What a helper does in a training of several processes: build the same network, and take its part of each step."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from medlora import adapters, backbones, transforms
from medlora.errors import MedloraError
from medlora.progress import quiet
from medlora.training import allocator, engine
from medlora.training.checkpoint import Checkpoint
from medlora.training.config import Config
from medlora.training.methods import method_of
from medlora.training.prefix import find_prefix
from medlora.training.prepared import PreparedImages
from medlora.training.processes import Member
from medlora.training.task import task_from


@dataclass(frozen=True)
class Job:
    """All that a helper needs, as plain values; images and features are read from the first process's files.

    Attributes:
        config: settings, all resolved.
        preset: of the images.
        fingerprint: of the frozen base.
        files: split → file of its prepared images.
        labels: split → targets.
        names: scan_ids of the training images.
        task: what is asked.
        folder: of the run.
        digest: of all that decides the training.
        features: file of what the frozen prefix gave; none: the whole network is computed.
        step: bytes that a step takes.
        resume: whether to go on from the checkpoint in ``folder``.
    """

    config: dict[str, Any]
    preset: dict[str, Any]
    fingerprint: str
    files: dict[str, str]
    labels: dict[str, list[Any]]
    names: list[str]
    task: dict[str, Any]
    folder: str
    digest: str
    features: str | None
    step: int
    resume: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def work(member: Member) -> None:
    """Wait for the first process's job, and train with it.

    Raises:
        MedloraError: the first process failed, or the weights here are not its own.
    """
    job = Job(**member.receive())
    config, task = Config.model_validate(job.config), task_from(job.task)
    backbone = backbones.create(
        config.model.backbone,
        config.model.weights,
        num_classes=len(task.classes),
        image_size=config.data.image_size,
        seed=config.train.seed,
    )
    model = backbone.model
    if adapters.fingerprint(model) != job.fingerprint:
        raise MedloraError(
            f"process {member.rank + 1} has other weights of {backbone.name} than the first one",
            "give all machines the same file by --weights",
        )
    # Trained tensors get their values from the first process when the training begins.
    adapter = adapters.attach(model, method_of(config), batchnorm=config.adapter.batchnorm or "frozen")
    preset = transforms.preset_from(job.preset)
    images = {
        split: PreparedImages(Path(file), torch.tensor(job.labels[split]), preset) for split, file in job.files.items()
    }
    cached = None
    if job.features is not None:
        prefix = find_prefix(model, preset.normalise(images["train"][0][0][None]))
        if isinstance(prefix, str):
            raise MedloraError(f"process {member.rank + 1} cannot cut the network: {prefix}", "set prefix_views=0")
        cached = engine.CachedPrefix(prefix, np.load(job.features, mmap_mode="r", allow_pickle=False))
    after = Checkpoint.load(Path(job.folder) / "checkpoints") if job.resume else None
    member.store.set(f"ready/{member.rank}", "")
    with allocator.told(job.step):
        engine.fit(
            model,
            adapter,
            preset,
            images["train"],
            images["tune"],
            task,
            config.train,
            Path(job.folder),
            job.names,
            cached,
            job.digest,
            after,
            member,
        )


def main(store: str, rank: int, world: int) -> int:
    """A helper that the first process has started; its exit code."""
    quiet()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the first one decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    member = Member(rank, world, rank, 1, dist.FileStore(store, world))
    try:
        work(member)
    except MedloraError as error:
        said = {"what": error.what, "fix": error.fix}
        code = 2
    except BaseException:
        said = {"traceback": traceback.format_exc()}
        code = 3
    else:
        return 0
    member.store.set(f"failed/{rank}", json.dumps(said))
    return code


def _end_with_parent() -> None:
    """The first process holds the other end of standard input: it is closed when that ends, even by kill -9."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
