"""Build a timm model with pretrained weights: embedded, from the hub's cache, from the hub, or from a file."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from medlora.backbones.embedded import DEFAULT, EMBEDDED
from medlora.backbones.weights import file_sha256, read_state_dict
from medlora.errors import MedloraError

if TYPE_CHECKING:
    from torch import nn

RANDOM = "random"


@dataclass
class Backbone:
    """A timm model and where its weights come from.

    Attributes:
        model: the network, in evaluation mode; input (N, in_chans, H, W), output logits (N, num_classes).
        name: timm's name of it, with the tag of its weights where one was given.
        source: ``embedded``, ``hub``, ``file`` or ``random``.
        sha256: of the weights file (``file`` and ``embedded``), else none.
        licence: as timm's ``pretrained_cfg`` states it, else ``unknown``.
        trained_on: what the weights were trained on, as far as it is known.
        input_size: (height, width) that the weights were trained at, or that was asked for.
        mean, std: normalisation, one figure for each channel, of intensities scaled to 0…1.
    """

    model: nn.Module
    name: str
    source: str
    sha256: str | None
    licence: str
    trained_on: str
    input_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def in_chans(self) -> int:
        """Number of input channels."""
        return len(self.mean)

    def describe(self) -> dict[str, Any]:
        """What is written into a run and an adapter: everything but the network; no path."""
        return {
            "name": self.name,
            "source": self.source,
            "sha256": self.sha256,
            "licence": self.licence,
            "trained_on": self.trained_on,
            "input_size": list(self.input_size),
            "mean": list(self.mean),
            "std": list(self.std),
        }


def create(
    name: str = DEFAULT,
    weights: str | Path | None = None,
    num_classes: int = 0,
    image_size: int | None = None,
    seed: int = 0,
) -> Backbone:
    """Build a backbone with a fresh classifier.

    Args:
        name: a timm model, with or without the tag of its weights (``vit_small_patch16_224.augreg_in21k``).
        weights: none for the weights that belong to the name (embedded, or timm's from the hub's cache or the hub);
            a path for a local file (safetensors or a PyTorch state dict); the word ``random`` for none at all.
        num_classes: outputs of the fresh classifier; 0 for none (pooled features).
        image_size: side in pixels, where it is not the one of the weights; position embeddings are resampled.
        seed: of the fresh classifier, and of all weights where they are random.

    Raises:
        MedloraError: the name is unknown, or the weights cannot be had or do not fit.
    """
    import timm
    import torch
    from timm.models import get_pretrained_cfg, is_model

    from medlora.backbones import hybrid  # noqa: F401  (registers its network with timm)

    architecture = name.partition(".")[0]
    if not is_model(architecture):
        raise MedloraError(f"unknown backbone {name!r}{_nearest(architecture)}", "choose a timm model name")
    try:
        config = get_pretrained_cfg(name)
    except RuntimeError:
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
        raise MedloraError(
            f"timm knows no weights {name.partition('.')[2]!r} of {architecture}",
            f"choose one of: {', '.join(tags)}",
        ) from None
    options: dict[str, Any] = {}
    if image_size is not None and config is not None and config.fixed_input_size:
        options["img_size"] = image_size

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        source, sha256 = _source_of(name, weights)
        if source == RANDOM:
            model = timm.create_model(name, pretrained=False, **options)
        elif source == "hub":
            model = _from_hub(name, options)
        elif source == "embedded":
            model = timm.create_model(name, pretrained=False, **options)
            model.load_state_dict(EMBEDDED[name].state_dict())
        else:
            model = _with_tensors(name, Path(str(weights)), options)
        model.reset_classifier(num_classes)  # type: ignore[operator]
    own = cast("dict[str, Any]", model.pretrained_cfg)
    side = image_size or own["input_size"][-1]
    return Backbone(
        model=model.eval(),
        name=name,
        source=source,
        sha256=sha256,
        licence=EMBEDDED[name].licence if source == "embedded" else _licence(own, source),
        trained_on=EMBEDDED[name].trained_on if source == "embedded" else _trained_on(own, source),
        input_size=(side, side),
        mean=tuple(own["mean"]),
        std=tuple(own["std"]),
    )


def training_side(backbone: Backbone) -> int:
    """Side of the image, in pixels, that training prepares where nothing else is asked for.

    The same for random weights of a net as for those that come with medlora: the two are there to be compared.
    """
    embedded = backbone.source in ("embedded", RANDOM) and backbone.name in EMBEDDED
    return EMBEDDED[backbone.name].side if embedded else backbone.input_size[-1]


def _source_of(name: str, weights: str | Path | None) -> tuple[str, str | None]:
    if weights is None:
        return ("embedded", EMBEDDED[name].sha256) if name in EMBEDDED else ("hub", None)
    if str(weights) == RANDOM:
        return RANDOM, None
    path = Path(weights)
    if not path.is_file():
        raise MedloraError(f"no weights file at {path}", "check the path given to --weights")
    return "file", file_sha256(path)


def _with_tensors(name: str, path: Path, options: dict[str, Any]) -> nn.Module:
    """Load the file strictly, through timm's own conversion of names and position embeddings."""
    import timm
    from timm.models import get_pretrained_cfg

    tensors = read_state_dict(path)
    config = get_pretrained_cfg(name)
    classifier = config.classifier if config is not None else None
    first = classifier if isinstance(classifier, str) or classifier is None else classifier[0]
    head = tensors.get(f"{first}.weight")
    classes = 0 if head is None else int(head.shape[0])
    try:
        return timm.create_model(
            name,
            pretrained=True,
            num_classes=classes,
            pretrained_cfg_overlay={"state_dict": tensors, "num_classes": classes, "custom_load": False},
            **options,
        )
    except (RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise MedloraError(
            f"the weights in {path} do not fit {name}: {reason[:400]}{'…' if len(reason) > 400 else ''}",
            "give --backbone the timm name that these weights were made with",
        ) from error


def _from_hub(name: str, options: dict[str, Any]) -> nn.Module:
    """timm's own weights: from the hub's cache without a network call where they lie there, else from the hub."""
    import timm
    from timm.models import get_pretrained_cfg

    from medlora.backbones.available import cached_weights

    config = get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise MedloraError(
            f"timm publishes no weights for {name}",
            f"add --weights FILE with weights for it, or the word random to train from random weights; {_USABLE}",
        )
    cached = cached_weights(name)
    if cached is not None and config.custom_load != "hf":  # "hf": a format of the model's own
        return _with_tensors(name, cached, options)
    try:
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:
        raise MedloraError(
            f"the weights of {name} are not on this machine and cannot be fetched from the model hub "
            f"({type(error).__name__})",
            "one of: allow this machine to reach the hub; copy its cache folder from a machine that has the weights; "
            "give a file with --weights FILE (safetensors or a PyTorch state dict); leave --backbone out to use "
            f"{DEFAULT}, which needs no network; {_USABLE}",
        ) from error


_USABLE = "'medlora doctor' lists what can be used right now"


def _nearest(architecture: str) -> str:
    import timm

    near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.6)
    return f"; nearest: {', '.join(near)}" if near else ""


def _licence(config: dict[str, Any], source: str) -> str:
    if source == RANDOM:
        return "none (random weights)"
    if source == "file":
        return "unknown (weights from a file)"
    return str(config.get("license") or "unknown")


def _trained_on(config: dict[str, Any], source: str) -> str:
    if source == RANDOM:
        return "nothing (random weights)"
    if source == "file":
        return "unknown (weights from a file)"
    return f"unknown; timm's tag of the weights is {config.get('tag') or 'none'!r}"
