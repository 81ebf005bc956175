"""The published 8-bit SqueezeNet: reads the authors' `compressed_SqueezeNet.net` (Han et al.)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from squeezekit.errors import InputError
from squeezekit.files import read_bytes
from squeezekit.models.squeezenet import squeezenet, v1_0
from squeezekit.sqz.network import CAFFE, Floats, Network, SharedTensor, Tensor

CENTROIDS = 256
"""Entries of every layer's codebook: its codes have 8 bits."""

LICENCE = "BSD-2-Clause"
PROVENANCE = (
    "compressed_SqueezeNet.net: SqueezeNet v1.0 after Deep Compression at 8 bits, trained on "
    "ImageNet by its authors (Iandola, Han, et al. 2016)"
)


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """One layer as the file holds it.

    Attributes:
        codebook: float32 (256,), in the file's order.
        bias: float32 (out,).
        codes: uint8 (n,), one per stored entry; some entries only fill a long gap.
        gaps: uint8 (n,), 0..15: zeros before each entry.
    """

    codebook: Floats
    bias: Floats
    codes: npt.NDArray[np.uint8]
    gaps: npt.NDArray[np.uint8]

    def weight(self, shape: tuple[int, ...]) -> SharedTensor:
        """The layer's weight of `shape` (out, in, kh, kw).

        Raises:
            ValueError: if the gaps reach past its end.
        """
        values = np.zeros(int(np.prod(shape)), np.float32)
        positions = np.cumsum(self.gaps.astype(np.int64) + 1) - 1
        if len(positions) and positions[-1] >= len(values):
            raise ValueError(f"position {positions[-1]} in a weight of {len(values)}")
        values[positions] = self.codebook[self.codes]
        return SharedTensor.from_values(values.reshape(shape))


def read(path: Path | str) -> Network:
    """Read the file into SqueezeNet v1.0 as Caffe runs it: 227 pixels, conv10 padded by 1.

    The file holds no labels; ImageNet's 1000 classes are in the order of their WordNet ids.

    Raises:
        InputError: if the file is not one of these: every count must add up.
    """
    config = dataclasses.replace(v1_0(input_size=CAFFE.crop), conv10_pad=1)
    network = squeezenet(config, preprocessing=CAFFE)
    names = [name.removesuffix(".weight") for name in network.tensors if name.endswith(".weight")]
    outs = [network.tensors[f"{name}.weight"].shape[0] for name in names]
    tensors: dict[str, Tensor] = {}
    try:
        for name, layer in zip(names, parse(read_bytes(path), outs), strict=True):
            tensors[f"{name}.weight"] = layer.weight(network.tensors[f"{name}.weight"].shape)
            tensors[f"{name}.bias"] = layer.bias
    except ValueError as error:
        raise InputError(
            f"{path}: is not the SqueezeNet authors' compressed .net file ({error})"
        ) from None
    metadata = dataclasses.replace(network.metadata, licence=LICENCE, provenance=(PROVENANCE,))
    return dataclasses.replace(network.with_tensors(tensors), metadata=metadata)


def parse(data: bytes, outs: list[int]) -> list[StoredLayer]:
    """Take the file apart, given the number of output channels of each layer.

    Layout (little endian): a uint32 count of entries for every layer; then per layer the codebook,
    the biases, one code an entry, and the 4-bit gaps, two a byte, low half first.

    Raises:
        ValueError: if the file is shorter or longer than its counts say.
    """
    if len(data) < 4 * len(outs):
        raise ValueError(f"it has only {len(data)} bytes")
    counts = np.frombuffer(data, "<u4", len(outs)).astype(np.int64)
    sizes = 4 * len(outs) + sum(
        4 * CENTROIDS + 4 * out + int(n) + (int(n) + 1) // 2
        for out, n in zip(outs, counts, strict=True)
    )
    if sizes != len(data):
        raise ValueError(f"its counts ask for {sizes} bytes, it has {len(data)}")
    layers, at = [], 4 * len(outs)
    for out, n in zip(outs, counts.tolist(), strict=True):
        codebook = np.frombuffer(data, "<f4", CENTROIDS, at).astype(np.float32)
        at += codebook.nbytes
        bias = np.frombuffer(data, "<f4", out, at).astype(np.float32)
        at += bias.nbytes
        codes = np.frombuffer(data, np.uint8, n, at)
        at += n
        packed = np.frombuffer(data, np.uint8, (n + 1) // 2, at)
        at += len(packed)
        gaps = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:n]
        if not (np.isfinite(codebook).all() and np.isfinite(bias).all()):
            raise ValueError("a value is not a finite number")
        layers.append(StoredLayer(codebook, bias, codes, gaps))
    return layers
