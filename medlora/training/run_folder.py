"""The folder of a run: made once, marked with how far it is, and taken up again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from medlora import adapters, files
from medlora.cohorts.labelling import labelling
from medlora.errors import MedloraError
from medlora.progress import log_to, say
from medlora.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from medlora.backbones import Backbone
    from medlora.training.cases import TrainingCases
    from medlora.training.config import Config


def is_done(folder: Path) -> bool:
    """Whether ``folder`` is a run that ended well."""
    status = folder / "STATUS"
    return status.is_file() and status.read_text(encoding="utf-8") == "done\n"


# What does not change the adapter that comes out, and may differ when a run is taken up again.
_FREE = {
    "train": {"device", "devices", "logger", "nodes", "num_workers", "timing"},
    "data": {"cohort", "cache", "cache_gb"},
    "evaluation": {"probe"},
}


def digest_of(config: Config, cases: TrainingCases, backbone: Backbone | None = None) -> str:
    """Of all that decides what the training gives; without the backbone's weights where that is not given."""
    settings = {
        name: {key: value for key, value in block.items() if key not in _FREE.get(name, ())}
        for name, block in config.model_dump(mode="json").items()
    }
    table = cases.table[["scan_id", *labelling(cases.table).columns, "split"]].to_csv(index=False)
    parts = [settings, table, None if backbone is None else adapters.fingerprint(backbone.model)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def checkpoint_in(folder: Path, digest: str) -> Checkpoint | None:
    """The state to go on from, or none, which is said."""
    after = Checkpoint.load(folder / "checkpoints")
    if after is None:
        say("nothing to resume: the training starts afresh")
        return None
    if after.settings != digest:
        raise MedloraError(
            f"the run in {folder} was started with other settings, cases or weights",
            f"resume it with its own: --config {folder / 'config.yaml'}; or train anew with --overwrite",
        )
    say(f"resuming after epoch {len(after.history)}")
    return after


@contextmanager
def run_folder(folder: Path, overwrite: bool, resume: bool) -> Iterator[Path]:
    """Make a run folder whose STATUS says how far it is: running, then done, interrupted or failed.

    A request that fails before there is anything in it leaves none, so that it can be repeated, corrected.
    """
    if overwrite and files.holds_something(folder):
        if not (folder / "STATUS").is_file():
            raise MedloraError(f"{folder} is no run, so it is not overwritten", "choose another -o/--output")
        shutil.rmtree(folder)
    if not (resume and (folder / "STATUS").is_file()):
        files.refuse_existing(folder, "the run")
    fresh = not files.holds_something(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.cannot_write(folder, error) from error
    files.write_text(folder / "STATUS", "running\n")
    status: str | None = "failed\n"
    try:
        with log_to(folder / "log.txt"):
            yield folder
        status = "done\n"
    except KeyboardInterrupt:
        status = "interrupted\n"
        if (folder / "checkpoints").is_dir():
            say("interrupted; the same command with --resume goes on after the last finished epoch")
        raise
    except MedloraError as error:
        status = f"failed: {error.what}\n" if not fresh or _has_begun(folder) else None
        raise
    except OSError as error:
        raise (files.cannot_write(folder, error) if files.is_about(error, folder) else error) from error
    finally:
        shutil.rmtree(folder / "cache", ignore_errors=True)
        with suppress(OSError, MedloraError):  # a full disk must not hide what went wrong first
            if status is None:
                shutil.rmtree(folder)
            else:
                files.write_text(folder / "STATUS", status)


def _has_begun(folder: Path) -> bool:
    """Whether a run got so far that its folder tells more than the message of its end does."""
    return any(path.name not in ("STATUS", "log.txt", "cache") for path in folder.iterdir())
