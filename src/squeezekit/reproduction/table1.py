"""Table 1: the published network's parameters and densities, counted in the file itself."""

from __future__ import annotations

import numpy as np

from squeezekit.compression.prune import kept_count, table1
from squeezekit.errors import InputError
from squeezekit.models.cost import ModuleCost, cost
from squeezekit.reproduction.result import Column, Reproduction, Row, Value
from squeezekit.sqz.network import Network, tensor_values
from squeezekit.sqz.nodes import weight_names

PAPER: dict[str, tuple[int, tuple[int, ...], int]] = {
    "conv1": (14_208, (100,), 14_208),
    "fire2": (11_920, (100, 100, 33), 5_746),
    "fire3": (12_432, (100, 100, 33), 6_258),
    "fire4": (45_344, (100, 100, 33), 20_646),
    "fire5": (49_440, (100, 100, 33), 24_742),
    "fire6": (104_880, (100, 50, 33), 44_700),
    "fire7": (111_024, (50, 100, 33), 46_236),
    "fire8": (188_992, (100, 50, 33), 77_581),
    "fire9": (197_184, (50, 100, 30), 77_581),
    "conv10": (513_000, (20,), 103_400),
    "total": (1_248_424, (), 421_098),
}
"""Of each row: parameters, density in percent of s1x1, e1x1 and e3x3, parameters after pruning."""

COLUMNS = (
    Column("parameters", "parameters", "count"),
    Column("density", "density %", "text"),
    Column("after_pruning", "left in the file", "count"),
    Column("shared_to_zero", "shared with 0", "count"),
    Column("together", "together", "count"),
)


def reproduce_table1(network: Network) -> Reproduction:
    """Count a SqueezeNet v1.0 that was pruned to Table 1's densities.

    "Left in the file" are the weights that are not zero, and all biases. The printed densities,
    rounded up, keep more weights: sharing has moved the others to the entry 0 of the layer's
    codebook, so they are not stored. "Together" are both.

    Raises:
        InputError: if the network is no SqueezeNet v1.0 with 1000 classes.
    """
    densities = table1()
    modules = {module.name: module for module in cost(network).modules if module.parameters}
    if (
        modules.keys() != PAPER.keys() - {"total"}
        or set(weight_names(network)) != densities.keys()
        or any(modules[name].parameters != PAPER[name][0] for name in modules)
    ):
        raise InputError(
            f"Table 1 is of SqueezeNet v1.0 with 1000 classes, not of {network.metadata.name}"
        )
    rows = [_row(network, modules[name]) for name in modules]
    sums = {
        c.key: sum(_number(row.values[c.key]) for row in rows) for c in COLUMNS if c.unit == "count"
    }
    rows.append(
        Row(
            "total",
            {
                **{key: Value(number) for key, number in sums.items()},
                "parameters": Value(sums["parameters"], PAPER["total"][0]),
                "after_pruning": Value(sums["after_pruning"], PAPER["total"][2]),
                "together": Value(sums["together"], PAPER["total"][2]),
                "density": Value(""),
            },
        )
    )
    biases = sum(t.size for name, t in network.tensors.items() if name.endswith(".bias"))
    weights = int(sums["after_pruning"]) - biases
    return Reproduction(
        name="table1",
        title="Table 1: SqueezeNet v1.0 under Deep Compression, layer by layer",
        columns=COLUMNS,
        rows=rows,
        notes=(
            f"The file holds {weights:,} weights that are not zero, and {biases:,} biases. The "
            f"paper's {PAPER['total'][2]:,} are the weights that pruning kept, and the biases: "
            f"{PAPER['total'][2] - biases:,} weights. The other {int(sums['shared_to_zero']):,} "
            "were kept by pruning, but sharing put them onto the 0 that every codebook holds, and "
            "so they need not be stored. Even layers of density 100% have such weights.",
            "The 3x3 filters of fire8 are printed as 33%; the row's own count, the total and the "
            "file all say 30%.",
        ),
        details={
            "nonzero_weights": weights,
            "biases": biases,
            "weights_kept_by_pruning": int(sums["together"]) - biases,
        },
    )


def _row(network: Network, module: ModuleCost) -> Row:
    parameters, printed, after = PAPER[module.name]
    names = [f"{module.name}.{part}".rstrip(".") + ".weight" for part, _ in module.densities]
    sizes = [network.tensors[name].size for name in names]
    nonzero = [int(np.count_nonzero(tensor_values(network.tensors[name]))) for name in names]
    biases = module.parameters - sum(sizes)
    kept = [kept_count(size, table1()[name]) for name, size in zip(names, sizes, strict=True)]
    measured = [round(100 * n / size) for n, size in zip(nonzero, sizes, strict=True)]
    return Row(
        module.name,
        {
            "parameters": Value(module.parameters, parameters),
            "density": Value(_slashes(measured), _slashes(printed)),
            "after_pruning": Value(sum(nonzero) + biases, after),
            "shared_to_zero": Value(sum(kept) - sum(nonzero)),
            "together": Value(sum(kept) + biases, after),
        },
    )


def _slashes(values: list[int] | tuple[int, ...]) -> str:
    return " / ".join(map(str, values))


def _number(value: Value) -> int:
    assert isinstance(value.ours, int | float), "a column of counts"
    return int(value.ours)
