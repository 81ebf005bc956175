"""Batches of training images: decoded once, kept in memory if they fit, varied in each epoch."""

from __future__ import annotations

import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from squeezekit.data.folders import ImageSet
from squeezekit.errors import InputError
from squeezekit.progress import Progress, silent
from squeezekit.runtime.held import PreparedImage
from squeezekit.runtime.images import (
    ImageFile,
    Pixels,
    open_image,
    resized,
    resized_quickly,
)
from squeezekit.sqz.network import Preprocessing
from squeezekit.training.augment import randaugment, random_resized_crop
from squeezekit.training.recipe import Augmentation, Recipe

Batch = tuple[torch.Tensor, torch.Tensor]
"""Pixels (N, H, W, 3) or (N, H, W) uint8, for `TrainingData.inputs`; their targets (N,) int64."""

Indices = npt.NDArray[np.int64]

CACHE_BYTES = 2_000_000_000

_PARTS = 2
"""Of a batch for each thread: images differ in size, and threads should be done together."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class TrainingData:
    """Class folders as shuffled batches, ready for a network.

    Images are resized once, before the crop, and kept as 8-bit pixels until `cache_bytes` are full.
    The rest are decoded again in each epoch. Images that cannot be read are skipped.

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
            preprocessing: the preprocessing of the network.
            cache_bytes: most memory for decoded pixels; 0 decodes in each epoch.
            quick_decoding: decode large JPEGs at reduced size (see `images.resized_quickly`).
            threads: the number of threads that decode and prepare batches; None is one per core.
            progress: called for each decoded image.

        Raises:
            InputError: if none of the images can be read, or none of a class.
        """
        self._preprocessing = preprocessing
        self._quick_decoding = quick_decoding
        self._threads = threads or os.cpu_count() or 1
        self._paths = image_set.paths
        self._targets = image_set.targets
        self._cache: dict[int, Pixels] = {}
        self._broken: dict[int, str] = {}
        crop = preprocessing.crop
        self._shape = (crop, crop) if preprocessing.color == "L" else (crop, crop, 3)
        self.classes = int(image_set.targets.max(initial=-1)) + 1
        self._fill_cache(cache_bytes, progress)
        # Images that turn out to be broken later keep their place in the order. So the order of an
        # epoch does not depend on earlier epochs, and a resumed run has the same one.
        self._order = np.array([i for i in range(len(self._paths)) if i not in self._broken])
        if self.images == 0:
            raise InputError(f"none of the {len(self._paths)} images can be read")
        self._require_readable(image_set)

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
        """A text that changes if the images, their targets or their preprocessing change."""
        names = "\0".join(str(path) for path in self._paths).encode(errors="surrogateescape")
        content = names + self._targets.tobytes() + str(self._preprocessing).encode()
        return hashlib.sha256(content).hexdigest()

    def steps(self, batch: int) -> int:
        """Iterations in an epoch: full batches only, unless there is not even one."""
        return max(len(self._order) // batch, 1)

    def epoch(
        self,
        epoch: int,
        recipe: Recipe,
        *,
        first: int = 0,
        rank: int = 0,
        processes: int = 1,
        ahead: int = 0,
    ) -> Iterator[Batch]:
        """Give the batches of one epoch; order and crops depend on the seed alone.

        Args:
            epoch: its number, from 0.
            recipe: its batch, augmentation and seed count here.
            first: batches to leave out, because they were trained on before an interruption.
            rank: number of this process; it gets its share of each batch.
            processes: the number of processes that train together.
            ahead: batches to prepare while the caller uses one, for callers that compute on another
                device. On the same cores, two that take turns are faster than two that compete.

        Yields:
            `steps(recipe.batch) - first` batches of equal size, or smaller by the images that prove
            broken.
        """
        seed = (recipe.seed, epoch)
        random = np.random.default_rng(seed)
        order = random.permutation(self._order)[: self.steps(recipe.batch) * recipe.batch]
        draws = random.random((len(order), 3))

        def fill(rows: Pixels, places: range) -> list[bool]:
            """Write these images, and tell which of them could be read."""
            return [
                self._write(row, order[place], recipe.augmentation, draws[place], (*seed, place))
                for row, place in zip(rows, places, strict=True)
            ]

        starts = range(first * recipe.batch, len(order), recipe.batch)
        ends = [min(start + recipe.batch, len(order)) for start in starts]
        shares = [
            range(start + rank, end, processes) for start, end in zip(starts, ends, strict=True)
        ]
        with _pool(self._threads) as pool:

            def start(places: range) -> Callable[[], Batch]:
                pixels = np.empty((len(places), *self._shape), np.uint8)
                size = max(math.ceil(len(places) / (_PARTS * self._threads)), 1)
                parts = [
                    pool.submit(fill, pixels[i : i + size], places[i : i + size])
                    for i in range(0, len(places), size)
                ]

                def finish() -> Batch:
                    kept = np.array([could for part in parts for could in part.result()], bool)
                    targets = self._targets[order[places]]
                    if not kept.all():
                        return torch.from_numpy(pixels[kept]), torch.from_numpy(targets[kept])
                    return torch.from_numpy(pixels), torch.from_numpy(targets)

                return finish

            yield from _ahead(start, shares, ahead)

    def in_order(
        self, batch: int, most: int, seed: int, *, mirrored: bool = False
    ) -> Iterator[Batch]:
        """Give each image once, in order, as the network gets it in use.

        Args:
            batch: images at a time.
            most: images; of more, so many by the seed.
            seed: which of them.
            mirrored: from left to right.
        """
        order = self._order
        if len(order) > most:
            order = np.sort(np.random.default_rng(seed).choice(order, most, replace=False))
        how, centre = Augmentation(crop=False, mirror=mirrored), np.zeros(3)
        with _pool(self._threads) as pool:
            for start in range(0, len(order), batch):
                chosen = order[start : start + batch]
                pixels = np.empty((len(chosen), *self._shape), np.uint8)

                def write(place: int, out: Pixels = pixels, some: Indices = chosen) -> bool:
                    return self._write(out[place], int(some[place]), how, centre, (seed,))

                kept = np.array(list(pool.map(write, range(len(chosen)))), bool)
                targets = self._targets[chosen[kept]]
                yield torch.from_numpy(pixels[kept]), torch.from_numpy(targets)

    def inputs(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalize the pixels of a batch, on the device that they are on.

        Args:
            pixels: uint8 (N, H, W, 3) in RGB order, or (N, H, W) for one channel.

        Returns:
            float32 (N, C, H, W), channels last in memory: the very numbers that
            `runtime.images.normalized` gives.
        """
        how, device = self._preprocessing, pixels.device
        count, height, width, channels = (*pixels.shape, 1)[:4]
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=device).repeat(width)
            for values in (how.mean, how.std)
        )
        # In rows of pixels, as broadcasting over an axis of three is slow; on a CPU image by image,
        # which its cache holds.
        x = torch.empty(count, height, width * channels, device=device)
        size = 1 if device.type == "cpu" else max(count, 1)
        for some, out in zip(torch.split(pixels, size), torch.split(x, size), strict=True):
            ordered = some.flip(3) if how.color == "BGR" else some
            torch.mul(ordered.reshape(out.shape), how.scale, out=out).sub_(mean).div_(std)
        return x.view(count, height, width, channels).permute(0, 3, 1, 2)

    def _write(
        self,
        out: Pixels,
        index: int,
        augmentation: Augmentation,
        draw: npt.NDArray[np.float64],
        seed: tuple[int, ...],
    ) -> bool:
        """Write one image, augmented, unless it is broken."""
        pixels = self._pixels(index)
        if pixels is None:
            return False
        out[...] = augmented(pixels, self._preprocessing.crop, augmentation, draw, seed)
        return True

    def _fill_cache(self, cache_bytes: int, progress: Progress) -> None:
        if cache_bytes <= 0:
            return
        count = len(self._paths)
        with _pool(self._threads) as pool:

            def start(index: int) -> Callable[[], Pixels | None]:
                return pool.submit(self._pixels, index).result

            for index, pixels in enumerate(_ahead(start, range(count), self._threads)):
                progress("decode", index + 1, count)
                if pixels is None:
                    continue
                if pixels.nbytes > cache_bytes:
                    return
                self._cache[index] = pixels
                cache_bytes -= pixels.nbytes

    def _require_readable(self, image_set: ImageSet) -> None:
        """Refuse a class without a readable image: nobody would notice that it is not learned."""
        for target in np.unique(self._targets):
            members = np.flatnonzero(self._targets == target).tolist()
            if all(self._pixels(index) is None for index in members):
                raise InputError(
                    f"none of the {len(members)} training images of the class "
                    f"{image_set.classes[target]!r} in {image_set.root} can be read, "
                    f"the first because {self._broken[members[0]]}"
                )

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
        InputError: if it cannot be read.
    """
    if isinstance(source, PreparedImage):  # cropped already
        return np.asarray(source.image)
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
        seed: the seed of all other draws.
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


@contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads whose remaining work is dropped if the caller stops early."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _ahead(
    start: Callable[[_T], Callable[[], _R]], tasks: Iterable[_T], count: int
) -> Iterator[_R]:
    """The results of tasks, in order; `count` more are started before each is waited for."""
    waiting: deque[Callable[[], _R]] = deque()
    for task in tasks:
        waiting.append(start(task))
        if len(waiting) > count:
            yield waiting.popleft()()
    for finish in waiting:
        yield finish()
