"""How far a training is on its schedule: by iterations, or by the minutes that it may take."""

from __future__ import annotations

import time
from collections.abc import Callable

from squeezekit.errors import InputError
from squeezekit.training.recipe import Recipe, learning_rate

_VALIDATIONS = 5.0
"""Kept back: one ends the last epoch, one measures on the photos that chose nothing, one measures
the start on them where it knew classes, and the page is written. With less, 540 s became 579."""


class Pace:
    """The learning rate of each iteration, and when the time is over.

    With `recipe.minutes` the whole schedule, warm-up included, is fitted to as many iterations as
    there is time for, but no more than the recipe has. How many that are is estimated anew at each
    iteration, from how long those before it took, as other work on the machine comes and goes.

    Attributes:
        over: whether the time was over; never without `minutes`.
    """

    def __init__(
        self, recipe: Recipe, steps_an_epoch: int, processes: int, began: float | None
    ) -> None:
        """Begin to count.

        Args:
            recipe: its schedule, epochs and minutes count here.
            steps_an_epoch: iterations.
            processes: that train together.
            began: the `time.perf_counter()` that the minutes count from; None is now.

        Raises:
            InputError: if processes would have to agree on the time.
        """
        if recipe.minutes is not None and processes > 1:
            raise InputError("minutes go with one process: give epochs to several")
        self._recipe = recipe
        self._steps_an_epoch = steps_an_epoch
        self._steps = steps_an_epoch * recipe.epochs
        now = time.perf_counter()
        self._end = None
        if recipe.minutes is not None:
            self._end = (now if began is None else began) + 60 * recipe.minutes
        self._first: tuple[int, float] | None = None  # iteration that was the first here, and when
        self.over = False

    def time_validation(self, validate: Callable[[], object] | None) -> None:
        """Find out how much of the time has to be kept back, if there is a limit."""
        if self._end is None or validate is None:
            return
        start = time.perf_counter()
        validate()
        self._end -= _VALIDATIONS * (time.perf_counter() - start)

    def rate(self, step: int) -> float:
        """The learning rate of iteration `step`, counted from 0, which begins now."""
        steps = self._planned(step)
        share = steps / max(self._steps, 1)
        return learning_rate(self._recipe, step, round(steps), self._steps_an_epoch * share)

    def is_over(self) -> bool:
        """Whether there is no time for another iteration."""
        self.over = self._end is not None and time.perf_counter() >= self._end
        return self.over

    def _planned(self, step: int) -> float:
        """How many iterations there will be."""
        if self._end is None:
            return self._steps
        now = time.perf_counter()
        if self._first is None:
            self._first = step, now
        done = step - self._first[0]
        if not done:
            return self._steps
        each = (now - self._first[1]) / done
        return min(self._steps, step + max(self._end - now, 0.0) / each)
