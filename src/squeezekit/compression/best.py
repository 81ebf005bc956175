"""The method "best": the smallest file for the smallest change of the outputs; needs no labels.

It rounds the whole network by second-order information (see `rounder`) and searches for a size or
a quality. If training time is given, it trains the rounded network and rounds it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from squeezekit.compression.checks import above_zero, at_least, only_one, only_with_photos, within
from squeezekit.compression.curve import Curve
from squeezekit.compression.method import Method, measure_of
from squeezekit.compression.stages import Stages
from squeezekit.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from squeezekit.compression.recovery import Effort
    from squeezekit.compression.rounder import Point, Rounder
    from squeezekit.compression.task import Task
    from squeezekit.compression.work import Work
    from squeezekit.data.folders import ImageSet
    from squeezekit.data.photos import Photos
    from squeezekit.progress import Progress
    from squeezekit.sqz.network import Metadata, Network

CALIBRATION_IMAGES = 250
"""How many photos of 227 x 227 pixels are used. If the network's images are smaller, more are used.

Rounding must know how the inputs of each weight vary together. That takes many thousands of
positions, and a small image has few: 250 digits of 8 x 8 pixels are far too few.
"""

USUAL_DROP = 1.0
"""How many points of top-1 may be lost on labelled photos if nothing else is asked for."""

USUAL_DIVERGENCE = 0.02
"""How many nats per image the outputs may diverge if photos have no labels. At 0.022, on other
photos, the published SqueezeNet kept its accuracy and gave the same first answer for nine photos in
ten. At 0.062 it lost two points (bench/results/best_published_network.json)."""


@dataclass(frozen=True, kw_only=True)
class Best(Method):
    """Make the smallest file within a size or a loss, by second-order rounding. The default.

    It needs a few hundred photos of the kind that the network is for. If they have labels, these
    are used only to measure. If you ask for nothing, you get the smallest file tried that loses at
    most 1.0 point of top-1 on held-out photos. If the photos have no labels, or every file tried
    loses more, you get the smallest file whose outputs diverge by at most 0.02 nats per image.
    Without photos nothing can tell what rounding costs, so nothing is rounded, and the file is
    lossless.

    Attributes:
        target_bytes: the largest size that the file may have; it will be at most 1% smaller.
        max_drop: how many points of top-1 may be lost on held-out photos, which need labels.
        max_divergence: how far the outputs may move, as Kullback-Leibler divergence in nats per
            image, on the photos used for rounding. On other photos it is about one and a half
            times as much.
        price: the price of a bit, in nats of divergence. It sets size and loss directly, without a
            search. A search starts at 0.06 divided by the number of weights.
        minutes: how long to train between two roundings, and after the last. In that time the
            rounded network learns to answer as the original does. Labels are not used. A fifth of
            the photos is kept apart, and judges which network is kept. A size that rounding alone
            does not survive is reached in steps.
        epochs: how many times that training sees each photo, instead of minutes.
        finetune: other photos for that training. A folder is searched at any depth.
        like: a .sqz that is out there already. Its shared values are kept, and its levels where the
            loss does not ask for a change, so that `squeezekit delta` gives a small update. All
            sizes that are asked for, searched and drawn are then those of the update.
        mirror: use mirrored photos as well: a better result in twice the time.
        curve: measure the accuracy at seven sizes as well; takes several times as long.
        calibration_images: how many photos to use for rounding. The default is 250, or more if the
            network's images are smaller than 227 pixels.
        positions: how many positions of a layer's output each photo adds to the statistics.
        sweeps: how many times each weight is reconsidered.
        temperature: softens the outputs that rounding tries to keep. The default is 1, or 2 if the
            network is very sure about the photos.
        mantissa_bits: how many mantissa bits each number in the file has, 1 to 23; 10 is float16's.
        batch: how many photos are computed at a time.
        coder: "entropy", "huffman" (larger, as in the paper) or "dense" (not compressed).
        seed: starts all random numbers: the same seed gives the same file.
    """

    target_bytes: int | None = None
    max_drop: float | None = None
    max_divergence: float | None = None
    minutes: float | None = None
    epochs: int | None = None
    finetune: Photos | None = None
    like: Path | str | bytes | None = None
    mirror: bool = False
    curve: bool = False
    calibration_images: int | None = None
    price: float | None = None
    temperature: float | None = None
    positions: int = 600
    sweeps: int = 2
    mantissa_bits: int = 10
    batch: int = 25

    def __post_init__(self) -> None:
        super().__post_init__()
        only_one(
            target_bytes=self.target_bytes, max_drop=self.max_drop,
            max_divergence=self.max_divergence, price=self.price,
        )  # fmt: skip
        only_one(minutes=self.minutes, epochs=self.epochs)
        at_least("target_bytes", self.target_bytes, 1)
        at_least("max_drop", self.max_drop, 0)
        at_least("epochs", self.epochs, 1)
        for name in ("max_divergence", "minutes", "price", "temperature"):
            above_zero(name, getattr(self, name))
        for name in ("calibration_images", "positions", "batch"):
            at_least(name, getattr(self, name), 1)
        at_least("sweeps", self.sweeps, 0)
        within("mantissa_bits", self.mantissa_bits, 1, 23)
        if self.finetune is not None and self.minutes is None and self.epochs is None:
            raise InputError(
                "finetune names photos to train on: say for how long too, by minutes or epochs"
            )

    @property
    def chooses(self) -> bool:
        """True if the drop in accuracy decides: then held-out photos choose the file."""
        others = (self.target_bytes, self.max_divergence, self.price)
        return all(value is None for value in others)

    def more_photos(self, metadata: Metadata) -> list[ImageSet]:
        """The photos of `finetune`."""
        from squeezekit.data.photos import any_images

        return [] if self.finetune is None else [any_images(self.finetune, metadata)]

    @property
    def effort(self) -> Effort | None:
        """How much to train between two roundings; None is not at all."""
        if self.minutes is None and self.epochs is None:
            return None
        from squeezekit.compression.recovery import Effort

        return Effort(self.epochs, self.minutes)

    def compressed(
        self, network: Network, task: Task | None, work: Work, progress: Progress
    ) -> Stages:
        """Round; if training time is given, train and round again. See `Method.compressed`."""
        from squeezekit.compression.rounder import Rounder
        from squeezekit.compression.search import curve, to_size
        from squeezekit.compression.turns import Turns
        from squeezekit.models.fold import fold_batch_norm

        stages = Stages(measure_of(task), None if task is None else task.choose)
        original = stages.add("float32", fold_batch_norm(network), "dense")
        if task is None:
            return self._without_loss(stages, original)
        if measure_of(task) is None and (self.max_drop is not None or self.curve):
            what = "curve" if self.max_drop is None else "max_drop"
            raise InputError(f"{what} needs labelled photos to measure the accuracy on")
        side = network.metadata.preprocessing.crop
        count = self.calibration_images or CALIBRATION_IMAGES * max(227 // side, 1) ** 2
        turns = None
        if self.effort is not None:
            turns = Turns(original, task, self, work, progress)
        images = task.calibration(count, None if turns is None else turns.rounding)
        rounder = Rounder(network, images, self, progress, work)
        point = self._found(rounder, stages, coarse=turns is not None)
        small, stages.divergence, told = point.network, point.divergence, ""
        if turns is not None:

            def find(rounder: Rounder, size: int | None, start: float | None) -> Point:
                if size is None:
                    return self._found(rounder, stages, start=start)
                return to_size(rounder, size, 0.05, start=start)

            stages.add("rounded", point.network, self.coder)
            turn, told = turns.best(point, images, rounder, find)
            small, stages.divergence, rounder = turn.network, turn.divergence, turns.rounder
        if self.curve:
            points = curve(rounder, stages.told_by)
            paid = "file" if self.like is None else "update"
            stages.curve = Curve(stages.list[0].top1 or 0.0, points, paid)
        small = small.with_step(stages.goal) if stages.goal else small
        stages.goal = ", and ".join(part for part in (stages.goal, told) if part)
        stages.add("coded", small, self.coder)
        return stages

    def _found(
        self, rounder: Rounder, stages: Stages, *, coarse: bool = False, start: float | None = None
    ) -> Point:
        """The point that was asked for; `coarse` if another search will follow."""
        from squeezekit.compression.search import to_divergence, to_quality, to_size

        stages.goal, paid = "", "file" if self.like is None else "update"
        if self.target_bytes is not None:
            return to_size(rounder, self.target_bytes, 0.03 if coarse else 0.01, start=start)
        if self.price is not None:
            return rounder.round(self.price)
        if self.max_divergence is not None or stages.list[0].top1 is None:
            most = self.max_divergence or USUAL_DIVERGENCE
            stages.goal = (
                f"the smallest {paid} tried whose outputs diverge by at most {most:g} nats"
            )
            return to_divergence(rounder, most, start=start)
        drop = USUAL_DROP if self.max_drop is None else self.max_drop
        stages.goal = f"the smallest {paid} tried that loses at most {drop:.1f} points of top-1"
        original = stages.list[0].network
        least = stages.chosen_by(original).top1 - drop - 1e-9  # percentages are not exact
        try:
            return to_quality(
                rounder, lambda rounded: stages.chosen_by(rounded).top1 >= least, start=start
            )
        except InputError:
            if self.max_drop is not None:
                raise
        stages.goal = (
            f"a file whose outputs diverge by at most {USUAL_DIVERGENCE:g} nats: none that was "
            f"tried loses at most {drop:.1f} points of top-1"
        )
        return to_divergence(rounder, USUAL_DIVERGENCE, start=start)

    def _without_loss(self, stages: Stages, network: Network) -> Stages:
        from squeezekit.sqz.network import share_equal_values

        only_with_photos(self.changed() - {"coder", "seed"})
        stages.goal = "stored without loss, as no photos tell what rounding costs"
        stages.add("coded", share_equal_values(network), self.coder)
        return stages
