"""Which weight plays which part: every adaptable weight of a model, with its role, read from structure and names.

Convolutions are told apart by their shape; attention, mlp, squeeze-excite and stem by the names that timm, torchvision,
MONAI and torch itself give to modules and classes. The tables are here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from torch import nn

from medlora.adapters.head import head_paths, within

ROLES = (
    "attention.q",
    "attention.k",
    "attention.v",
    "attention.kv",
    "attention.qkv",
    "attention.out",
    "mlp",
    "conv.spatial",
    "conv.pointwise",
    "conv.depthwise",
    "squeeze_excite",
    "stem",
    "downsample",
    "position",
    "other",
)
GROUPS = {
    "attention": ("attention.q", "attention.k", "attention.v", "attention.kv", "attention.qkv", "attention.out"),
    "conv": ("conv.spatial", "conv.pointwise", "conv.depthwise"),
}

# The last part of a module's path, inside an attention module.
ATTENTION_NAMES = {
    "attention.qkv": r"qkv|qk|to_qkv|query_key_value|in_proj|qkv_proj|Wqkv|c_attn|qkvg",
    "attention.kv": r"kv|to_kv|kv_proj",
    "attention.q": r"q|query|to_q|to_query|q_proj|q_net|wq|q_linear|c_q",
    "attention.k": r"k|key|to_k|to_key|k_proj|wk|k_linear|c_k",
    "attention.v": r"v|value|to_v|to_value|v_proj|wv|v_linear|c_v",
    "attention.out": r"proj|out_proj|to_out|out|o_proj|output|project_out|c_proj|o|wo|projection|proj_out|final",
}
ATTENTION_CLASS = r"(?i)attn|attention|selfatt|mhsa|mhca|sablock|mqa|shsa|shma|^xca$|^gpsa$"
NOT_ATTENTION_CLASS = (
    r"(?i)^(cbam|eca|se|bat|gather|global_?context|channelattn|spatialattn|nonlocal|selectivekernel).*|"
    r".*(pool2d|attnmask)"
)
SQUEEZE_CLASS = (
    r"(?i)^(squeeze|se(module|layer|block|withnorm|cl|_?bottleneck_?gate)?$|effectivese|eca|ceca|cbam|lightcbam|"
    r"channelse|residualse|gather(excite)?|globalcontext$|channelattn|lightchannelattn|spatialattn|lightspatialattn|"
    r"splitattn|cecamodule|batnonlocal|selectivekernelattn)"
)
SQUEEZE_NAME = r"^(se|se_module|squeeze_excite|attn_se|se_block|eca)$"
MLP_CLASS = r"(?i)mlp|feedforward|^ffn|swiglu|geglu|^glu"
MLP_NAME = r"(fc\d?(_[gx])?|w\d+|linear\d|lin\d|mlp|ffn|ff|feed_forward|gate_proj|up_proj|down_proj|c_fc)$"
POSITION = (
    r"(^|\.)(cpb_mlp|rel_pos\w*|pos_embed\w*|pos_enc\w*|position\w*|pos|rpb\w*|rpe\w*|rel_bias\w*|peg|"
    r"pos_block\w*|rotary\w*)(\.|$)"
)
STEM = r"^(\w*\.)?(stem\w*|conv_stem|patch_embed\w*|patch_embedding\w*|init_conv|conv_init|first_conv|convInit)(\.|$)"
DOWNSAMPLE_CLASS = r"(?i)patchmerg|downsample|overlappatch|transition|convdownsampl"
# Fused weights whose rows alternate by head, not q | k | v (module and class): adapted whole, never sliced.
BY_HEAD = r"(?i)efficientformer|[.]levit[.]|tiny_vit|efficientvit|maxxvit|attention2d|haloattn|litemla"
# Fused weights with parts of other sizes than equal ones: the attributes that tell the rows of each part.
UNEQUAL: dict[str, dict[str, str | None]] = {
    "BottleneckAttn": {"q": "dim_out_qk", "k": "dim_out_qk", "v": "dim_out_v"},
    "SHSA": {"q": "qk_dim", "k": "qk_dim", "v": "pdim"},
    "LinearSelfAttention": {"q": None, "k": "embed_dim", "v": "embed_dim"},  # a single query row
}
KEY_HEADS = ("num_kv_heads", "num_key_value_heads", "n_kv_heads", "kv_heads")  # fewer than heads: grouped queries


@dataclass(frozen=True)
class Weight:
    """An adaptable weight: parameter ``name`` of the module at ``path``, with its role.

    ``parts`` are the row ranges of q, k, v (or k, v) in a fused weight, empty where there are none.
    """

    path: str
    name: str
    role: str
    shape: tuple[int, ...]
    parts: tuple[tuple[str, tuple[int, int]], ...] = ()


def weights(model: nn.Module, head: tuple[str, ...] | None = None) -> list[Weight]:
    """Every adaptable weight of ``model`` in the order of its modules, the classifier's left out."""
    heads = head_paths(model) if head is None else head
    modules = dict(model.named_modules())
    first = _first_convs(model)
    found = []
    for path, module in modules.items():
        if within(path, heads):
            continue
        for name in _adaptable(module):
            shape = tuple(module._parameters[name].shape)
            role = "stem" if path in first else _role(path, name, module, modules)
            found.append(Weight(path, name, role, shape, _parts(path, role, shape, modules)))
    return found


def roles(model: nn.Module) -> dict[str, str]:
    """The role of every adaptable module, by its path."""
    return {w.path: w.role for w in weights(model)}


def _first_convs(model: nn.Module) -> tuple[str, ...]:
    first = (getattr(model, "pretrained_cfg", None) or {}).get("first_conv") or ()
    return (first,) if isinstance(first, str) else tuple(first)


def _adaptable(module: nn.Module) -> Iterator[str]:
    owned = module._parameters
    if isinstance(module, nn.MultiheadAttention):
        names: tuple[str, ...] = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    elif isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) or hasattr(module, "out_channels"):
        names = ("weight",)
    else:
        names = ()
    for name in names:
        parameter = owned.get(name)
        if parameter is not None and not nn.parameter.is_lazy(parameter) and parameter.dim() >= 2:
            yield name


def _paths_above(path: str) -> list[str]:
    """The paths of the modules that hold the one at ``path``, the nearest first."""
    parts = path.split(".")
    return [".".join(parts[:end]) for end in range(len(parts) - 1, -1, -1)]


def _ancestors(path: str, modules: dict[str, nn.Module]) -> Iterator[tuple[str, str]]:
    """Name and class name of each module that holds the one at ``path``, the nearest first."""
    for above in _paths_above(path):
        yield above.rpartition(".")[2], type(modules[above]).__name__


def _role(path: str, name: str, module: nn.Module, modules: dict[str, nn.Module]) -> str:
    if re.search(POSITION, path):
        return "position"
    own = path.rpartition(".")[2]
    above = [(n, kind) for n, kind in _ancestors(path, modules)]
    near = above[:3]
    if re.search(STEM, path):
        return "stem"
    if isinstance(module, nn.MultiheadAttention):
        return {"in": "attention.qkv", "q_": "attention.q", "k_": "attention.k", "v_": "attention.v"}[name[:2]]
    if any(re.match(SQUEEZE_CLASS, kind) or re.match(SQUEEZE_NAME, n) for n, kind in near[:2]):
        return "squeeze_excite"
    conv = isinstance(module, nn.modules.conv._ConvNd) or hasattr(module, "out_channels")
    depthwise = conv and 1 < module.groups == module.in_channels  # type: ignore[operator]
    if not depthwise:
        role = _attention_role(own, near)
        if role:
            return role
        if any(re.search(MLP_CLASS, kind) or re.fullmatch(MLP_NAME, n) for n, kind in near[:2] if n != ""):
            return "mlp"
    if conv:
        return _conv_role(module, near)
    if re.fullmatch(MLP_NAME, own):
        return "mlp"
    if any(re.search(DOWNSAMPLE_CLASS, kind) for _, kind in near[:2]):
        return "downsample"
    return "other"


def _attention_role(own: str, near: list[tuple[str, str]]) -> str | None:
    """The role in the nearest attention module; containers between (``to_out.0``, ``key.proj``) may carry the name."""
    for depth, (_, kind) in enumerate(near):
        if re.search(ATTENTION_CLASS, kind) and not re.match(NOT_ATTENTION_CLASS, kind):
            for name in [*[n for n, _ in near[:depth]][::-1], own]:
                for role, names in ATTENTION_NAMES.items():
                    if re.fullmatch(names, name):
                        return role
            return None
    return None


def _conv_role(module: nn.Module, near: list[tuple[str, str]]) -> str:
    kernel, stride = tuple(module.kernel_size), tuple(module.stride)  # type: ignore[arg-type]
    if 1 < module.groups == module.in_channels:  # type: ignore[operator]
        return "conv.depthwise"
    if all(k == 1 for k in kernel):
        return "conv.pointwise"
    transposed = getattr(module, "transposed", False)
    if kernel == stride and not transposed:  # patches merged without overlap, as in ConvNeXt
        return "downsample"
    return "conv.spatial"


def _parts(
    path: str, role: str, shape: tuple[int, ...], modules: dict[str, nn.Module]
) -> tuple[tuple[str, tuple[int, int]], ...]:
    """Row ranges of q, k and v in a fused weight; none where its rows are not known to lie so."""
    if role not in ("attention.qkv", "attention.kv"):
        return ()
    holders = [modules[path], *(modules[p] for p in _paths_above(path)[:2])]
    if any(re.search(BY_HEAD, f"{type(m).__module__}.{type(m).__name__}") for m in holders):
        return ()
    names: tuple[str, ...] = ("q", "k", "v") if role == "attention.qkv" else ("k", "v")
    if path.endswith("qk"):
        names = ("q", "k")
    sizes = [shape[0] // len(names)] * len(names)
    for holder in holders:
        if type(holder).__name__ == "WindowAttentionGlobal" and holder.use_global:  # GCViT's q comes from elsewhere
            names, sizes = ("k", "v"), [shape[0] // 2] * 2
        elif type(holder).__name__ in UNEQUAL:
            attributes = UNEQUAL[type(holder).__name__]
            sizes = [getattr(holder, attribute) if (attribute := attributes[n]) else 1 for n in names]
        elif key_heads := _key_heads(holder):
            heads: dict[str, Any] = {"q": holder.num_heads, "k": key_heads, "v": key_heads}
            total = sum(heads[n] for n in names)
            sizes = [heads[n] * shape[0] // total for n in names]
    if sum(sizes) != shape[0]:
        return ()
    stops = list(accumulate(sizes))
    return tuple((n, (stop - size, stop)) for n, size, stop in zip(names, sizes, stops, strict=True))


def _key_heads(attention: Any) -> int | None:
    """The number of heads of k and v where it is told apart from that of q."""
    return next((getattr(attention, n) for n in KEY_HEADS if getattr(attention, n, None)), None)
