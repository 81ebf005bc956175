"""safetensors files: networks whole, with graph and metadata in the header; and state dicts."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path

import numpy as np

from squeezekit.errors import FormatError, InputError, LimitError, UnsupportedError
from squeezekit.files import read_bytes, write_whole
from squeezekit.interop import torchvision
from squeezekit.sqz.admission import admit
from squeezekit.sqz.graph import parse
from squeezekit.sqz.limits import DEFAULT, TRUSTED, Limits
from squeezekit.sqz.metadata_json import from_json, to_json
from squeezekit.sqz.network import Floats, Network, SharedTensor, Tensor

# Keys of the header's free-form metadata.
GRAPH_KEY = "squeezekit.graph"  # the ONNX graph without its weights, base64
METADATA_KEY = "squeezekit.metadata"  # JSON
SHARED_KEY = "squeezekit.shared"  # JSON list of the tensors that share their values


def write(network: Network, path: Path | str) -> None:
    """Write a network; shared weights are written as plain floats, and shared again by `read`.

    Raises:
        InputError: if the file cannot be written, or the package safetensors is missing.
    """
    _require_package()
    from safetensors.numpy import save

    shared = [n for n, tensor in network.tensors.items() if isinstance(tensor, SharedTensor)]
    header = {
        "format": "pt",  # what other programs look for
        GRAPH_KEY: base64.b64encode(network.graph).decode("ascii"),
        METADATA_KEY: to_json(network.metadata),
        SHARED_KEY: json.dumps(shared),
    }
    values = {name: np.ascontiguousarray(value) for name, value in network.values().items()}
    write_whole(path, _in_order(save(values, header)))


def _in_order(data: bytes) -> bytes:
    """The same file with its free-form metadata sorted: safetensors writes it in any order."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors stay aligned
    return len(text).to_bytes(8, "little") + text + data[end:]


def read(path: Path | str, limits: Limits | None = DEFAULT) -> Network:
    """Read a network that `write` wrote, or a state dict that `interop.torchvision` knows.

    Raises:
        InputError: if the file is damaged, or the package safetensors is missing.
        UnsupportedError: if it holds weights of a network that is not known.
        LimitError: if its graph asks for more than the limits allow; None trusts it.
    """
    _require_package()
    from safetensors import SafetensorError, safe_open

    read_bytes(path)  # for the sentence where there is no such file
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            state = {name: _float32(path, name, file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path}: is not a safetensors file, or damaged ({error})") from None
    except TypeError as error:
        raise UnsupportedError(f"{path}: holds numbers that are not float32 ({error})") from None
    if GRAPH_KEY not in header:
        return torchvision.from_state_dict(state, path)
    try:
        return _network(header, state, limits)
    except LimitError as error:
        raise LimitError(f"{path}: {error}") from None
    except (KeyError, ValueError, RecursionError, binascii.Error, FormatError) as error:
        raise InputError(f"{path}: its header is damaged ({error})") from None


def _network(header: dict[str, str], state: dict[str, Floats], limits: Limits | None) -> Network:
    graph = base64.b64decode(header[GRAPH_KEY], validate=True)
    model = parse(graph)
    given = {value.name for value in model.graph.input}
    given |= {tensor.name for tensor in model.graph.initializer}
    given |= {name for node in model.graph.node for name in node.output}
    order = [name for node in model.graph.node for name in node.input if name not in given]
    # In the order of the graph; safetensors sorts by name.
    tensors: dict[str, Tensor] = {name: state[name] for name in dict.fromkeys(order) if name}
    shared = json.loads(header.get(SHARED_KEY, "[]"))
    if not isinstance(shared, list) or not all(name in tensors for name in map(str, shared)):
        raise ValueError("the list of shared tensors is not a list")
    for name in shared:
        tensors[name] = SharedTensor.from_values(state[name])
    metadata = from_json(header[METADATA_KEY])
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    file_bytes = 4 * sum(tensor.size for tensor in tensors.values())
    admit(graph, metadata, shapes, file_bytes, limits or TRUSTED)
    return Network(graph, tensors, metadata)


def _float32(path: Path | str, name: str, values: np.ndarray) -> Floats:
    if not np.issubdtype(values.dtype, np.floating):
        raise UnsupportedError(f"{path}: {name} is {values.dtype}, not float32")
    with np.errstate(over="ignore"):  # what float32 lacks becomes infinite
        return values.astype(np.float32, copy=False)


def _require_package() -> None:
    try:
        import safetensors  # noqa: F401
    except ImportError:
        raise InputError(
            "safetensors files need one more package: pip install squeezekit[train]"
        ) from None
