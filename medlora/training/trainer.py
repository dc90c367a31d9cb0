"""Task, cohort and method to a run: the one function behind ``medlora train``."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medlora import adapters, backbones, files, transforms
from medlora.adapters import Method
from medlora.errors import MedloraError
from medlora.progress import quiet, say
from medlora.training import allocator, engine, footprint, helping, probing, processes, run_folder
from medlora.training.cases import TrainingCases, select_cases
from medlora.training.config import Config
from medlora.training.device import pick_device
from medlora.training.environment import environment
from medlora.training.features import cached_prefix
from medlora.training.finishing import save_judged
from medlora.training.loggers import logger_for, settings_for
from medlora.training.methods import method_of, settings_of
from medlora.training.prepared import ImageCache, prepare
from medlora.training.run import Run
from medlora.training.search import check_search
from medlora.training.search import search as find_settings
from medlora.training.timing import duration, seconds_of_full_fine_tuning

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

    from medlora.cohorts import Cohort
    from medlora.training.processes import Member

# Of nodules of 150 phantom patients 460 steps were better than 138; of 24 people 48 than 12, of 96 none than 30, of 192
# 132 than 66, of 777 none than 225 (scripts/docs/pages/verbs/train.md).
FEW_STEPS = 250


def train(
    cohort: Cohort | str | Path,
    output: str | Path | None = None,
    *,
    backbone: str | None = None,
    weights: str | Path | None = None,
    adapter: Method | None = None,
    config: str | Path | None = None,
    settings: dict[str, Any] | None = None,
    search: Sequence[str] = (),
    trials: int = 12,
    overwrite: bool = False,
    resume: bool = False,
) -> Run:
    """Train an adapter for the labels of a cohort.

    Args:
        cohort: a cohort, or its folder.
        output: the run folder to be made; none: ``runs/`` and the time of day.
        backbone: a timm model; none: the embedded one, which needs no network.
        weights: a file with the backbone's weights, or the word ``random``.
        adapter: what is trained, ``medlora.LoRA(rank=16, alpha=64)`` for one, with all that it says; none: as the
            settings say.
        config: YAML file of settings, as a run's ``config.yaml``.
        settings: single settings by dotted name (``{"train.epochs": 5}``); they win over the file.
        search: what is first found by trial on the tune split, of :data:`medlora.training.search.SEARCHED`.
        trials: how many trainings that may take; hopeless ones end early.
        overwrite: replace what ``output`` holds.
        resume: go on with an interrupted run in ``output``, from its last finished epoch; the adapter is then, on one
            machine, bit for bit what it would have been. A finished run is given back as it is, and where there is
            none the training starts afresh.

    Returns:
        The finished run: its adapter, its figures on the tune split, and :meth:`Run.evaluate` for the test.

    Raises:
        MedloraError: bad settings, a cohort that cannot be trained on, weights out of reach, an output that exists.
    """
    from medlora.cohorts import Cohort

    cohort = cohort if isinstance(cohort, Cohort) else Cohort.load(cohort)
    named = {
        "data.cohort": str(Path(cohort.folder).resolve()) if cohort.folder is not None else None,
        "model.backbone": backbone,
        "model.weights": None if weights is None else str(weights),
        **settings_of(adapter),
    }
    resolved = Config.resolve(config, {**named, **(settings or {})})
    cases = select_cases(cohort, resolved.data.classes)
    cases.task.check(resolved)
    folder = Path(output) if output is not None else Path("runs") / time.strftime("%Y-%m-%d_%H%M%S")
    if resume and run_folder.is_done(folder):
        say(f"the run {folder} is done already")
        return Run(folder, cohort)
    if search:
        check_search(search, trials, resolved)
    member = processes.launched(resolved.train)
    if search and member is not None:
        raise MedloraError(
            "--search does not run under torchrun or srun", "search on one machine, then train with its config.yaml"
        )
    if member is not None and member.rank:
        quiet()  # the first process speaks for all
        helping.work(member)
        member.wait_for_end()
        return Run(folder, cohort)
    well = False
    try:
        with run_folder.run_folder(folder, overwrite, resume) as folder:
            say(f"the run is written to {folder}")
            if search:
                resolved = _search(cohort, cases, resolved, folder, search, trials)
            searched = {"varied": list(search), "trials": trials} if search else None
            run = _train(cohort, cases, resolved, folder, resume, member, searched)
        well = True
    finally:
        if member is not None:
            if not well:
                member.publish(None)  # helpers that still wait for their job end too
            member.end(well)
    return run


def _search(
    cohort: Cohort, cases: TrainingCases, config: Config, folder: Path, names: Sequence[str], trials: int
) -> Config:
    """The settings found by trial; each trial is a run below ``folder/search``, and all share what they prepare."""
    shared = folder / "cache" / "trials"

    def run_trial(chosen: Config, place: Path, watching: Callback) -> Run:
        if run_folder.is_done(place):
            return Run(place, cohort)
        chosen = chosen.model_copy(deep=True)
        chosen.train.timing = chosen.evaluation.probe = False
        chosen.data.cache = chosen.data.cache or str(shared)
        with run_folder.run_folder(place, overwrite=False, resume=True):
            resume = (place / "checkpoints").is_dir()
            return _train(cohort, cases, chosen, place, resume, None, watching=watching)

    return find_settings(names, trials, config, run_folder.digest_of(config, cases), folder / "search", run_trial)


def _train(
    cohort: Cohort,
    cases: TrainingCases,
    config: Config,
    folder: Path,
    resume: bool,
    member: Member | None,
    searched: dict[str, Any] | None = None,
    watching: Callback | None = None,
) -> Run:
    started = time.monotonic()
    classes, task = cases.classes, cases.task
    config = config.model_copy(deep=True)
    settings, chosen = config.train, config.train.epochs is not None
    device = pick_device(settings.device)
    backbone = backbones.create(
        config.model.backbone,
        config.model.weights,
        num_classes=len(classes),
        image_size=config.data.image_size,
        seed=settings.seed,
    )
    say(f"backbone {backbone.name} ({backbone.source}); licence {backbone.licence}; pretraining: {backbone.trained_on}")
    if len(task.judged) == 1:
        say(f"the positive class is {task.judged[0]!r}; --classes names them in another order, the positive one last")
    preset = _preset(config, cases, backbone)
    settings.learning_rate, settings.epochs, config.adapter.batchnorm = (
        config.learning_rate, config.epochs, config.batchnorm)  # fmt: skip
    config.data.classes, config.data.preset, config.data.image_size = classes, preset.name, preset.size
    config.data.extent = getattr(preset, "extent", None)
    if settings.batch_size == "auto":
        settings.batch_size = _batch_that_fits(
            config, cases, backbone.model, preset, folder if resume else None, device
        )
    digest = run_folder.digest_of(config, cases, backbone)
    after = run_folder.checkpoint_in(folder, digest) if resume else None
    for made in ("probe", "adapter", "predictions"):  # of a run that ended between them; all are made again
        shutil.rmtree(folder / made, ignore_errors=True)
    files.write_text(folder / "config.yaml", config.to_yaml())
    files.write_json(folder / "environment.json", environment(device))
    files.write_text(folder / "cohort.csv", cases.table.to_csv(index=False, lineterminator="\n"))

    logger = None
    if settings.logger is not None:
        logger = logger_for(settings.logger, folder)
        logger.log_hyperparams(settings_for(config))

    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    kept = cache if config.data.cache is None else Path(config.data.cache)
    images = None if config.data.cache is None else ImageCache(kept / "images", preset, _stamp(cohort))
    prepared = {
        split: prepare(
            cache / f"{split}.f32",
            cases.of(split),
            cohort.scan,
            preset,
            cases.labels(split),
            f"preparing {split} scans",
            images,
        )
        for split in ("train", "tune")
    }

    base = _described(config, cases, backbone, preset, cohort.info)
    with allocator.told(allocator.SMALL):
        probe = probing.fit(backbone.model, preset, prepared, task, device)
    if probe is not None and config.evaluation.probe:
        probing.save(backbone.model, probe, base, config, cohort, cases, folder / "probe")

    if settings.timing and config.adapter.method != "full":
        with allocator.told(allocator.SMALL):
            seconds = seconds_of_full_fine_tuning(backbone.model, preset, task, prepared["train"], settings, device)
        say(f"full fine-tuning would take {duration(seconds)} of computing on this machine ({config.epochs} epochs)")
    total = sum(parameter.numel() for parameter in backbone.model.parameters())
    method = method_of(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        adapter = adapters.attach(backbone.model, method, batchnorm=config.adapter.batchnorm)
    if probe is not None and settings.head == "probe":
        probing.set_head(backbone.model, probe)
    trainable = sum(parameter.numel() for parameter in adapter.parameters())
    say(f"training {trainable:,} parameters ({method.name}) on a backbone of {total:,}, on {device.type}")
    in_epoch = math.ceil(math.ceil(len(prepared["train"]) / settings.batch) / settings.accumulate)
    steps = settings.passes * in_epoch
    if steps < FEW_STEPS and not chosen:
        more = min(4 * settings.passes, math.ceil(FEW_STEPS / in_epoch))
        say(
            f"{settings.passes} epochs are {steps} steps: with so few cases more may be worth their time, such as "
            f"--epochs {more}"
        )
    cached = cached_prefix(
        backbone.model, adapter, preset, prepared["train"], settings, kept, config.data.cache_gb, device
    )
    predicted, room = (
        footprint.predict(backbone.model, adapter, preset, cached, settings),
        footprint.room_on(device, settings),
    )
    say(footprint.described(predicted, room, settings.batch))
    footprint.check(predicted, room, settings.batch)
    step = predicted.of(-(-settings.batch // room.sharing))
    names = [str(case) for case in cases.of("train")]
    job = helping.Job(
        config=config.model_dump(mode="json"),
        preset=preset.to_dict(),
        fingerprint=adapters.fingerprint(backbone.model),
        files={split: str(images.file.resolve()) for split, images in prepared.items()},
        labels={split: images.labels.tolist() for split, images in prepared.items()},
        names=names,
        task=task.describe(),
        folder=str(folder.resolve()),
        digest=digest,
        features=None if cached is None else str(Path(str(cached.features.filename)).resolve()),
        step=step,
        resume=after is not None,
    )
    with processes.helped(member, settings, job.to_dict(), cache) as together, allocator.told(step):
        kept_row = engine.fit(
            backbone.model,
            adapter,
            preset,
            prepared["train"],
            prepared["tune"],
            task,
            settings,
            folder,
            names,
            cached,
            digest,
            after,
            together,
            logger,
            watching,
        )
    if probe is not None and probe.tune_auc > kept_row["tune_auc"]:
        say(
            f"on the tune split the linear probe alone is better (AUC {probe.tune_auc:.3f}, {kept_row['tune_auc']:.3f} "
            "with the adapter): medlora compare tells whether it is for this task"
        )
    info = base | {
        "training": base["training"]
        | {
            "settings": {name: value for name, value in config.train.model_dump().items() if name != "num_workers"},
            "epochs": config.epochs,
            "kept_epoch": int(kept_row["epoch"]),
            "seconds": round(time.monotonic() - started),
            **({"search": searched} if searched is not None else {}),
            "trainable_parameters": trainable,
            "total_parameters": total,
        }
    }
    save_judged(
        backbone.model, adapter, info, config, cohort, cases, folder / "adapter", folder / "predictions" / "tune.csv"
    )
    return Run(folder, cohort)


def _preset(config: Config, cases: TrainingCases, backbone: backbones.Backbone) -> transforms.Preset:
    """The preset for the cohort's modality, with the backbone's size and normalisation."""
    named = config.data.preset
    if named is not None and named not in transforms.PRESETS:
        raise MedloraError(f"unknown preset {named!r}", f"choose one of: {', '.join(transforms.PRESETS)}")
    kind = transforms.PRESETS[named] if named is not None else transforms.preset_for(cases.modalities, cases.places)
    quick = backbones.training_side(backbone)
    size = config.data.image_size or quick
    options: dict[str, Any] = {}
    if config.data.extent is not None:
        if not hasattr(kind, "extent"):
            raise MedloraError(
                f"the preset {kind.name} shows whole images, and has no data.extent", "leave data.extent out"
            )
        options["extent"] = config.data.extent
    return kind(size=size, mean=backbone.mean, std=backbone.std, augment=config.data.augment, **options)


def _batch_that_fits(
    config: Config,
    cases: TrainingCases,
    model: torch.nn.Module,
    preset: transforms.Preset,
    earlier: Path | None,
    device: torch.device,
) -> int:
    """The batch size for ``auto``: that of the run to go on with, else what fits a step of the whole network."""
    if earlier is not None and (earlier / "checkpoints").is_dir():
        return Config.resolve(earlier / "config.yaml").train.batch
    settings = config.train
    with torch.random.fork_rng(devices=[]):
        adapter = adapters.attach(model, method_of(config), batchnorm=config.adapter.batchnorm)
    try:
        predicted = footprint.predict(model, adapter, preset, None, settings)
    finally:
        adapter.detach()
    room, processes = footprint.room_on(device, settings), settings.devices * settings.nodes
    batch = footprint.batch_that_fits(predicted, room, len(cases.of("train")), processes)
    say(f"batch size {batch}, the largest that fits within the bounds of auto")
    return batch


def _stamp(cohort: Cohort) -> Callable[[str], list[tuple[int, int]]]:
    """scan_id → sizes and modification times of its files."""

    def stamp(scan_id: str) -> list[tuple[int, int]]:
        found = [Path(path).stat() for path in cohort.files(scan_id).paths]
        return [(status.st_size, status.st_mtime_ns) for status in found]

    return stamp


def _described(
    config: Config,
    cases: TrainingCases,
    backbone: backbones.Backbone,
    preset: transforms.Preset,
    checked: dict[str, Any],
) -> dict[str, Any]:
    """What an adapter says of its task, its base and its training; plain values without identifiers.

    Args:
        config: settings of the training.
        cases: what is trained on.
        backbone: the pretrained model.
        preset: preparation of scans.
        checked: the cohort's info: the rule that picked one scan of each study, what uncertain findings were taken as.
    """
    task: dict[str, Any] = cases.task.describe() | {"modalities": sorted(filter(None, cases.modalities))}
    if checked.get("findings"):
        task["uncertain_as"] = checked["findings"]["uncertain_as"]
    return {
        "backbone": backbone.describe() | {"seed": config.train.seed},
        "preprocessing": preset.to_dict(),
        "task": task | {"views": cases.views, "select": checked.get("select")},
        "training": {"cases": cases.counts(), "patients": cases.patients()},
        "phantom": cases.phantom,
    }
