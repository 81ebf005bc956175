"""Checks an `.onnx` file from a stranger for what it may not do, before anything else reads it.

A model can name other files that hold its weights. Its maker chooses the name, so it may only be a
file that came with the model: beside it, or in a folder beside it, and not a link.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from squeezekit.errors import InputError, UnsupportedError
from squeezekit.sqz.protobuf import BYTES, Field, Message, MessageError

MOST_NODES = 100_000
"""The most nodes of a model, with each function written out where it is called."""

_DEEPEST = 16
"""How deep subgraphs or functions may be nested."""

_ENDLESS = (b"Loop", b"Scan", b"SequenceMap")
"""Operators that run a graph as often as a number in the file says."""

# The numbers of the fields of ONNX's messages that matter here (onnx.proto).
_MODEL_GRAPH, _MODEL_FUNCTION = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN, _NODE_OVERLOAD = 4, 5, 7, 8
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES = 22, 23
_FUNCTION_NAME, _FUNCTION_NODE, _FUNCTION_DOMAIN, _FUNCTION_OVERLOAD = 1, 7, 10, 13
_SPARSE_VALUES, _SPARSE_INDICES = 1, 2
_TENSOR_EXTERNAL = 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2

_Function = tuple[bytes, bytes, bytes]
"""Domain, name, overload."""


def check(path: Path, data: bytes) -> list[Path]:
    """Refuse a model that needs something that no classifier needs.

    Args:
        path: the path of the model.
        data: its bytes.

    Returns:
        The files beside it in which its weights lie.

    Raises:
        InputError: if the bytes are no model; where weights are said to lie outside of the
            model's folder, behind a link, or in what is no file; where functions call each other
            without end.
        UnsupportedError: if an operator runs a graph again and again.
    """
    scan = _Scan()
    try:
        scan.model(Message.whole(data))
    except MessageError as error:
        raise InputError(f"{path}: is not an ONNX model ({error})") from None
    except (UnsupportedError, InputError) as error:
        raise type(error)(f"{path}: {error}") from None
    return [_beside(path, name) for name in dict.fromkeys(scan.outside)]


def _beside(path: Path, name: str) -> Path:
    """A file that came with the model."""
    parts = PurePosixPath(name).parts
    windows = PureWindowsPath(name)
    refused = InputError(
        f"{path}: its weights are said to lie in {name!r}, which may only be a plain file in the "
        "model's own folder"
    )
    if not parts or name.startswith("/") or windows.drive or windows.root:
        raise refused
    if ".." in parts or ".." in windows.parts or "\0" in name or "\\" in name:
        raise refused
    place = path.parent
    try:
        for part in parts:
            place = place / part
            found = os.lstat(place)
            if stat.S_ISLNK(found.st_mode):
                raise refused
    except OSError as error:
        raise InputError(
            f"{path}: the file with its weights cannot be read ({error.strerror})"
        ) from None
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise refused
    return place


class _Scan:
    """Goes through all of a model once.

    Attributes:
        outside: the names of files that tensors are said to lie in.
    """

    def __init__(self) -> None:
        self.outside: list[str] = []
        self._functions: dict[_Function, list[_Function]] = {}  # by name, what each calls

    def model(self, model: Message) -> None:
        calls: list[_Function] = []
        for field in _messages(model):
            if field[0] == _MODEL_GRAPH:
                calls += self._graph(model.part(field), 0)
            elif field[0] == _MODEL_FUNCTION:
                self._function(model.part(field))
        sizes: dict[_Function, int] = {}
        if sum(self._size(call, sizes, 0) for call in calls) > MOST_NODES:
            raise InputError(f"has more than {MOST_NODES:,} nodes")

    def _size(self, name: _Function, sizes: dict[_Function, int], depth: int) -> int:
        """Nodes that a node becomes when all functions are put in."""
        if name not in self._functions:
            return 1
        if name not in sizes:
            if depth > _DEEPEST:
                raise InputError("has functions that call each other too deeply")
            sizes[name] = sum(self._size(call, sizes, depth + 1) for call in self._functions[name])
        return sizes[name]

    def _function(self, function: Message) -> None:
        nodes: list[_Function] = []
        name = {_FUNCTION_NAME: b"", _FUNCTION_DOMAIN: b"", _FUNCTION_OVERLOAD: b""}
        for field in _messages(function):
            if field[0] == _FUNCTION_NODE:
                nodes += self._node(function.part(field), 0)
            elif field[0] in name:
                name[field[0]] = function.bytes(field)
        key = (name[_FUNCTION_DOMAIN], name[_FUNCTION_NAME], name[_FUNCTION_OVERLOAD])
        self._functions[key] = nodes

    def _graph(self, graph: Message, depth: int) -> list[_Function]:
        """What is called in a graph and in those within it."""
        if depth > _DEEPEST:
            raise InputError("has graphs within graphs, too deeply")
        calls: list[_Function] = []
        for field in _messages(graph):
            if field[0] == _GRAPH_NODE:
                calls += self._node(graph.part(field), depth)
            elif field[0] == _GRAPH_INITIALIZER:
                self._tensor(graph.part(field))
            elif field[0] == _GRAPH_SPARSE:
                self._sparse(graph.part(field))
        return calls

    def _node(self, node: Message, depth: int) -> list[_Function]:
        name = {_NODE_OPERATOR: b"", _NODE_DOMAIN: b"", _NODE_OVERLOAD: b""}
        calls: list[_Function] = []
        for field in _messages(node):
            if field[0] == _NODE_ATTRIBUTE:
                calls += self._attribute(node.part(field), depth)
            elif field[0] in name:
                name[field[0]] = node.bytes(field)
        operator = name[_NODE_OPERATOR]
        if operator in _ENDLESS:
            raise UnsupportedError(f"uses the operator {operator.decode()}: not supported")
        return [(name[_NODE_DOMAIN], operator, name[_NODE_OVERLOAD]), *calls]

    def _attribute(self, attribute: Message, depth: int) -> list[_Function]:
        calls: list[_Function] = []
        for field in _messages(attribute):
            if field[0] in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                calls += self._graph(attribute.part(field), depth + 1)
            elif field[0] in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
                self._tensor(attribute.part(field))
            elif field[0] in (_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES):
                self._sparse(attribute.part(field))
        return calls

    def _sparse(self, sparse: Message) -> None:
        for field in _messages(sparse):
            if field[0] in (_SPARSE_VALUES, _SPARSE_INDICES):
                self._tensor(sparse.part(field))

    def _tensor(self, tensor: Message) -> None:
        for field in _messages(tensor):
            if field[0] != _TENSOR_EXTERNAL:
                continue
            entry = tensor.part(field)
            found = {part[0]: entry.bytes(part) for part in _messages(entry)}
            if found.get(_ENTRY_KEY) == b"location":
                location = found.get(_ENTRY_VALUE, b"")
                self.outside.append(location.decode("utf-8", "surrogateescape"))


def _messages(message: Message) -> Iterator[Field]:
    """The fields that hold bytes, which messages are."""
    return (field for field in message.fields() if field[1] == BYTES)
