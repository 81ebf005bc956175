"""Confidence that means something: how far it is off, and the temperature that mends it.

Guo et al. 2017, "On Calibration of Modern Neural Networks".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from squeezekit.errors import InputError, UnsupportedError
from squeezekit.models.head import with_scaled_outputs
from squeezekit.runtime.classifier import from_network, softmax
from squeezekit.sqz.network import Floats, Network

BINS = 15
"""As in the paper."""

FEWEST_PHOTOS = 50
"""Fewer held-out photos tell no temperature."""

_FOLDS = 5
_LEAST, _MOST = 0.05, 20.0  # temperatures
_LOWEST_LOGIT = -104.0  # the logarithm of less than any float32: where a probability is 0
_TOLERANCE = 0.01  # of the spread of the logits

_Doubles = npt.NDArray[np.float64]
_Targets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Reliability:
    """How often answers of about the same confidence are right: bins of equal width.

    Attributes:
        images: how many images are in each bin.
        confidence: the mean probability of their first answers, 0 to 1; 0 in an empty bin.
        accuracy: the share that is right, 0 to 1; 0 in an empty bin.
    """

    images: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]

    @property
    def error(self) -> float:
        """The expected calibration error, 0 to 1: |accuracy - confidence|, weighted by images."""
        gaps = (
            count * abs(sure - right)
            for count, sure, right in zip(self.images, self.confidence, self.accuracy, strict=True)
        )
        return math.fsum(gaps) / max(sum(self.images), 1)

    def as_json(self) -> dict[str, Any]:
        """The error and the bins, for `json.dumps`."""
        return {
            "error": self.error,
            "images": list(self.images),
            "confidence": list(self.confidence),
            "accuracy": list(self.accuracy),
        }


def reliability(confidence: Floats | _Doubles, right: npt.NDArray[np.bool_]) -> Reliability:
    """Bins of how sure and how right answers are.

    Args:
        confidence: (N,), the probability of the first answer, 0 to 1.
        right: (N,), whether it is the true class.
    """
    where = np.clip(np.ceil(np.asarray(confidence, np.float64) * BINS).astype(int) - 1, 0, BINS - 1)
    images = np.bincount(where, minlength=BINS)
    most = np.maximum(images, 1)
    sure = np.bincount(where, weights=confidence, minlength=BINS) / most
    share = np.bincount(where, weights=right, minlength=BINS) / most
    return Reliability(tuple(images.tolist()), tuple(sure.tolist()), tuple(share.tolist()))


@dataclass(frozen=True)
class Temperature:
    """What logits are divided by, so that probabilities are as often right as they say.

    Attributes:
        value: above 1 where the network is too sure; 1 where no other helps on other photos.
        images: held-out photos that it was fitted to.
        before: how far confidence was off on these.
        after: how far it is off now, each photo at a temperature that is fitted to the others.
    """

    value: float
    images: int
    before: Reliability
    after: Reliability

    def as_json(self) -> dict[str, Any]:
        """The temperature, and the errors before and after, for `json.dumps`."""
        return {
            "temperature": self.value,
            "images": self.images,
            "calibration_error_before": self.before.error,
            "calibration_error": self.after.error,
        }

    def __str__(self) -> str:
        if self.value == 1.0:
            return (
                f"the confidence stays as it is: no temperature makes it better on {self.images:,} "
                f"held-out photos (expected calibration error {self.before.error:.3f})"
            )
        return (
            f"temperature {self.value:.3g}, fitted on {self.images:,} held-out photos: expected "
            f"calibration error {self.before.error:.3f}, with it {self.after.error:.3f}"
        )


def fit_temperature(logits: Floats, targets: _Targets) -> Temperature:
    """The temperature of the least cross entropy on held-out photos.

    One photo in N + 2 counts as a mistake (the rule of succession, as in Platt 1999), so that a few
    photos that are all right do not make a network sure of everything. The temperature stays 1 if
    others make the cross entropy larger on photos that they were not fitted to.

    Args:
        logits: float32 (N, classes), of photos that the network was not trained on. -inf is a
            probability of 0.
        targets: int64 (N,), the true classes.

    Raises:
        InputError: if there are fewer than `FEWEST_PHOTOS`.
    """
    images = len(targets)
    if images < FEWEST_PHOTOS:
        raise InputError(
            f"no temperature is fitted, so probabilities may be too high: {images} held-out photos "
            f"are too few for that (at least {FEWEST_PHOTOS})"
        )
    scores = _usable(logits)
    scored = scores.astype(np.float32)
    part = np.arange(images) % _FOLDS
    others = np.empty(images)  # (N,), each photo's temperature by the other photos
    for fold in range(_FOLDS):
        apart = part == fold
        others[apart] = _least_loss(scores[~apart], targets[~apart])
    value = _least_loss(scores, targets)
    if _losses(scores, targets, others).mean() >= _losses(scores, targets, 1.0).mean():
        value, others = 1.0, np.ones(images)
    right = scores.argmax(axis=1) == targets
    softened = np.asarray(scores / others[:, np.newaxis], np.float32)
    return Temperature(
        value=value,
        images=images,
        before=reliability(softmax(scored).max(axis=1), right),
        after=reliability(softmax(softened).max(axis=1), right),
    )


def with_temperature(network: Network, temperature: float) -> Network:
    """The network with its logits divided by a number, in the weights of its last layer.

    So every program that runs it gives the new probabilities, and the first answer stays. The
    result is run beside the network.

    Raises:
        UnsupportedError: if the network does not end in a layer that lets a factor through.
    """
    if temperature == 1.0:
        return network
    refused = "no temperature can be put into it, so probabilities may be too high"
    try:
        scaled = with_scaled_outputs(network, 1.0 / temperature)
    except UnsupportedError as error:
        raise UnsupportedError(f"{refused}: {error}") from None
    how = network.metadata.preprocessing
    images = np.random.default_rng(0).standard_normal(
        (4, how.channels, how.crop, how.crop), np.float32
    )  # (4, C, H, W)
    old, new = (
        from_network(each, precision="float").logits(images).astype(np.float64)
        for each in (network, scaled)
    )
    finite = np.isfinite(old) & np.isfinite(new)
    old, new = (np.where(finite, each, np.nan) for each in (old / temperature, new))
    old, new = (each - np.nanmean(each, axis=1, keepdims=True) for each in (old, new))
    if np.nanmax(np.abs(old - new)) > _TOLERANCE * np.nanmax(np.abs(old)) + 1e-5:
        raise UnsupportedError(f"{refused}: its answers would change")
    return scaled


def _usable(logits: Floats) -> _Doubles:
    """Logits in double precision, the best one 0, none below the least that float32 can mean."""
    scores = np.asarray(logits, np.float64)
    return np.asarray(np.maximum(scores - scores.max(axis=1, keepdims=True), _LOWEST_LOGIT))


def _losses(scores: _Doubles, targets: _Targets, temperatures: float | _Doubles) -> _Doubles:
    """Cross entropy of each photo, (N,)."""
    z = scores / np.broadcast_to(np.asarray(temperatures), len(scores))[:, np.newaxis]
    rows = np.arange(len(z))
    return np.asarray(np.log(np.exp(z).sum(axis=1)) - z[rows, targets])


def _least_loss(scores: _Doubles, targets: _Targets) -> float:
    """Where the cross entropy is least; it is convex in 1 / temperature."""
    rows = np.arange(len(scores))
    true = scores[rows, targets]
    others = scores.copy()
    others[rows, targets] = -np.inf
    mistaken = 1.0 / (len(scores) + 2)
    aim = float(((1 - mistaken) * true + mistaken * others.max(axis=1)).mean())

    def slope(inverse: float) -> float:
        powers = np.exp(scores * inverse)
        return float((powers * scores).sum(axis=1) @ (1 / powers.sum(axis=1))) / len(scores) - aim

    low, high = 1 / _MOST, 1 / _LEAST
    for _ in range(60):  # halves the interval of 1 / temperature, in its logarithm
        middle = math.sqrt(low * high)
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 1 / math.sqrt(low * high)
