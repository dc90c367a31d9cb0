"""All settings of a run: one YAML in five blocks, each line explained; the command line comes before the file."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medlora.backbones.embedded import DEFAULT, EMBEDDED
from medlora.errors import MedloraError


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)


class Data(_Block):
    """Which cases, and how they are prepared."""

    cohort: str | None = Field(None, description="the cohort folder, as medlora check made it")
    classes: list[str] | None = Field(
        None,
        description="labels to tell apart, in order; the last is the positive one of two; or findings to answer for; "
        "none: all",
    )
    preset: str | None = Field(None, description="preparation of the scans; none: the one for the cohort's modality")
    image_size: int | None = Field(
        None,
        ge=32,
        le=2048,
        description="side of the prepared image in pixels; none: 112 for medlora-hybrid and 128 for "
        "tf_efficientnet_lite0, which are quick on a workstation; else the side that the weights were trained at",
    )
    extent: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="millimetres of the patient along a side of the prepared image, in the presets for nodules and "
        "ct-lung; none: the preset's own",
    )
    cache: str | None = Field(
        None,
        description="folder that keeps prepared scans, and what the frozen part of the network gives, for later runs; "
        "none: within the run, deleted at its end",
    )
    cache_gb: float = Field(20.0, ge=0, description="gigabytes that the frozen part's results may take of the disk")
    augment: float = Field(1.0, ge=0, le=3, description="strength of the random augmentation; 0 switches it off")


class Model(_Block):
    """The frozen backbone."""

    backbone: str = Field(DEFAULT, description="a timm model name, with or without a tag of weights")
    weights: str | None = Field(
        None, description="file with the backbone's weights; none: those that belong to the name; 'random': none at all"
    )


class Method(_Block):
    """What is trained."""

    method: Literal["lora", "dora", "lora_fa", "ssf", "bitfit", "norm", "probe", "full"] = Field(
        "lora",
        description="lora, dora, lora_fa: low-rank updates; ssf: scale, shift; bitfit: biases; norm: normalisations; "
        "probe: the head alone; full: every weight",
    )
    rank: int = Field(8, ge=1, le=1024, description="rank of each low-rank update; higher is more capable and larger")
    alpha: float = Field(64.0, gt=0, description="scale of the updates: each is multiplied by alpha / rank")
    targets: str | list[str] = Field("auto", description="roles, groups or module paths that get an update")
    last: str | int | list[int] | None = Field(
        None, description="only the last blocks get an update: a fraction (1/3) or block numbers; none: all"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="probability that an input feature of an update is left out")
    batchnorm: Literal["frozen", "adapt"] | None = Field(
        None,
        description="statistics of BatchNorm: frozen as pretrained, or adapt: they follow the data and are saved; "
        "none: frozen, but adapt where all weights are random",
    )


class Train(_Block):
    """How it is trained."""

    epochs: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="passes over the training cases; none: 6 for medlora-hybrid with its own weights, else 8",
    )
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | Literal["auto"] = Field(
        16,
        description="cases in a step, of all processes together; auto: the largest power of two up to 64 that fits "
        "into four fifths of the free memory and leaves ten steps in an epoch (8 at least, where it fits); the rate of "
        "learning does not follow it",
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="AdamW's highest learning rate, after warm-up; cosine to 0; none: 3e-4 for method full, else 1e-3",
    )
    weight_decay: float = Field(1e-2, ge=0, description="AdamW's weight decay on all that is trained")
    warmup: float = Field(0.1, ge=0, lt=1, description="part of all steps in which the learning rate rises")
    clip: float = Field(
        1.0, ge=0, description="largest norm of all gradients together; longer ones are shortened; 0: any"
    )
    accumulate: int = Field(1, ge=1, description="batches whose gradients are added up for one step of the optimizer")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field(
        "32-true", description="32-true, or mixed: half precision where it does no harm (bf16-mixed, 16-mixed on cuda)"
    )
    gradient_checkpointing: bool = Field(
        False, description="compute activations again in the backward pass: less memory, a third more time"
    )
    prefix_views: int = Field(
        4,
        ge=0,
        le=64,
        description="random views of each image for which the part of the network before its first trained weight is "
        "computed once and kept, where that part is worth it; 0: all of the network in each step",
    )
    keep: Literal["last", "best"] | None = Field(
        None,
        description="the epoch whose adapter is kept: the last, when the learning rate has come down to 0, or the best "
        "by AUC on the tune split, a noisy choice where that is small; none: last, but best where patience is set",
    )
    patience: int | None = Field(
        None, ge=1, description="stop after so many epochs without a better AUC on the tune split; none: never"
    )
    mixup: float = Field(
        0.0,
        ge=0,
        le=10,
        description="parameter of mixup's Beta distribution; 0 switches it off; of features where the prefix is kept",
    )
    timing: bool = Field(True, description="time three steps of full fine-tuning first, and say what it would take")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="probability taken from the true class and spread")
    head: Literal["probe", "random"] = Field(
        "probe", description="where the classifier starts: at the linear probe, or at random"
    )
    class_weights: Literal["balanced", "sampler", "logit_adjustment", "none"] = Field(
        "balanced",
        description="unequal classes: balanced weighs them in the loss by inverse frequency, sampler draws them "
        "equally often, logit_adjustment adds their log frequency to the logits, none does nothing; of findings "
        "each is balanced between present and absent, and sampler has no meaning",
    )
    seed: int = Field(0, ge=0, description="of head, updates, order, and augmentation")
    device: str = Field("auto", description="cpu, cuda, mps, or auto")
    num_workers: int = Field(0, ge=0, le=256, description="processes that augment; 0: the training process itself")
    devices: int = Field(
        1,
        ge=1,
        le=1024,
        description="processes that train together on this machine, each on a GPU of its own or on a part of the CPU; "
        "batch_size counts the cases of all. Order and views are those of one process; dropout, mixup and adapting "
        "BatchNorm see the part of a batch that a process has",
    )
    nodes: int = Field(
        1,
        ge=1,
        le=1024,
        description="machines that train together; torchrun or srun starts one process for each device on each of "
        "them, with the same command and a run folder that all share",
    )
    logger: Literal["tensorboard", "mlflow", "wandb"] | None = Field(
        None,
        description="writes each epoch's figures and all settings but paths for one of these tools too, if installed, "
        "into the run folder; none: metrics.csv alone",
    )

    @property
    def batch(self) -> int:
        """``batch_size``, once ``auto`` has become a number."""
        assert self.batch_size != "auto"
        return self.batch_size

    @property
    def passes(self) -> int:
        """``epochs``, once none has become a number."""
        assert self.epochs is not None
        return self.epochs


class Evaluation(_Block):
    """What is fixed on the tune split, before any test."""

    operating_point: str = Field(
        "youden",
        description="rule of the threshold, of two classes or of each finding: youden, sensitivity>=0.95, "
        "specificity>=0.9, cost:5 (a missed positive costs five false alarms), or a number; of more classes the most "
        "probable is answered",
    )
    probe: bool = Field(True, description="train a linear probe beside the adapter, for the report")


class Config(_Block):
    """Settings of a training run."""

    data: Data = Field(default_factory=Data)
    model: Model = Field(default_factory=Model)
    adapter: Method = Field(default_factory=Method)
    train: Train = Field(default_factory=Train)
    evaluation: Evaluation = Field(default_factory=Evaluation)

    @property
    def learning_rate(self) -> float:
        """The learning rate given, or the method's own."""
        return self.train.learning_rate or (3e-4 if self.adapter.method == "full" else 1e-3)

    @property
    def epochs(self) -> int:
        """The passes given; else the backbone's own, where it comes with medlora."""
        embedded = EMBEDDED.get(self.model.backbone) if self.model.weights is None else None
        return self.train.epochs or (embedded.epochs if embedded is not None else 8)

    @property
    def batchnorm(self) -> Literal["frozen", "adapt"]:
        """The policy given; else frozen, unless the weights are random and so have no statistics worth keeping."""
        return self.adapter.batchnorm or ("adapt" if self.model.weights == "random" else "frozen")

    @classmethod
    def resolve(cls, file: str | Path | None = None, settings: dict[str, Any] | None = None) -> Config:
        """Settings from a YAML file, with ``settings`` on top.

        Args:
            file: YAML in the blocks of this class; a run's ``config.yaml`` is one.
            settings: values by dotted name (``train.epochs``); none means not given.

        Raises:
            MedloraError: the file cannot be read, or a name or value is wrong; the nearest name is offered.
        """
        values = _read(Path(file)) if file is not None else {}
        for name, value in (settings or {}).items():
            if value is not None:
                block, _, key = name.partition(".")
                if not key:
                    raise MedloraError(f"the setting {name!r} has no block", "write it as block.key=value")
                if not isinstance(values.setdefault(block, {}), dict):
                    raise MedloraError(f"{block} in {file} is no block of settings", "write key: value lines below it")
                values[block][key] = value
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise MedloraError(*_reworded(error)) from None

    def to_yaml(self) -> str:
        """The settings as YAML, every line explained."""
        lines = ["# Settings of a medlora run, all defaults written out. Use again: medlora train … --config FILE"]
        for name, block in self:
            lines += ["", f"# {type(block).__doc__}", f"{name}:"]
            for key, field in type(block).model_fields.items():
                value = yaml.safe_dump(getattr(block, key), default_flow_style=True, allow_unicode=True, width=10_000)
                lines += [f"  # {field.description}", f"  {key}: {value.removesuffix('...' + chr(10)).strip()}"]
        return "\n".join(lines) + "\n"


def parse_setting(text: str) -> tuple[str, Any]:
    """``block.key=value`` → (``block.key``, value read as YAML).

    Raises:
        MedloraError: there is no equals sign, or the value is no YAML.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise MedloraError(f"--set {text!r} has no equals sign", "write it as --set block.key=value")
    try:
        return name.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise MedloraError(f"the value in --set {text!r} is not YAML", "quote it, or use a plain value") from error


def _read(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise MedloraError(f"cannot read the config {file}: {error.strerror}", "check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where is not None else ""
        raise MedloraError(f"the config {file} is not YAML{line}", "compare it with a run's config.yaml") from error
    if not isinstance(values or {}, dict):
        raise MedloraError(f"the config {file} holds no blocks of settings", "compare it with a run's config.yaml")
    return values or {}


def _reworded(error: ValidationError) -> tuple[str, str]:
    """pydantic's first complaint in words that name the setting and the way out."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    block = Config.model_fields.get(path[0])
    annotation = block.annotation if block is not None else None
    fields = getattr(annotation, "model_fields", Config.model_fields)
    name = ".".join(path[:2])
    if first["type"] == "extra_forbidden":
        prefix = f"{path[0]}." if len(path) > 1 else ""
        near = difflib.get_close_matches(path[-1], fields, n=1, cutoff=0.4)
        fix = f"did you mean {prefix}{near[0]}?" if near else f"there are: {', '.join(prefix + f for f in fields)}"
        return f"unknown setting {name}", fix
    said = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    description = fields[path[1]].description if len(path) > 1 and path[1] in fields else None
    fix = f"correct it, or leave it out; it is: {description}" if description else "correct the value"
    return f"the setting {name} is {first.get('input')!r}, but should be {said}", fix
