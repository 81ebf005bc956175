"""Writes a network in the form that each runtime reads, all of them from the same weights.

    python -m squeezekit.speed.prepare WEIGHTS FOLDER

A process of its own, so that the one that takes the times stays small (see `race`).
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from squeezekit.errors import SqueezekitError
from squeezekit.interop import onnx_file
from squeezekit.interop.weights import load_network
from squeezekit.models.fold import fold_batch_norm
from squeezekit.sqz import container
from squeezekit.sqz.graph import parse
from squeezekit.sqz.network import Network, share_equal_values


def write_forms(weights: str, folder: Path) -> None:
    """Write `model.sqz`, `model.onnx`, and for torch's script `model.json` and `weights.npz`.

    Args:
        weights: what `interop.weights.load_network` takes. A `.sqz` is copied as it is; of
            everything else one is made by the entropy coder, batch norms folded.
        folder: an empty one.
    """
    network = load_network(weights)
    if Path(weights).suffix.lower() == ".sqz":
        shutil.copyfile(weights, folder / "model.sqz")
    else:
        network = share_equal_values(fold_batch_norm(network))
        container.write(network, folder / "model.sqz")
    onnx_file.write(network, folder / "model.onnx")
    (folder / "model.json").write_text(json.dumps(plain_form(network)))
    values: dict[str, Any] = {**network.values()}
    np.savez(folder / "weights.npz", **values)


def plain_form(network: Network) -> dict[str, Any]:
    """The graph in words that need neither ONNX nor squeezekit to be read; see `peers`."""
    graph = parse(network.graph).graph
    return {
        "preprocessing": dataclasses.asdict(network.metadata.preprocessing),
        "input": graph.input[0].name,
        "output": graph.output[0].name,
        "nodes": [_plain_node(node) for node in graph.node],
        "shapes": {name: tensor.shape for name, tensor in network.tensors.items()},
    }


def _plain_node(node: NodeProto) -> dict[str, Any]:
    settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {
        "operator": node.op_type,
        "inputs": list(node.input),
        "output": node.output[0],
        "settings": {
            name: value.decode() if isinstance(value, bytes) else value
            for name, value in settings.items()
            if isinstance(value, bytes | int | float | list)
        },
    }


if __name__ == "__main__":
    try:
        write_forms(sys.argv[1], Path(sys.argv[2]))
    except SqueezekitError as error:
        sys.exit(str(error))
