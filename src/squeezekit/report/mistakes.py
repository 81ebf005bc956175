"""The worst mistakes of an evaluation: images predicted wrong with the highest confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from squeezekit.errors import InputError
from squeezekit.evaluation import Evaluation
from squeezekit.report.thumbnails import Thumbnail, thumbnail
from squeezekit.runtime.images import ImageFile, open_image


@dataclass(frozen=True)
class Mistake:
    """An image and what it was taken for.

    Attributes:
        path: the path of the image.
        truth, predicted: labels.
        confidence: probability given to `predicted`, 0 to 1.
        image: a small copy as a data URI; empty if the image can no longer be read.
        pixelated: whether it is so small that its pixels should stay sharp when enlarged.
    """

    path: ImageFile
    truth: str
    predicted: str
    confidence: float
    image: str
    pixelated: bool


def worst_mistakes(evaluation: Evaluation, labels: Sequence[str], count: int = 12) -> list[Mistake]:
    """The mistakes with the highest confidence, worst first; at most `count`."""
    wrong = np.flatnonzero(evaluation.ranked[:, 0] != evaluation.targets)
    worst = wrong[np.argsort(-evaluation.confidence[wrong], kind="stable")][:count]
    return [_mistake(evaluation, labels, int(i)) for i in worst]


def _mistake(evaluation: Evaluation, labels: Sequence[str], i: int) -> Mistake:
    path = evaluation.paths[i]
    try:
        copy = thumbnail(open_image(path))
    except InputError:
        copy = Thumbnail("", pixelated=False)
    return Mistake(
        path=path,
        truth=labels[evaluation.targets[i]],
        predicted=labels[evaluation.ranked[i, 0]],
        confidence=float(evaluation.confidence[i]),
        image=copy.uri,
        pixelated=copy.pixelated,
    )
