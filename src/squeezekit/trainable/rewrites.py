"""Rewrites a graph's nodes so that training is faster, without changing results or gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from squeezekit.sqz.nodes import RESHAPING, Node, uses


def without_softmax(nodes: list[Node], output: str) -> list[Node]:
    """Turn the Softmax that the graph ends in into nothing; there may be reshapes behind it.

    Raises:
        UnsupportedError: if it gives probabilities in another way.
    """
    makers = {node.output: i for i, node in enumerate(nodes)}
    i = makers[output]
    while nodes[i].op in RESHAPING:
        i = makers[nodes[i].inputs[0]]
    if nodes[i].op != "Softmax":
        raise nodes[i].unsupported("another way to probabilities than a softmax at its end")
    return [*nodes[:i], dataclasses.replace(nodes[i], op="Identity"), *nodes[i + 1 :]]


def with_relus_behind_pools(nodes: Sequence[Node], output: str) -> list[Node]:
    """Let ReLUs come after max-pooling, where there are a quarter of the values.

    Results and gradients are exactly the same: the largest of ReLUs is the ReLU of the largest.
    """
    used = uses(nodes, output)
    maker = {node.output: node for node in nodes}
    spare = {node.output for node in nodes if node.op == "Relu" and used[node.output] == 1}
    early: set[str] = set()  # what ReLUs that move away give
    late: set[str] = set()  # what the pools before them give
    for pool in (node for node in nodes if node.op == "MaxPool"):
        source = maker.get(pool.inputs[0])
        if source is None:
            continue
        joined = source.op == "Concat" and used[source.output] == 1
        names = set(source.inputs if joined else pool.inputs)
        if names <= spare:
            early |= names
            late.add(pool.output)
    moved = []
    for node in nodes:
        if node.output in early:
            moved.append(dataclasses.replace(node, op="Identity"))
        elif node.output in late:
            pooled = f"{node.output} before its ReLU"
            moved.append(dataclasses.replace(node, outputs=(pooled,)))
            moved.append(Node(node.name, "Relu", (pooled,), node.outputs, {}, node.opset))
        else:
            moved.append(node)
    return moved


# Operators whose gradient does not need what they gave.
_FORGETFUL = ("Add", "BatchNormalization", "Concat", "Conv", "Gemm", "MaxPool")


def with_relus_in_place(nodes: Sequence[Node], output: str) -> list[Node]:
    """Let a ReLU overwrite its input where nothing else wants it: large maps are slow to write."""
    maker = {node.output: node.op for node in nodes}
    used = uses(nodes, output)
    return [
        dataclasses.replace(node, attributes={"in_place": True})
        if node.op == "Relu"
        and maker.get(node.inputs[0]) in _FORGETFUL
        and used[node.inputs[0]] == 1
        else node
        for node in nodes
    ]
