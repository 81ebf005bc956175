"""Checks a network's graph, metadata and cost before anything is decoded."""

from __future__ import annotations

import math
from collections.abc import Mapping

from squeezekit.errors import GraphError
from squeezekit.sqz.graph_reader import Graph, read_graph
from squeezekit.sqz.limits import Limits
from squeezekit.sqz.network import Metadata
from squeezekit.sqz.shapes import Cost, Shape, cost

FLOAT_BYTES = 4


def admit(
    graph: bytes,
    metadata: Metadata,
    tensors: Mapping[str, Shape],
    file_bytes: int,
    limits: Limits,
) -> Cost:
    """Check a network that has been read but not decoded; returns its cost.

    Args:
        graph: serialized, without weights.
        metadata: the metadata that it came with.
        tensors: shapes of the weights by name.
        file_bytes: the size in bytes of the file that holds it; larger files may ask for more.
        limits: the limits of whoever opens it.

    Raises:
        GraphError: if the graph is not closed, or parts of the file do not fit each other.
        OperatorError: if it has an operator that no `.sqz` may have.
        LimitError: if it asks for more than the limits allow.
    """
    limits.check("tensors", len(tensors), file_bytes)
    weights = sum(map(math.prod, tensors.values()))
    limits.check("weights", weights, file_bytes)
    read = read_graph(graph, tensors)
    limits.check("tensors", len(read.nodes), file_bytes)
    image = _image(read, metadata)
    found = cost(read, tensors, image)
    limits.check("macs", found.macs // image[0], file_bytes)
    limits.check("memory", found.memory // image[0] + FLOAT_BYTES * weights, file_bytes)
    classes = _classes(read, found, image)
    if (
        read.input.shape and read.input.shape[0] is None
    ):  # any number of images at once: each by itself
        two = cost(read, tensors, (2, *image[1:]))
        if _classes(read, two, (2, *image[1:])) != classes:
            raise GraphError("the graph mixes the images of a batch")
    names = len(metadata.labels) or len(metadata.label_ids)
    if names and names != classes:
        raise GraphError(f"the network has {classes} outputs, but its file names {names} classes")
    return found


def _image(graph: Graph, metadata: Metadata) -> Shape:
    """The shape of the input, which has to be what the preprocessing gives."""
    how = metadata.preprocessing
    stated = graph.input.shape
    if stated is None or len(stated) != 4:
        raise GraphError(f"the graph takes images of shape {stated}, not (N, C, H, W)")
    expected = (how.channels, how.crop, how.crop)
    if any(size not in (None, wanted) for size, wanted in zip(stated[1:], expected, strict=True)):
        raise GraphError(
            f"the graph takes {' x '.join(map(str, stated[1:]))} images, but the preprocessing "
            f"gives {' x '.join(map(str, expected))}"
        )
    return (stated[0] or 1, *expected)


def _classes(graph: Graph, found: Cost, image: Shape) -> int:
    """How many numbers an image becomes."""
    shape = found.shapes[graph.output.name]
    stated = graph.output.shape
    if shape[:1] != image[:1]:
        raise GraphError(f"the graph turns {image[0]} images into an output of shape {shape}")
    if stated is not None and (
        len(stated) != len(shape)
        or any(size not in (None, have) for size, have in zip(stated, shape, strict=True))
    ):
        raise GraphError(f"the graph states {stated} for its output of shape {shape}")
    return math.prod(shape[1:])
