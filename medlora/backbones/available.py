"""Which backbones can be used right now, without any network call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medlora.backbones.embedded import EMBEDDED


@dataclass(frozen=True)
class Available:
    """A backbone whose weights lie on this machine."""

    name: str
    source: str
    licence: str
    megabytes: float


def available() -> list[Available]:
    """The embedded backbones, and every timm model whose weights lie in the hub's cache."""
    found = []
    for backbone in EMBEDDED.values():
        file = backbone.weights_file()
        if file.is_file():
            found.append(Available(backbone.name, "embedded", backbone.licence, file.stat().st_size / 1e6))
    return found + _in_hub_cache()


def cached_weights(name: str) -> Path | None:
    """The file of timm's weights for ``name`` in the hub's cache, or none. Makes no network call."""
    from huggingface_hub import try_to_load_from_cache
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return None
    repository = config.hf_hub_id.split("@")[0]
    if repository.endswith("/"):  # older timm names only the owner
        repository += f"{config.architecture}.{config.tag}"
    chosen = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    for filename in chosen:
        found = try_to_load_from_cache(repository, filename)
        if isinstance(found, str):
            return Path(found)
    return None


def _in_hub_cache() -> list[Available]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound
    from timm.models import get_pretrained_cfg, is_model

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    found = []
    for repository in repositories:
        owner, _, name = repository.repo_id.partition("/")
        if owner != "timm" or not is_model(name.split(".")[0]) or cached_weights(name) is None:
            continue
        config = get_pretrained_cfg(name)
        licence = (config.license if config is not None else None) or "unknown"
        found.append(Available(name, "hub cache", licence, repository.size_on_disk / 1e6))
    return sorted(found, key=lambda item: item.name)
