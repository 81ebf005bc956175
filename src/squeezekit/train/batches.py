"""Batches of training images: decoded once, kept in memory as far as they fit, varied by epoch."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from squeezekit.data.folders import ImageSet
from squeezekit.errors import InputError
from squeezekit.progress import Progress, silent
from squeezekit.runtime.images import (
    ImageFile,
    Pixels,
    normalized,
    open_image,
    resized,
    resized_quickly,
)
from squeezekit.sqz.network import Preprocessing
from squeezekit.train.augment import randaugment, random_resized_crop
from squeezekit.train.recipe import Augmentation, Recipe

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images (N, C, H, W) float32, and their targets (N,) int64."""

_Sample = tuple[np.int64, npt.NDArray[np.float64], tuple[int, ...]]
"""Index of an image, its draws (see `varied`), and the seed of any further ones."""

CACHE_BYTES = 2_000_000_000

_T = TypeVar("_T")
_R = TypeVar("_R")


class TrainingData:
    """Class folders as shuffled batches, ready for a network.

    Images are resized once, before the crop, and kept as 8-bit pixels until `cache_bytes` are
    full; those beyond are decoded again in each epoch. Images that cannot be read are skipped.

    Attributes:
        images: number of images, without those skipped so far.
        classes: number of classes, so that targets lie in [0, classes).
        skipped: one sentence for each image that cannot be read.
    """

    def __init__(
        self,
        image_set: ImageSet,
        preprocessing: Preprocessing,
        *,
        cache_bytes: int = CACHE_BYTES,
        quick_decoding: bool = True,
        threads: int | None = None,
        progress: Progress = silent,
    ) -> None:
        """Decode the images that fit into the cache.

        Args:
            image_set: the paths, and the targets as the network's outputs are numbered.
            preprocessing: of the network.
            cache_bytes: most memory for decoded pixels; 0 decodes in each epoch.
            quick_decoding: decode large JPEGs at reduced size (see `images.resized_quickly`).
            threads: that decode and prepare batches; one a core where None.
            progress: told of each decoded image.

        Raises:
            InputError: where none of the images can be read.
        """
        self._preprocessing = preprocessing
        self._quick_decoding = quick_decoding
        self._threads = threads or os.cpu_count() or 1
        self._paths = image_set.paths
        self._targets = image_set.targets
        self._cache: dict[int, Pixels] = {}
        self._broken: dict[int, str] = {}
        self.classes = int(image_set.targets.max(initial=-1)) + 1
        self._fill_cache(cache_bytes, progress)
        # What proves broken later stays in the order of the epochs, so that an epoch's order does
        # not depend on those before it, and a resumed run has the same one.
        self._order = np.array([i for i in range(len(self._paths)) if i not in self._broken])
        if self.images == 0:
            raise InputError(f"none of the {len(self._paths)} images can be read")

    @property
    def images(self) -> int:
        """Number of images, without those skipped so far."""
        return len(self._paths) - len(self._broken)

    @property
    def skipped(self) -> tuple[str, ...]:
        """One sentence for each image that cannot be read."""
        return tuple(self._broken[i] for i in sorted(self._broken))

    @property
    def fingerprint(self) -> str:
        """Changes where the images, their targets or their preprocessing do."""
        names = "\0".join(str(path) for path in self._paths).encode(errors="surrogateescape")
        content = names + self._targets.tobytes() + str(self._preprocessing).encode()
        return hashlib.sha256(content).hexdigest()

    def steps(self, batch: int) -> int:
        """Iterations in an epoch: full batches only, unless there is not even one."""
        return max(len(self._order) // batch, 1)

    def epoch(
        self, epoch: int, recipe: Recipe, *, first: int = 0, rank: int = 0, processes: int = 1
    ) -> Iterator[Batch]:
        """Give the batches of one epoch; order and crops follow from the seed alone.

        Args:
            epoch: its number, from 0.
            recipe: its batch, augmentation and seed count here.
            first: batches to leave out, because they were trained on before an interruption.
            rank: number of this process; it gets its share of each batch.
            processes: that train together.

        Yields:
            `steps(recipe.batch) - first` batches of equal size, or smaller by the images that prove
            broken.
        """
        random = np.random.default_rng((recipe.seed, epoch))
        order = random.permutation(self._order)[: self.steps(recipe.batch) * recipe.batch]
        draws = random.random((len(order), 3))

        def prepare(places: range) -> Batch:
            samples = [
                (order[place], draws[place], (recipe.seed, epoch, place)) for place in places
            ]
            return self._batch(samples, recipe.augmentation)

        starts = range(first * recipe.batch, len(order), recipe.batch)
        ends = [min(start + recipe.batch, len(order)) for start in starts]
        tasks = [
            range(start + rank, end, processes) for start, end in zip(starts, ends, strict=True)
        ]
        yield from _ahead(prepare, tasks, self._threads)

    def _batch(self, samples: Sequence[_Sample], augmentation: Augmentation) -> Batch:
        """Images (n, C, crop, crop) and targets (n,), without those that are broken."""
        images, kept = [], []
        for index, draw, seed in samples:
            pixels = self._pixels(int(index))
            if pixels is not None:
                pixels = augmented(pixels, self._preprocessing.crop, augmentation, draw, seed)
                images.append(torch.from_numpy(normalized(pixels, self._preprocessing)))
                kept.append(index)
        if not kept:
            return torch.empty(0), torch.empty(0, dtype=torch.int64)
        return torch.stack(images), torch.from_numpy(self._targets[kept])

    def _fill_cache(self, cache_bytes: int, progress: Progress) -> None:
        if cache_bytes <= 0:
            return
        count = len(self._paths)
        for index, pixels in enumerate(_ahead(self._pixels, range(count), self._threads)):
            progress("decode", index + 1, count)
            if pixels is None:
                continue
            if pixels.nbytes > cache_bytes:
                return
            self._cache[index] = pixels
            cache_bytes -= pixels.nbytes

    def _pixels(self, index: int) -> Pixels | None:
        """The resized image, (H, W, 3) or (H, W), from the cache or its file; None if broken."""
        cached = self._cache.get(index)
        if cached is not None:
            return cached
        try:
            return decoded(self._paths[index], self._preprocessing, quick=self._quick_decoding)
        except InputError as error:
            self._broken[index] = str(error)
            return None


def decoded(source: ImageFile, preprocessing: Preprocessing, *, quick: bool) -> Pixels:
    """An image as it is before the crop: uint8 (H, W, 3) in RGB order, or (H, W) for "L".

    Raises:
        InputError: where it cannot be read.
    """
    if quick:
        return np.asarray(resized_quickly(source, preprocessing))
    return np.asarray(resized(open_image(source), preprocessing))


def augmented(
    pixels: Pixels,
    crop: int,
    augmentation: Augmentation,
    draw: npt.NDArray[np.float64],
    seed: tuple[int, ...],
) -> Pixels:
    """Make the network's input from a resized image, with all that the augmentation asks for.

    Args:
        pixels: (H, W, ...), at least `crop` each way.
        crop: height and width of the result.
        augmentation: how.
        draw: see `varied`.
        seed: of all other draws.
    """
    if not augmentation.resized_crop and not augmentation.randaugment:
        return varied(pixels, crop, augmentation, draw)  # needs no generator of its own
    random = np.random.default_rng(seed)
    if augmentation.resized_crop:
        pixels = random_resized_crop(pixels, crop, augmentation.resized_crop, random)
    pixels = varied(pixels, crop, augmentation, draw)
    return randaugment(pixels, augmentation.randaugment, augmentation.magnitude, random)


def varied(
    pixels: Pixels, crop: int, augmentation: Augmentation, draw: npt.NDArray[np.float64]
) -> Pixels:
    """Cut the network's input out of a resized image, and perhaps mirror it.

    Args:
        pixels: (H, W, ...), at least `crop` each way.
        crop: height and width of the result.
        augmentation: without any, the result is the centre, as in use.
        draw: three random numbers in [0, 1): down, right, mirrored.
    """
    pad = augmentation.pad if augmentation.crop else 0
    height, width = pixels.shape[0] - crop, pixels.shape[1] - crop  # to spare
    top, left = height // 2, width // 2
    if augmentation.crop:
        top = int(draw[0] * (height + 2 * pad + 1)) - pad
        left = int(draw[1] * (width + 2 * pad + 1)) - pad
    cut = pixels[max(top, 0) : top + crop, max(left, 0) : left + crop]
    if pad and cut.shape[:2] != (crop, crop):
        above, before = max(-top, 0), max(-left, 0)
        around = [(above, crop - cut.shape[0] - above), (before, crop - cut.shape[1] - before)]
        cut = np.pad(cut, [*around, *[(0, 0)] * (cut.ndim - 2)], mode="edge")
    return cut[:, ::-1] if augmentation.mirror and draw[2] < 0.5 else cut


def _ahead(function: Callable[[_T], _R], tasks: Iterable[_T], threads: int) -> Iterator[_R]:
    """Like map, but threads work on the next results while the caller uses one."""
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[_R]] = deque()
    try:
        remaining = iter(tasks)
        waiting.extend(pool.submit(function, task) for task in islice(remaining, threads + 1))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, task) for task in islice(remaining, 1))
            yield result
    finally:  # also where the caller stops early
        pool.shutdown(cancel_futures=True)
