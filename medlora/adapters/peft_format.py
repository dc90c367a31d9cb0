"""Hugging Face PEFT's adapter format: its keys, its configuration, and where its arithmetic is not ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from medlora.adapters.adapter import Adapter
from medlora.adapters.derive import plain_class
from medlora.adapters.head import within
from medlora.adapters.methods import DoRA, LoRA, Method
from medlora.adapters.roles import weights
from medlora.adapters.targets import Target, setting
from medlora.errors import MedloraError

PREFIX = "base_model.model."
PLAIN = {  # what PEFT's options must be for its arithmetic to be W + s·B·A on the base as it is
    "bias": ("none",),
    "lora_bias": (False,),
    "fan_in_fan_out": (False,),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),  # others (pissa, olora, …) change the base
    **dict.fromkeys(("use_qalora", "use_bdlora"), (False, None)),
    **dict.fromkeys(
        ("alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication", "monteclora_config"), (None,)
    ),
}
STOCK = tuple(kind.forward for kind in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))


def to_file(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under PEFT's keys; B of a convolution as a 1×1 kernel, a length vector of one as (1, out, 1, …)."""
    kernels = {k.removesuffix("lora_A.weight"): t.dim() - 2 for k, t in tensors.items() if k.endswith("lora_A.weight")}
    out = {}
    for key, value in tensors.items():
        tensor = value
        space = kernels.get(re.sub(r"lora_B\.weight$|lora_magnitude_vector$", "", key), 0)
        if space and key.endswith("lora_B.weight"):
            tensor = tensor.reshape(*tensor.shape, *[1] * space)
        elif space and key.endswith("lora_magnitude_vector"):
            tensor = tensor.reshape(1, -1, *[1] * space)
        out[PREFIX + key] = tensor.detach().cpu().contiguous().clone()
    return out


def from_file(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`to_file`, shapes taken from ``own`` where only ones are in the way."""
    out = {}
    for key, value in tensors.items():
        tensor = value
        name = key.removeprefix(PREFIX)
        if name in own and tensor.numel() == own[name].numel() and "lora_" in name:
            tensor = tensor.reshape(own[name].shape)
        out[name] = tensor
    return out


def obstacles(adapter: Adapter) -> list[str]:
    """Why PEFT would not compute the same with the saved tensors; empty where it would."""
    method = adapter.method
    if not isinstance(method, LoRA):
        return [f"PEFT has no form for the method {method.name!r}"]
    modules = dict(adapter.model.named_modules())
    reasons: dict[str, str] = {}
    for target in adapter.targets:
        module = modules[target.path]
        if target.part:
            reason = "a part of a fused weight is updated"
        elif target.name != "weight" or _own_forward(module) not in STOCK:
            reason = f"{plain_class(module).__name__} computes with its weight in its own way"
        elif target.path in adapter.read_elsewhere:
            reason = "the model reads the weight without calling the module"
        elif isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1:
            reason = "the convolution is grouped"
        elif isinstance(module, nn.modules.conv._ConvNd) and (
            module.padding_mode != "zeros" or isinstance(module.padding, str) or any(d > 1 for d in module.dilation)
        ):
            reason = "PEFT drops the padding mode and dilation of the convolution"
        else:
            continue
        reasons.setdefault(reason, target.path)
    return [f"{reason} (first: {path})" for reason, path in reasons.items()]


def _own_forward(module: nn.Module) -> Any:
    """The forward function of the user's class."""
    return getattr(plain_class(module), "forward", None)


def config(adapter: Adapter, reasons: list[str]) -> dict[str, Any]:
    """adapter_config.json: PEFT's LoraConfig, or a type that PEFT does not know where it must not load the file."""
    method = adapter.method
    if reasons or not isinstance(method, LoRA):
        return {"peft_type": f"MEDLORA_{method.name.upper()}", "inference_mode": True, "see": "medlora.json"}
    paths = [t.path for t in adapter.targets]
    ranks = {t.path: setting(t, method.rank, method.rank_for) for t in adapter.targets}
    alphas = {t.path: setting(t, method.alpha, method.alpha_for) for t in adapter.targets}
    longest_first = sorted(paths, key=lambda p: (-len(p), p))  # PEFT takes the first key that ends the path
    adapting = {o.key.rpartition(".")[0] for o in adapter._owned} - set(adapter.head)
    return {
        "alpha_pattern": {re.escape(p): alphas[p] for p in longest_first} if method.alpha_for else {},
        "auto_mapping": None,
        "base_model_name_or_path": None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": method.alpha,
        "lora_dropout": 0.0,
        "modules_to_save": [*adapter.head, *sorted(p for p in adapting if not within(p, adapter.head))] or None,
        "peft_type": "LORA",
        "r": method.rank,
        "rank_pattern": {re.escape(p): ranks[p] for p in longest_first} if method.rank_for else {},
        "target_modules": "^(" + "|".join(re.escape(p) for p in paths) + ")$",
        "task_type": None,
        "use_dora": isinstance(method, DoRA),
        "use_rslora": method.rslora,
    }


def read(
    model: nn.Module, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[Method, list[Target], tuple[str, ...], str, dict[str, Tensor]]:
    """Method, targets, head, batch norm policy and tensors of a folder that PEFT wrote.

    Raises:
        MedloraError: it is no LoRA or DoRA, or holds tensors that the model has no place for.
    """
    if config.get("peft_type") != "LORA":
        raise MedloraError(f"the PEFT type {config.get('peft_type')!r} is not read here", "only LORA (with DoRA) is")
    for key, allowed in PLAIN.items():
        if config.get(key, allowed[0]) not in allowed:
            raise MedloraError(f"PEFT's {key}={config[key]!r} is not read here", f"only {key}={allowed[0]!r} is")
    names = {key.removeprefix(PREFIX): tensor for key, tensor in tensors.items()}
    ranks = {k.removesuffix(".lora_A.weight"): t.shape[0] for k, t in names.items() if k.endswith(".lora_A.weight")}
    known = {w.path: w for w in weights(model, ())}
    if not ranks:
        raise MedloraError("the PEFT folder holds no lora_A tensor")
    for path in ranks:
        if path not in known or known[path].name != "weight":
            raise MedloraError(
                f"the model has no linear layer or convolution {path!r}", "load the model it was made for"
            )
    targets = [Target(path, "weight", w.role) for path, w in known.items() if path in ranks]
    patterns = config.get("alpha_pattern") or {}
    alphas = {p: next((a for k, a in patterns.items() if re.match(rf"(.*\.)?({k})$", p)), None) for p in ranks}
    method = (DoRA if config.get("use_dora") else LoRA)(
        rank=int(config.get("r", 8)),
        alpha=config.get("lora_alpha", 8),
        targets=tuple(t.path for t in targets),
        rslora=bool(config.get("use_rslora")),
        rank_for={p: r for p, r in ranks.items() if r != config.get("r", 8)},
        alpha_for={p: a for p, a in alphas.items() if a is not None},
    )
    saved = [k for k in names if not re.search(r"\.lora_(A\.weight|B\.weight|magnitude_vector)$", k)]
    modules = dict(model.named_modules())
    head = tuple(dict.fromkeys(k.rpartition(".")[0] for k in saved))
    for key in saved:
        path, _, name = key.rpartition(".")
        if path not in modules or (name not in modules[path]._parameters and name not in modules[path]._buffers):
            raise MedloraError(f"the model has no place for the saved tensor {key!r}")
    batchnorm = "adapt" if any(k.endswith("running_mean") for k in saved) else "frozen"
    shaped = {}
    for key, value in names.items():
        tensor = value
        path, _, suffix = key.partition(".lora_")
        if suffix.startswith("B"):
            tensor = tensor.flatten(1)
        elif suffix.startswith("magnitude"):
            tensor = tensor.flatten()
        shaped[key] = tensor
    return method, targets, head, batchnorm, shaped
