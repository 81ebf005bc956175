"""An If whose condition is known, as the nodes of the branch that it takes."""

from __future__ import annotations

from onnx import GraphProto, NodeProto

from squeezekit.interop.onnx_import.draft import (
    Draft,
    attributes,
    constant_value,
    refuse,
    require_valid,
    sort_nodes,
    stored_constants,
    wanted_by,
)


def branch_of(node: NodeProto, condition: bool, draft: Draft) -> tuple[list[NodeProto], list[str]]:
    """The nodes of a branch, and the values that are its results, in order.

    What the branch makes gets new names, since the other one may have the same.

    Args:
        node: an If.
        condition: which branch.
        draft: gets the branch's constants.

    Raises:
        UnsupportedError: if the branch is missing.
        InputError: if its nodes cannot be put in order.
    """
    graph = attributes(node).get("then_branch" if condition else "else_branch")
    if not isinstance(graph, GraphProto):
        raise refuse(node, "lacks a branch")
    renamed: dict[str, str] = {}

    def own(name: str) -> str:
        renamed[name] = draft.fresh(f"{node.name}/{name}")
        return renamed[name]

    for name, array in stored_constants(graph).items():
        draft.constants[own(name)] = array
    nodes = []
    for i, inner in enumerate(graph.node):
        copy = NodeProto()
        copy.CopyFrom(inner)
        copy.name = f"{node.name}/{inner.name or f'{inner.op_type}_{i}'}"
        copy.output[:] = [own(name) if name else "" for name in inner.output]
        require_valid(copy, draft.version)
        if copy.op_type == "Constant" and not copy.domain:
            draft.constants[copy.output[0]] = constant_value(copy)
        else:
            nodes.append(copy)
    for copy in nodes:
        _rename(copy, renamed)
    made = {name for copy in nodes for name in copy.output}
    known = {name for copy in nodes for name in wanted_by(copy)} - made
    results = [renamed.get(value.name, value.name) for value in graph.output]
    return sort_nodes(nodes, known), results


def _rename(node: NodeProto, renamed: dict[str, str]) -> None:
    """Have a node, and the graphs within it, use values by their new names."""
    node.input[:] = [renamed.get(name, name) for name in node.input]
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            hidden = {t.name for t in graph.initializer} | {v.name for v in graph.input}
            hidden.update(name for inner in graph.node for name in inner.output)
            seen = {old: new for old, new in renamed.items() if old not in hidden}
            for inner in graph.node:
                _rename(inner, seen)
            for value in graph.output:
                value.name = seen.get(value.name, value.name)
