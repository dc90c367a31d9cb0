"""Several processes that train together: one for each device, all steps in common, gradients averaged.

The first process is the ordinary training: it reads scans, fills caches, writes the run folder and speaks. The others,
its helpers, only take their part of each batch (:mod:`medlora.training.helping`). On one machine the first process
starts them itself, as plain child processes, so that it works from the command line, from a script without a
``__main__`` guard and from Jupyter, on every system. On several machines torchrun or SLURM's srun starts all of them
with the same command; the run folder must then lie on a disk that all machines share.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment

from medlora.errors import MedloraError

if TYPE_CHECKING:
    from medlora.training.config import Train

_LONG = timedelta(days=7)  # helpers wait while the first process prepares the images
_SOON = timedelta(seconds=60)
_FOLLOWING = "medlora.training.helping"


@dataclass(frozen=True)
class Member:
    """One of the processes that train together.

    Attributes:
        rank: its number, 0 for the first.
        world: how many there are.
        local_rank: its number on its machine, and so that of its GPU.
        nodes: machines.
        store: what the processes share before they are connected.
    """

    rank: int
    world: int
    local_rank: int
    nodes: int
    store: dist.Store = field(repr=False)

    @property
    def devices(self) -> int:
        """Processes on each machine."""
        return self.world // self.nodes

    def publish(self, job: dict[str, Any] | None) -> None:
        """Tell the helpers what to do; none: nothing, since the first process has failed."""
        self.store.set("job", json.dumps(job))

    def receive(self) -> dict[str, Any]:
        """What the first process has published.

        Raises:
            MedloraError: it has failed.
        """
        self.store.wait(["job"], _LONG)
        job = json.loads(self.store.get("job"))
        if job is None:
            raise MedloraError("the first process ended before the training began", "see its message")
        return job

    def end(self, well: bool) -> None:
        """Let the helpers go, once the run folder is complete or the first process has failed."""
        self.store.set("ended", json.dumps(well))
        with suppress(RuntimeError):  # this process may hold the store: it stays until all have read it
            self.store.wait([f"left/{rank}" for rank in range(1, self.world)], _SOON)

    def wait_for_end(self) -> None:
        """Wait until the first process has completed the run folder.

        Raises:
            MedloraError: it has failed.
        """
        self.store.wait(["ended"], _LONG)
        well = json.loads(self.store.get("ended"))
        self.store.set(f"left/{self.rank}", "")
        if not well:
            raise MedloraError("the first process ended before the run was complete", "see its message")

    @contextmanager
    def connected(self, device: torch.device) -> Iterator[None]:
        """Within the block the processes exchange tensors: by NCCL between GPUs, else by gloo."""
        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, threads // self.devices))
        backend = "nccl" if device.type == "cuda" else "gloo"
        with _loopback() if self.nodes == 1 else nullcontext():
            dist.init_process_group(
                backend, store=dist.PrefixStore("group", self.store), rank=self.rank, world_size=self.world
            )
        try:
            yield
        finally:
            dist.destroy_process_group()
            torch.set_num_threads(threads)


class Together(ClusterEnvironment):
    """What Lightning asks about a process that is connected already."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.member = member

    @property
    def creates_processes_externally(self) -> bool:
        """Lightning starts no processes."""
        return True

    @property
    def main_address(self) -> str:
        """Not asked for: the processes are connected."""
        raise NotImplementedError

    @property
    def main_port(self) -> int:
        """Not asked for: the processes are connected."""
        raise NotImplementedError

    @staticmethod
    def detect() -> bool:
        """Never chosen by Lightning itself."""
        return False

    def world_size(self) -> int:
        """How many processes there are."""
        return self.member.world

    def set_world_size(self, size: int) -> None:
        """Fixed already."""

    def global_rank(self) -> int:
        """Number of this process."""
        return self.member.rank

    def set_global_rank(self, rank: int) -> None:
        """Fixed already."""

    def local_rank(self) -> int:
        """Its number on this machine."""
        return self.member.local_rank

    def node_rank(self) -> int:
        """Number of this machine."""
        return self.member.rank // self.member.devices


def rank() -> int:
    """Number of this process among those that torchrun or srun has started; 0 where it was started alone."""
    environment = _environment()
    return 0 if environment is None else environment.global_rank()


def launched(settings: Train) -> Member | None:
    """This process among those that torchrun or srun has started; none where it was started alone.

    Raises:
        MedloraError: there are more or fewer of them than ``settings`` name.
    """
    asked = settings.devices * settings.nodes
    environment = _environment()
    count = environment.world_size() if environment is not None else 1
    if count == 1 or environment is None:
        if settings.nodes > 1:
            raise MedloraError(
                f"train.nodes={settings.nodes}, but this process was started alone",
                "start one process for each device on every machine, with torchrun or srun",
            )
        return None
    if count != asked:
        raise MedloraError(
            f"{count} processes were started, but {settings.devices} devices on {settings.nodes} machines are asked "
            "for",
            "let --devices times --nodes be the number of processes",
        )
    rank = environment.global_rank()
    where = f"tcp://{environment.main_address}:{environment.main_port}?rank={rank}&world_size={count}"
    store, _, _ = next(dist.rendezvous(where))
    return Member(rank, count, environment.local_rank(), settings.nodes, store)


def _environment() -> ClusterEnvironment | None:
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:  # set by srun, not by sbatch
        return SLURMEnvironment(auto_requeue=False)
    return None


@contextmanager
def helped(member: Member | None, settings: Train, job: dict[str, Any], folder: Path) -> Iterator[Member | None]:
    """Within the block the helpers work on ``job``; all have ended after it, however it ends.

    Args:
        member: this process, the first, where a launcher has started all; else it starts the others itself.
        settings: of the ``train`` block.
        job: for the helpers.
        folder: for what they share; it exists.

    Yields:
        This process among them; none where one process is all that is asked for.

    Raises:
        MedloraError: a helper failed; with its reason.
    """
    world = settings.devices * settings.nodes
    if world == 1:
        yield None
        return
    _check(settings)
    shared = Path(tempfile.mkdtemp(prefix="processes-", dir=folder))
    children: list[subprocess.Popen[bytes]] = []
    if member is None:
        member = Member(0, world, 0, 1, dist.FileStore(str(shared / "store"), world))
        children = [_start(rank, world, shared) for rank in range(1, world)]
    try:
        member.publish(job)
        _wait_until_ready(member, children)
        try:
            yield member
        except RuntimeError as error:  # gloo's, where the other end of a connection has gone
            _raise_reason(member, children, shared)
            raise error
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(60)
    finally:
        for child in children:
            assert child.stdin is not None
            child.stdin.close()  # the sign for a helper to end
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _check(settings: Train) -> None:
    from medlora.training.device import pick_device

    world, device = settings.devices * settings.nodes, pick_device(settings.device)
    if not dist.is_available():
        raise MedloraError("this torch cannot train in several processes", "train with --devices 1")
    if device.type == "mps" or (device.type == "cuda" and settings.devices > torch.cuda.device_count()):
        there = torch.cuda.device_count() if device.type == "cuda" else 1
        raise MedloraError(
            f"train.devices={settings.devices}, but this machine has {there} of {device.type}",
            f"lower --devices to {there}, or use --device cpu",
        )
    if settings.batch < world:
        raise MedloraError(
            f"a batch of {settings.batch} cannot be shared by {world} processes",
            "raise --batch-size: it counts the cases of all processes together",
        )


def _start(rank: int, world: int, shared: Path) -> subprocess.Popen[bytes]:
    with (shared / f"errors-{rank}.txt").open("wb") as errors:
        words = [sys.executable, "-m", _FOLLOWING, str(shared / "store"), str(rank), str(world)]
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors)  # noqa: S603


def _wait_until_ready(member: Member, children: list[subprocess.Popen[bytes]]) -> None:
    keys = [f"ready/{rank}" for rank in range(1, member.world)]
    if not children:
        member.store.wait(keys, _LONG)
    while not member.store.check(keys):
        if any(child.poll() is not None for child in children):
            _raise_reason(member, children, None)
        time.sleep(0.05)


def _raise_reason(member: Member, children: list[subprocess.Popen[bytes]], shared: Path | None) -> None:
    """Raise what a helper said of its end, or that one was killed; nothing where all are well."""
    deadline = time.monotonic() + 5
    while children and all(child.poll() is None for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)  # a connection breaks a moment before its process has ended
    for rank, child in enumerate(children, 1):
        if (code := child.poll()) is not None and code not in (0, *_SAID):
            raise MedloraError(
                f"process {rank + 1} of {member.world} ended unexpectedly ({_ending(code)})",
                "where memory may have run out, lower --devices or --batch-size; --resume goes on after the last epoch",
            )
    for rank in range(1, member.world):
        if member.store.check([f"failed/{rank}"]):
            said = json.loads(member.store.get(f"failed/{rank}"))
            if said.get("traceback"):
                raise RuntimeError(f"process {rank + 1} of {member.world} failed:\n{said['traceback']}")
            raise MedloraError(said["what"], said["fix"])


_SAID = (2, 3)  # exit codes of a helper that said what was wrong


def _ending(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


@contextmanager
def _loopback() -> Iterator[None]:
    """Processes of one machine talk over its loopback interface, whatever its name resolves to; gloo's only switch."""
    name = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    if name is None or "GLOO_SOCKET_IFNAME" in os.environ:
        yield
        return
    os.environ["GLOO_SOCKET_IFNAME"] = name
    try:
        yield
    finally:
        del os.environ["GLOO_SOCKET_IFNAME"]
