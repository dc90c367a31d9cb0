"""Distil a small backbone with attention and convolutions from a pretrained one, without a network or a data set.

    python scripts/distil_backbone.py -o distilled [--student medlora-hybrid] [--teacher tf_efficientnet_lite0]

Teacher and student see the same random crops of a few pictures (those that scikit-image and scikit-learn carry, and
medlora's phantom radiographs), strongly augmented; the student learns the teacher's pooled features, standardised, and
its softened logits (Hinton et al. 2015, arXiv:1503.02531). That one picture's crops can carry a teacher's knowledge is
known from Asano and Saeed, "The augmented image prior" (ICLR 2023, arXiv:2112.00725).

The student ``medlora-hybrid`` is EfficientNet-Lite0 cut short: fewer blocks, and in its last two stages an attention
block of MobileNetV4 (Qin et al. 2024, arXiv:2404.10518) in their place. Its other blocks start at Lite0's weights. Any
other timm model starts at random ones.

A GPU is used where there is one; ``--workers`` processes then make the crops beside it, without a change of them.

Every ``--every`` steps a checkpoint is written; the same command goes on from there, and on a CPU gives the same bytes
as a run without interruption on the same machine with as many threads (on a GPU timm's attention has no deterministic
gradient). Written in the end: ``student.safetensors`` (half precision) and ``card.md``.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from medlora import backbones
from medlora.backbones import hybrid
from medlora.backbones.embedded import EMBEDDED, HYBRID, LITE0

PICTURES = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png",
    "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png",
    "motorcycle_right.png", "page.png", "retina.jpg", "rocket.jpg", "text.png",
)  # fmt: skip
TEMPERATURE = 2.0
HELD_OUT = 1 << 40  # crops with which progress is measured come from seeds of their own


class Goal(NamedTuple):
    """What the student is to give: the teacher's pooled features, standardised, and its logits."""

    features: Tensor  # (N, F)
    logits: Tensor  # (N, classes)


def student_of(name: str) -> nn.Module:
    """The student before its first step; medlora's hybrid has Lite0's weights where it has Lite0's blocks."""
    student = timm.create_model(name, pretrained=False, num_classes=0)
    if name == HYBRID.name:
        missing, unexpected = student.load_state_dict(hybrid.inherited(), strict=False)
        new = {".".join(key.split(".")[:3]) if key.startswith("blocks") else key.split(".")[0] for key in missing}
        if unexpected or new != {"blocks.4.1", "blocks.5.1", "conv_head", "bn2"}:
            raise RuntimeError(f"Lite0's blocks do not fit: {sorted(unexpected)}, {sorted(new)}")
    return student


def pictures(phantoms: int) -> list[Tensor]:
    """Photographs and textures, (3, H, W) uint8; then the radiographs of ``phantoms`` fictitious patients."""
    import skimage
    from skimage import io
    from sklearn.datasets import load_sample_images

    from medlora.phantoms import radiographs

    folder = Path(skimage.__file__).parent / "data"
    arrays = [io.imread(folder / name) for name in PICTURES] + load_sample_images().images
    for number in range(phantoms):
        arrays += [(255 * np.clip(shot.shown, 0, 1)).astype(np.uint8) for shot in radiographs.patient(number, seed=9)]
    colours = [array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2) for array in arrays]
    return [torch.from_numpy(np.ascontiguousarray(array[..., :3].transpose(2, 0, 1))) for array in colours]


def crops(images: list[Tensor], photographs: int, batch: int, side: int, seed: int) -> Tensor:
    """A batch of crops, (N, 3, side, side), 0 to 1; the same for the same seed."""
    torch.manual_seed(seed)
    crop = v2.RandomResizedCrop(side, scale=(0.02, 1.0), antialias=True)
    colour = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(0.1),
            v2.RandomApply([v2.RandomRotation(30, v2.InterpolationMode.BILINEAR)], 0.2),
            v2.RandomApply([v2.ColorJitter(0.5, 0.6, 0.5, 0.1)], 0.8),
            v2.RandomGrayscale(0.4),
            v2.RandomInvert(0.1),
        ]
    )
    drawn = []
    for _ in range(batch):
        many = photographs if len(images) == photographs or torch.rand(()) < 0.7 else 0
        start, stop = (0, many) if many else (photographs, len(images))
        image = images[int(torch.randint(start, stop, ()))]
        drawn.append(colour(crop(image)))
    pixels = v2.functional.to_dtype(torch.stack(drawn), torch.float32, scale=True)
    order, share = torch.randperm(batch), torch.rand(batch, 1, 1, 1)
    mixed = torch.rand(batch, 1, 1, 1) < 0.3  # mixup of a third: what lies between pictures is a question as well
    return torch.where(mixed, share * pixels + (1 - share) * pixels[order], pixels)


class Crops(Dataset[Tensor]):
    """A batch of crops by its number, which is its seed: whoever makes it makes the same."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.images = pictures(options.phantoms)
        self.photographs = len(PICTURES) + 2
        self.batch, self.side, self.seed = options.batch, options.teacher_side, options.seed << 42

    def __getitem__(self, number: int) -> Tensor:
        return crops(self.images, self.photographs, self.batch, self.side, self.seed + number)


def shrink(pixels: Tensor, side: int) -> Tensor:
    return v2.functional.resize(pixels, [side, side], antialias=True)


class Distillation:
    """Teacher, student and what is kept between steps."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(options.seed)
        teacher = backbones.create(options.teacher, options.teacher_weights)
        self.teacher = teacher.model.to(self.device).requires_grad_(False)
        self.mean = torch.tensor(teacher.mean, device=self.device).view(1, -1, 1, 1)
        self.std = torch.tensor(teacher.std, device=self.device).view(1, -1, 1, 1)
        self.classifier = pretrained_classifier(options, teacher).to(self.device)
        torch.manual_seed(options.seed)
        self.student = student_of(options.student).to(self.device)
        self.crops = Crops(options)
        features = self.classifier.in_features
        with torch.no_grad():
            width = self.student.eval()(torch.zeros(1, 3, options.side, options.side, device=self.device)).shape[1]
        self.project = nn.Identity() if width == features else nn.Linear(width, features).to(self.device)
        self.centre, self.spread = self._statistics()
        trained = [*self.student.parameters(), *self.project.parameters()]
        self.optimizer = torch.optim.AdamW(trained, options.learning_rate, weight_decay=0.02)
        self.step = 0

    def _statistics(self) -> tuple[Tensor, Tensor]:
        seen = torch.cat([self._of_teacher(self._batch(HELD_OUT + 100 + k)) for k in range(self.options.warm_batches)])
        spread = seen.std(0)
        return seen.mean(0), spread.clamp_min(0.1 * float(spread.mean()))  # some features hardly ever wake

    def _batch(self, number: int) -> Tensor:
        return self._prepared(self.crops[number])

    def _prepared(self, pixels: Tensor) -> Tensor:
        return (pixels.to(self.device, non_blocking=True) - self.mean) / self.std

    @torch.no_grad()
    def _of_teacher(self, pixels: Tensor) -> Tensor:
        return self.teacher(pixels)

    def _of_student(self, pixels: Tensor) -> Tensor:
        return self.project(self.student(shrink(pixels, self.options.side)))

    def loss(self, pixels: Tensor) -> Tensor:
        theirs, own = self._of_teacher(pixels), self._of_student(pixels)
        features = nn.functional.mse_loss((own - self.centre) / self.spread, (theirs - self.centre) / self.spread)
        logits = self.classifier(own) / TEMPERATURE
        wanted = self.classifier(theirs) / TEMPERATURE
        softened = nn.functional.kl_div(
            logits.log_softmax(1), wanted.log_softmax(1), log_target=True, reduction="batchmean"
        )
        return features + TEMPERATURE**2 * softened

    def batches(self, end: int) -> Iterable[Tensor]:
        """The crops of the steps from here to ``end``."""
        return DataLoader(
            self.crops, batch_size=None, sampler=range(self.step, end), num_workers=self.options.workers,
            pin_memory=self.device.type == "cuda",
        )  # fmt: skip

    def advance(self, pixels: Tensor) -> Tensor:
        """One step on a batch of crops; the loss."""
        total, warm = self.options.steps, max(1, self.options.steps // 20)
        rate = min((self.step + 1) / warm, 0.5 * (1 + math.cos(math.pi * self.step / total)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * rate
        self.student.train()
        torch.manual_seed(self.options.seed + self.step)  # of a student that drops units
        loss = self.loss(self._prepared(pixels))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*self.student.parameters(), *self.project.parameters()], 5.0)
        self.optimizer.step()
        self.step += 1
        return loss.detach()

    @torch.no_grad()
    def measured(self, batches: int = 4) -> dict[str, float]:
        """On crops that are not trained on: explained part of the features' variance, agreement on the class."""
        self.student.eval()
        pixels = [self._batch(HELD_OUT + k) for k in range(batches)]
        theirs = torch.cat([self._of_teacher(part) for part in pixels])
        own = torch.cat([self._of_student(part) for part in pixels])
        left = ((own - theirs) / self.spread).square().mean()
        whole = ((theirs - theirs.mean(0)) / self.spread).square().mean()
        same = (self.classifier(own).argmax(1) == self.classifier(theirs).argmax(1)).float().mean()
        return {"explained": float(1 - left / whole), "agreement": float(same)}

    def save(self, path: Path) -> None:
        content = {
            "options": fixed(self.options), "step": self.step, "student": self.student.state_dict(),
            "project": self.project.state_dict(), "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip
        draft = path.with_suffix(".part")
        torch.save(content, draft)
        draft.replace(path)

    def resume(self, path: Path) -> None:
        content = torch.load(path, weights_only=True)
        if content["options"] != fixed(self.options):
            raise SystemExit(f"{path} was made with other options: choose another folder with -o, or the same options")
        self.step = content["step"]
        self.student.load_state_dict(content["student"])
        self.project.load_state_dict(content["project"])
        self.optimizer.load_state_dict(content["optimizer"])


def fixed(options: argparse.Namespace) -> str:
    """What two goes at one distillation must have in common."""
    left = {"output", "every", "stop", "workers"}
    return repr(sorted((name, value) for name, value in vars(options).items() if name not in left))


def pretrained_classifier(options: argparse.Namespace, backbone: backbones.Backbone) -> nn.Linear:
    """The teacher's own classifier, which medlora's backbones leave out."""
    from medlora.backbones.weights import read_state_dict

    named = str(backbone.model.pretrained_cfg["classifier"])  # type: ignore[index]
    if options.teacher_weights is None and options.teacher in EMBEDDED:
        tensors = EMBEDDED[options.teacher].state_dict()
    elif options.teacher_weights is None:
        tensors = timm.create_model(options.teacher, pretrained=True).state_dict()
    else:
        tensors = read_state_dict(Path(options.teacher_weights))
    if f"{named}.weight" not in tensors:
        raise SystemExit(f"the weights of {options.teacher} hold no classifier {named!r}: choose a supervised teacher")
    weight, bias = tensors[f"{named}.weight"], tensors[f"{named}.bias"]
    classifier = nn.Linear(weight.shape[1], weight.shape[0])
    classifier.load_state_dict({"weight": weight, "bias": bias})
    return classifier.requires_grad_(False)


def card(options: argparse.Namespace, student: nn.Module, figures: dict[str, float]) -> str:
    millions = sum(p.numel() for p in student.parameters()) / 1e6
    return f"""# {options.student}, distilled from {options.teacher}

- **Network**: {millions:.2f} M parameters, without a classifier; input {options.side} x {options.side}.
- **Made by**: `scripts/distil_backbone.py --student {options.student} --teacher {options.teacher}
  --steps {options.steps} --batch {options.batch} --side {options.side} --teacher-side {options.teacher_side}
  --learning-rate {options.learning_rate:g} --phantoms {options.phantoms} --warm-batches {options.warm_batches}
  --seed {options.seed}`: AdamW, cosine; loss: pooled features, standardised, and logits at temperature {TEMPERATURE:g}.
- **Starts at**: {
        "blocks of tf_efficientnet_lite0 (ImageNet-1k weights, Apache-2.0); attention blocks and head are new"
        if options.student == HYBRID.name
        else "random weights"
    }.
- **Pictures**: {len(PICTURES)} that scikit-image carries (public domain, CC0 or as its data/README.txt says), two of
  scikit-learn (CC BY 2.0), phantom radiographs of {options.phantoms} fictitious patients (no label of theirs is used).
- **On crops not trained on**: {figures["explained"]:.1%} of the variance of the teacher's features explained; the same
  of its classes first in {figures["agreement"]:.1%}.
- **Not for**: any decision about a patient; classification of photographs. It is a start for low-rank adapters in
  research, to be judged on the data at hand, beside its teacher.
"""


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("distilled"))
    parser.add_argument("--student", default=HYBRID.name, help="medlora-hybrid, or another timm model")
    parser.add_argument("--teacher", default=LITE0.name, help="a timm model with weights at hand")
    parser.add_argument("--teacher-weights", help="file with the teacher's weights")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--side", type=int, default=112, help="of the student's input, pixels")
    parser.add_argument("--teacher-side", type=int, default=160, help="of the teacher's input, pixels")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--phantoms", type=int, default=60, help="fictitious patients whose radiographs are shown")
    parser.add_argument("--warm-batches", type=int, default=16, help="batches that the features are standardised by")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="processes that make the crops")
    parser.add_argument("--every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--stop", type=int, help="leave off after so many steps, to go on another time")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    from safetensors.torch import save_file

    options = options_of(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    work = Distillation(options)
    torch.use_deterministic_algorithms(True, warn_only=work.device.type == "cuda")
    checkpoint = options.output / "checkpoint.pt"
    if checkpoint.is_file():
        work.resume(checkpoint)
    print(
        f"{options.student}: step {work.step} of {options.steps}, {len(work.crops.images)} pictures, {work.device}",
        flush=True,
    )
    started, first = time.monotonic(), work.step
    end = min(options.steps, options.stop or options.steps)
    for pixels in work.batches(end):
        loss = work.advance(pixels)
        if work.step % options.every == 0 or work.step == end:
            work.save(checkpoint)
            told = work.measured()
            pace = (time.monotonic() - started) / (work.step - first)
            print(
                f"step {work.step}: loss {loss:.3f}, explained {told['explained']:.3f}, agreement "
                f"{told['agreement']:.3f}, {pace:.2f} s a step",
                flush=True,
            )
    if work.step < options.steps:
        return
    halves = {name: value.half().cpu() if value.is_floating_point() else value.cpu()
              for name, value in work.student.state_dict().items()}  # fmt: skip
    save_file({name: value.contiguous() for name, value in halves.items()}, options.output / "student.safetensors")
    (options.output / "card.md").write_text(card(options, work.student, work.measured()), encoding="utf-8")


if __name__ == "__main__":
    main()
