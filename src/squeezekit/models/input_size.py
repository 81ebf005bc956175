"""Makes a network take images of another size, where its layers allow it."""

from __future__ import annotations

import dataclasses

from squeezekit.errors import InputError, UnsupportedError
from squeezekit.models.cost import cost
from squeezekit.sqz.graph import parse
from squeezekit.sqz.network import Network

_LARGEST = 65_536


def with_input_size(network: Network, pixels: int) -> Network:
    """The network for images of `pixels` a side; weights and answers' shape stay.

    The size that images are resized to before the crop changes in proportion.

    Raises:
        InputError: if there cannot be such images, or the network's layers fit its own size alone.
    """
    old = network.metadata.preprocessing
    if not 1 <= pixels <= _LARGEST:
        raise InputError(f"input_size must be a number of pixels, not {pixels}")
    if pixels == old.crop:
        return network
    answers = cost(network).layers[-1].output_shape
    model = parse(network.graph)
    del model.graph.value_info[:]
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = pixels
    resize = max(pixels, round(old.resize * pixels / old.crop))
    preprocessing = dataclasses.replace(old, crop=pixels, resize=resize)
    metadata = dataclasses.replace(network.metadata, preprocessing=preprocessing)
    resized = dataclasses.replace(
        network,
        graph=model.SerializeToString(deterministic=True),
        metadata=metadata.uncalibrated(),
    )
    refused = InputError(
        f"{network.metadata.name} takes {old.crop} pixels a side, and cannot be made for {pixels}: "
        "its layers do not fit"
    )
    try:
        fits = cost(resized).layers[-1].output_shape == answers
    except (UnsupportedError, InputError, ValueError) as error:
        raise refused from error
    if not fits:
        raise refused
    return resized


def told_cost(resized: Network, network: Network) -> str:
    """What the size costs in work for each image, compared with the network's own, for people."""
    sizes = [each.metadata.preprocessing.crop for each in (resized, network)]
    macs = [cost(each).macs for each in (resized, network)]
    return (
        f"at {sizes[0]} pixels a side an image takes {macs[0] / 1e6:,.0f} million "
        f"multiply-accumulates, {macs[0] / macs[1]:.2f} times as many as at {sizes[1]}"
    )
