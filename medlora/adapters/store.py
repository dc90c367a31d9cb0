"""The adapter's folder: adapter_config.json, adapter_model.safetensors, medlora.json and README.md.

The tensors are keyed as Hugging Face PEFT keys them, and where PEFT computes the same thing with them the folder loads
there too; where it would not (a part of a fused weight, a grouped or standardised convolution), medlora.json says why
and adapter_config.json names no PEFT type, so that PEFT refuses instead of ignoring tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from medlora._version import __version__
from medlora.adapters import fingerprinting, peft_format
from medlora.adapters.adapter import Adapter
from medlora.adapters.attaching import plan
from medlora.adapters.methods import Method
from medlora.adapters.sharding import require_whole
from medlora.adapters.targets import Target
from medlora.errors import MedloraError
from medlora.files import new_folder, write_json, write_text

FORMAT = 1
TENSORS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
INFO = "medlora.json"
LIMIT = 64 * 2**20  # bytes of a JSON file that are read


def save(
    adapter: Adapter, folder: str | os.PathLike[str], info: Mapping[str, Any] | None = None, card: str | None = None
) -> None:
    """Write ``adapter`` into a new or empty ``folder``, whole or not at all; the same adapter gives the same bytes.

    Args:
        adapter: an adapter in any state but detached.
        folder: where to write.
        info: the caller's entries of medlora.json (backbone, task, preprocessing, threshold, …), JSON values.
        card: the text of README.md; a short one is written if None.

    Raises:
        MedloraError: the folder holds something, an entry of ``info`` is taken, or is no JSON value, or the model is
            spread over processes.
    """
    if adapter.state == "detached":
        raise MedloraError("cannot save: the adapter is detached", "save before detach()")
    require_whole(adapter.model, "save")
    tensors = peft_format.to_file(adapter.state_dict())
    lines = fingerprinting.table(adapter.model, adapter.head or None)
    reasons = peft_format.obstacles(adapter)
    own: dict[str, Any] = {
        "format": FORMAT,
        "medlora": __version__,
        "method": adapter.method.to_dict(),
        "targets": [asdict(t) for t in adapter.targets],
        "head": list(adapter.head),
        "batchnorm": adapter.batchnorm,
        "peft": {"loads": not reasons, "because": reasons},
        "base": {
            "architecture": _architecture(adapter.model),
            "fingerprint": fingerprinting.of_table(lines),
            "tensors": lines,
        },
    }
    if taken := sorted(own.keys() & (info or {}).keys()):
        raise MedloraError(f"info uses the name {taken[0]!r}, which the adapter's own entry has", "choose another name")
    try:
        json.dumps(info or {})
    except (TypeError, ValueError) as error:
        raise MedloraError(f"info cannot be written as JSON: {error}") from error
    with new_folder(folder, "the adapter") as partial:
        save_file(tensors, partial / TENSORS, metadata={"format": "pt"})
        own["sha256"] = {TENSORS: hashlib.sha256((partial / TENSORS).read_bytes()).hexdigest()}
        write_json(partial / CONFIG, peft_format.config(adapter, reasons))
        write_json(partial / INFO, {**own, **(info or {})})
        write_text(partial / "README.md", card if card is not None else _card(adapter))


def read_info(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """medlora.json of an adapter's folder, after checking that the folder is whole.

    Raises:
        MedloraError: ``folder`` is no adapter, a file of it is missing or damaged, or its format is newer.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MedloraError(f"{folder} is no folder", "give the folder of an adapter")
    if not (folder / INFO).is_file():
        raise MedloraError(f"{folder} is no medlora adapter: it has no {INFO}", "give the folder that `save` wrote")
    info = _read_json(folder / INFO)
    if info.get("format") != FORMAT:
        raise MedloraError(
            f"{folder / INFO} has format {info.get('format')!r}; this medlora reads {FORMAT}", "update medlora"
        )
    shape = {"method": dict, "targets": list, "head": list, "base": dict, "batchnorm": str, "sha256": dict}
    for key, kind in shape.items():
        if not isinstance(info.get(key), kind):
            raise MedloraError(f"{folder / INFO} is damaged: {key!r} is missing or of the wrong kind", "copy it again")
    path = _inside(folder, TENSORS)
    if hashlib.sha256(path.read_bytes()).hexdigest() != info["sha256"].get(TENSORS):
        raise MedloraError(f"{path} is damaged, or was changed after it was saved", "copy the adapter again")
    return info


def load(model: nn.Module, folder: str | os.PathLike[str], override: bool = False) -> Adapter:
    """Attach the adapter in ``folder`` to ``model``.

    Args:
        model: the backbone that the adapter was trained on, with a head of the same shape.
        folder: what :meth:`Adapter.save` or PEFT wrote. PEFT keeps no fingerprint, so there only shapes are checked.
        override: attach even where the model's weights are not those that the adapter was trained on.

    Raises:
        MedloraError: the folder is damaged, or the model is another one; the message names the difference.
    """
    folder = Path(folder)
    if folder.is_dir() and not (folder / INFO).exists() and (folder / CONFIG).exists():
        config, read = _read_json(_inside(folder, CONFIG)), _read_tensors(_inside(folder, TENSORS))
        try:
            method, targets, head, batchnorm, tensors = peft_format.read(model, config, read)
        except MedloraError:
            raise
        except (TypeError, ValueError, AttributeError, re.error) as error:
            raise MedloraError(f"{folder / CONFIG} is damaged: {error}", "copy the adapter again") from error
        adapter = plan(model, method, targets, head, batchnorm)
        adapter.load_state_dict(adapter.state_dict() | tensors)
    else:
        info = read_info(folder)
        head = tuple(map(str, info["head"]))
        _check_base(model, info["base"], head, override)
        try:
            targets = [Target(**(t | {"rows": t["rows"] and tuple(t["rows"])})) for t in info["targets"]]
        except (TypeError, KeyError) as error:
            raise MedloraError(f"{folder / INFO} is damaged: targets ({error})", "copy the adapter again") from error
        _check_targets(model, targets, head)
        adapter = plan(model, Method.from_dict(info["method"]), targets, head, info["batchnorm"])
        adapter.load_state_dict(peft_format.from_file(_read_tensors(folder / TENSORS), adapter.named_tensors()))
    adapter._activate()
    return adapter


def _check_base(model: nn.Module, base: Mapping[str, Any], head: tuple[str, ...], override: bool) -> None:
    here = fingerprinting.table(model, head or None)
    if override or fingerprinting.of_table(here) == base.get("fingerprint"):
        return
    saved = base.get("tensors")
    words = fingerprinting.difference(saved, here) if isinstance(saved, dict) else "its fingerprint differs"
    raise MedloraError(
        f"the adapter was trained on another base ({base.get('architecture')}, here {_architecture(model)}): {words}",
        "load the backbone that the adapter names; override=True (--override) attaches it all the same",
    )


def _check_targets(model: nn.Module, targets: list[Target], head: tuple[str, ...]) -> None:
    modules = dict(model.named_modules())
    for path in (*head, *(t.path for t in targets)):
        if path not in modules:
            raise MedloraError(f"the model has no module {path!r}, which the adapter changes", "load another backbone")
    for target in targets:
        weight = modules[target.path]._parameters.get(target.name)
        stop = target.rows[1] if target.rows else 0
        if weight is None or weight.dim() < 2 or stop > weight.shape[0]:
            raise MedloraError(f"{target.path} has no weight {target.name!r} of the adapter's shape")


def _architecture(model: nn.Module) -> str:
    return (getattr(model, "pretrained_cfg", None) or {}).get("architecture") or type(model).__name__


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise MedloraError(f"{folder} has no {name}: the adapter is not whole", "copy it again")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise MedloraError(f"{path} is a link that leads out of the adapter's folder", "copy the file itself")
    return path


def _read_json(path: Path) -> dict[str, Any]:
    path = _inside(path.parent, path.name)
    if path.stat().st_size > LIMIT:
        raise MedloraError(f"{path} is too large to be an adapter's description", "copy the adapter again")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise MedloraError(f"{path} is damaged: {error}", "copy the adapter again") from error
    if not isinstance(value, dict):
        raise MedloraError(f"{path} is damaged: it holds no object", "copy the adapter again")
    return value


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError, torch.cuda.OutOfMemoryError) as error:
        raise MedloraError(f"{path} is damaged: {error}", "copy the adapter again") from error


def _card(adapter: Adapter) -> str:
    return (
        f"# Adapter for {_architecture(adapter.model)}\n\n"
        "A small trained part for a frozen backbone, written by medlora. Load it with `medlora.adapters.load`.\n\n"
        f"```\n{adapter.summary()}\n```\n"
    )
