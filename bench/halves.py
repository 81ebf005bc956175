"""The authors' published network, and `imagenet-500` in two: to calibrate with, and to measure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from squeezekit.data.folders import ImageSet, scan
from squeezekit.data.labelling import matched, with_labels
from squeezekit.interop.weights import load_network
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.images import open_image, prepare
from squeezekit.sqz.network import Floats, Network, Preprocessing


def published_and_halves(data: Path) -> tuple[Network, ImageSet, ImageSet]:
    """The network without labels; files whose number divides by 4, and the others."""
    network = load_network(data / "han-2016" / "compressed_SqueezeNet.net")
    images = scan(data / "imagenet-500")
    metadata = with_labels(
        network.metadata, 1000, labels_file=data / "imagenet-classes.tsv", image_set=images
    )
    images = matched(images, metadata)
    numbers = [int(Path(str(path)).stem) for path in images.paths]
    ours = images.subset([i for i, n in enumerate(numbers) if n % 4 == 0])
    others = images.subset([i for i, n in enumerate(numbers) if n % 4])
    return network, ours, others


def pixels_of(images: ImageSet, preprocessing: Preprocessing) -> Floats:
    """All of them, prepared: (N, C, H, W)."""
    return np.stack([prepare(open_image(path), preprocessing) for path in images.paths])


def logits_on(pixels: Floats) -> Callable[[Network], torch.Tensor]:
    """What a network answers on these images: logits (N, classes)."""

    def logits(network: Network) -> torch.Tensor:
        classifier = from_network(network)
        parts = np.array_split(pixels, 10)
        return torch.from_numpy(np.concatenate([classifier.logits(part) for part in parts]))

    return logits
