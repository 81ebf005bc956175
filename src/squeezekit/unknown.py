"""Gives a network one more class, "unknown": photos of none of its classes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from squeezekit.data.folders import ImageSet
from squeezekit.errors import InputError, UnsupportedError
from squeezekit.models.head import linear_head, with_one_more_output
from squeezekit.progress import Progress, silent
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.images import prepare_file
from squeezekit.sqz.network import Network

UNKNOWN = "unknown"
"""The name of the class."""

FEWEST_PHOTOS = 50
"""Of known things held out, and of others: fewer say nothing about a share of a few percent."""

_PENALTY = 10.0
_STEPS = 30
_CHECKED = 20

_Doubles = npt.NDArray[np.float64]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class UnknownRule:
    """How well a network tells photos of other things from those that it knows.

    Attributes:
        known: held-out photos of known things; the threshold was set on them.
        known_refused: percent of these that are answered with "unknown".
        others: photos of other things, that the class was not fitted to.
        others_accepted: percent of these that are answered with a class.
        auroc: how often a photo of a known thing is less unknown than one of another thing, 0 to 1.
    """

    known: int
    known_refused: float
    others: int
    others_accepted: float
    auroc: float

    def as_json(self) -> dict[str, Any]:
        """All of it, for `json.dumps`."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return (
            f"unknown: {self.known_refused:.1f}% of {self.known:,} photos of known things are "
            f"refused, {self.others_accepted:.1f}% of {self.others:,} photos of other things are "
            f"accepted (AUROC {self.auroc:.3f})"
        )


def with_unknown(
    network: Network,
    training: ImageSet,
    held_out: ImageSet,
    others: ImageSet,
    *,
    keep: float = 0.95,
    progress: Progress = silent,
) -> tuple[Network, UnknownRule]:
    """The network with a class "unknown" behind its own, for photos of other things.

    Its row in the last layer is a logistic regression on the features, of the training photos
    against four fifths of the others, on top of the logits that are there. Then its bias is set so
    that the given share of the right answers on held-out photos stays. So every program that runs
    the network answers "unknown", and the order of the known classes never changes.

    Args:
        network: must end in a layer of its own; batch norms folded.
        training: photos of known things, which the network may have been trained on.
        held_out: other photos of known things, labelled.
        others: photos of anything else, at least 250.
        keep: the share of right answers on held-out photos that stays, 0 to 1.
        progress: called with the number of photos done, as task "unknown".

    Raises:
        InputError: if there are too few photos, or the network has such a class already.
        UnsupportedError: if the network does not end in a plain layer.
    """
    metadata = network.metadata
    if UNKNOWN in metadata.labels:
        raise InputError(f"{metadata.name} has a class {UNKNOWN!r} already")
    if not metadata.labels or metadata.output != "logits":
        raise UnsupportedError(
            f"{metadata.name} gets no class {UNKNOWN!r}: it needs names of its classes, and logits"
        )
    if not 0.5 <= keep < 1:
        raise InputError(f"keep must be at least 0.5 and below 1, not {keep}")
    if len(held_out) < FEWEST_PHOTOS or len(others) < 5 * FEWEST_PHOTOS:
        raise InputError(
            f"{UNKNOWN!r} needs at least {FEWEST_PHOTOS} held-out photos of known things, and "
            f"{5 * FEWEST_PHOTOS} of others, not {len(held_out)} and {len(others)}"
        )
    total = len(training) + len(held_out) + len(others)
    features = Features(network)
    known, _ = features.of(training, progress, 0, total)
    apart, read = features.of(held_out, progress, len(training), total)
    strange, _ = features.of(others, progress, len(training) + len(held_out), total)
    test = np.arange(len(strange)) % 5 == 0
    rows = np.concatenate([known, strange[~test]])
    is_other = np.arange(len(rows)) >= len(known)
    row, bias = _fitted(rows, _total(features.logits(rows)), is_other)
    # Measured with the row that the network gets: where weights share values, it is rounded.
    made = with_one_more_output(network, row, bias, UNKNOWN)
    scores = _scores(made, apart)
    right = features.logits(apart).argmax(axis=1) == held_out.targets[read]
    if not right.any():
        raise InputError("the network classifies none of the held-out photos right")
    bias += float(np.quantile(scores[right], 1 - keep, method="lower"))
    made = with_one_more_output(network, row, bias, UNKNOWN)
    _check(made, held_out, apart, read)
    rule = _measured(_scores(made, apart), _scores(made, strange[test]))
    return made.with_step(str(rule)), rule


def auroc(known: _Doubles, others: _Doubles) -> float:
    """How often a known photo has a higher score than another; equal ones count by half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, known, "left") + np.searchsorted(ordered, known, "right")
    return float(below.mean() / 2 / len(others))


class Features:
    """What the last layer of a network sees of photos, averaged over places."""

    def __init__(self, network: Network) -> None:
        self._network = network
        body, self._weight, self._bias = linear_head(network)
        self._body = from_network(body, precision="float")

    def of(
        self, images: ImageSet, progress: Progress, done: int, total: int
    ) -> tuple[_Doubles, _Flags]:
        """Features (n, features) of the images that can be read, and which these are (N,)."""
        found: list[_Doubles] = []
        read = np.zeros(len(images), bool)
        for i, path in enumerate(images.paths):
            try:
                x = prepare_file(path, self._network.metadata.preprocessing)[np.newaxis]
            except InputError:
                continue
            finally:
                progress("unknown", done + i + 1, total)
            read[i] = True
            values = self._body.logits(x).reshape(self._weight.shape[1], -1)  # (features, places)
            found.append(values.mean(axis=1, dtype=np.float64))
        if not found:
            raise InputError(f"none of the {len(images)} images in {images.root} can be read")
        return np.stack(found), read

    def logits(self, features: _Doubles) -> _Doubles:
        """Logits (n, classes) of features."""
        return np.asarray(features @ self._weight.T.astype(np.float64) + self._bias)


def _scores(network: Network, features: _Doubles) -> _Doubles:
    """The best known logit less that of the unknown, (n,): below 0 the answer is "unknown"."""
    _, weight, bias = linear_head(network)
    logits = features @ weight.T.astype(np.float64) + bias
    return np.asarray(logits[:, :-1].max(axis=1) - logits[:, -1])


def _total(logits: _Doubles) -> _Doubles:
    """The logarithm of the sum of the exponentials, (n,)."""
    most = logits.max(axis=1)
    return np.asarray(most + np.log(np.exp(logits - most[:, np.newaxis]).sum(axis=1)))


def _fitted(features: _Doubles, known: _Doubles, is_other: _Flags) -> tuple[_Doubles, float]:
    """A row and its bias, by Newton's method: sigmoid(row . x + bias - known) tells others."""
    mean, spread = features.mean(axis=0), max(math.sqrt(features.var(axis=0).mean()), 1e-12)
    x = np.column_stack([(features - mean) / spread, np.ones(len(features))])
    penalty = np.append(np.full(x.shape[1] - 1, _PENALTY), 1e-6)
    w = np.append(np.zeros(x.shape[1] - 1), known.mean())
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ w - known, -30, 30)))
        slope = x.T @ (p - is_other) + penalty * w
        bend = (x * (p * (1 - p))[:, np.newaxis]).T @ x + np.diag(penalty)
        step = np.linalg.solve(bend, slope)
        w -= step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-6:
            break
    row = w[:-1] / spread
    return row, float(w[-1] - row @ mean)


def _measured(known: _Doubles, others: _Doubles) -> UnknownRule:
    return UnknownRule(
        known=len(known),
        known_refused=100 * float((known < 0).mean()),
        others=len(others),
        others_accepted=100 * float((others >= 0).mean()),
        auroc=auroc(known, others),
    )


def _check(network: Network, images: ImageSet, features: _Doubles, read: _Flags) -> None:
    """See that the network itself answers so: something may be behind its last layer."""
    some = np.flatnonzero(read)[:_CHECKED]
    how = network.metadata.preprocessing
    batch = np.stack([prepare_file(images.paths[i], how) for i in some])
    logits = from_network(network, precision="float").logits(batch).astype(np.float64)
    found = logits[:, :-1].max(axis=1) - logits[:, -1]
    expected = _scores(network, features[: len(some)])
    if np.abs(found - expected).max() > 0.01 * np.abs(expected).max() + 1e-4:
        raise UnsupportedError(
            f"{network.metadata.name} gets no class {UNKNOWN!r}: its answers are others"
        )
