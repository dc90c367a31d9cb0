"""Which images a step sees, and how each is varied: a function of seed and epoch alone.

Nothing here carries a state from step to step, so a run that is taken up again after an interruption, and one that
loads its images in other processes, sees exactly the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler, get_worker_info

if TYPE_CHECKING:
    from monai.transforms import Compose

    from medlora.training.prepared import PreparedImages

Place = tuple[int, int]  # (epoch, index of the image)
Item = tuple[torch.Tensor, torch.Tensor, int]  # what the network gets, its target, index of the image


class Order(Sampler[list[Place]]):
    """The batches of each epoch, as lists of (epoch, index).

    Args:
        count: number of images.
        batch_size: images in a batch; the last one of an epoch may have fewer.
        seed: of the order.
        weights: probability of each image, in proportion, to be drawn with replacement; none: each once.
        rank, world: each of ``world`` processes gets its part of every batch, this one the part ``rank``.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        weights: np.ndarray | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.count, self.batch_size, self.seed, self.epoch = count, batch_size, seed, 0
        self.rank, self.world = rank, world
        self.weights = None if weights is None else weights / weights.sum()

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch_size)

    def __iter__(self) -> Iterator[list[Place]]:
        random = np.random.default_rng((self.seed, self.epoch))
        if self.weights is None:
            indices = random.permutation(self.count)
        else:
            indices = random.choice(self.count, self.count, p=self.weights)
        for start in range(0, self.count, self.batch_size):
            batch = indices[start : start + self.batch_size]
            part = batch[self.rank :: self.world]
            if not len(part):  # all processes take each step: this one with an image that :meth:`share` does not count
                part = batch[:1]
            yield [(self.epoch, int(index)) for index in part]

    def share(self, number: int) -> float:
        """The part of batch ``number`` that is this process's, by which the mean over its own images counts."""
        size = min(self.batch_size, self.count - number * self.batch_size)
        return len(range(self.rank, size, self.world)) / size


class AugmentedImages(Dataset[Item]):
    """Prepared images, each seen through a random augmentation that depends on seed, epoch and image.

    Args:
        images: prepared.
        augmentation: applied to each.
        seed: of the augmentation.
        workers: processes that load from here; :attr:`at` then holds the index that each is at, -1 before its first.
    """

    def __init__(self, images: PreparedImages, augmentation: Compose, seed: int, workers: int = 0) -> None:
        self.images, self.augmentation, self.seed = images, augmentation, seed
        self.at = torch.full((workers,), -1).share_memory_()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: Place) -> Item:
        epoch, index = place
        worker = get_worker_info()
        if worker is not None:
            self.at[worker.id] = index
        image, label, index = self.images[index]
        return varied(self.augmentation, image, self.seed, epoch, index), label, index


class CachedViews(Dataset[Item]):
    """What the frozen prefix made of V views of each image; which view an epoch sees depends on seed, epoch and image.

    Args:
        features: (N, V, …) in any floating dtype; given out as float32.
        labels: target of each image, (N,) or (N, K).
        seed: of the choice.
    """

    def __init__(self, features: np.ndarray, labels: torch.Tensor, seed: int) -> None:
        self.features, self.labels, self.seed = features, labels, seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: Place) -> Item:
        return self.__getitems__([place])[0]

    def __getitems__(self, places: list[Place]) -> list[Item]:
        """The items of a batch, read at once."""
        indices = [index for _, index in places]
        views = [np.random.default_rng((self.seed, *place)).integers(self.features.shape[1]) for place in places]
        read = torch.from_numpy(self.features[indices, views]).float()
        return list(zip(read, self.labels[indices], indices, strict=True))


def varied(augmentation: Compose, image: torch.Tensor, seed: int, epoch: int, index: int) -> torch.Tensor:
    """``image`` through ``augmentation``, its randomness drawn from (``seed``, ``epoch``, ``index``)."""
    from monai.data import get_track_meta, set_track_meta

    state = int(np.random.SeedSequence((seed, epoch, index)).generate_state(1)[0])
    _stream_of(augmentation).seed(state)
    tracked = get_track_meta()
    set_track_meta(False)  # what a MetaTensor notes down takes a third of the time, and nobody reads it
    try:
        return augmentation(image)
    finally:
        set_track_meta(tracked)


def _stream_of(augmentation: Compose) -> np.random.RandomState:
    """The one stream of random numbers that all transforms of ``augmentation`` draw from.

    MONAI gives each a stream of its own, and makes them all anew for a seed: as long as all the rest together. A chain
    within the chain would keep streams of its own, so there must be none.
    """
    from monai.transforms import Randomizable

    stream = vars(augmentation).get("R")  # without one of its own it has MONAI's, which all pipelines share
    if stream is None:
        stream = augmentation.R = np.random.RandomState(0)
    for transform in augmentation.transforms:
        if isinstance(transform, Randomizable) and vars(transform).get("R") is not stream:
            transform.set_random_state(state=stream)
    return stream
