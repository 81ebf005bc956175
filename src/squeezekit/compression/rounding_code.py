"""The inner loops of rounding, which are written in C (native/rounding.c), on numpy arrays.

They treat rows one by one, so the rows of a layer are shared out among threads: machine code runs
outside of Python's lock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from squeezekit.sqz.coders.compiled import library, module
from squeezekit.sqz.coders.engine import Code, code_of
from squeezekit.sqz.network import Floats, Levels

Doubles = np.ndarray[tuple[Any, ...], np.dtype[np.float64]]

_TOGETHER = 8
"""Rows that the C code treats together."""

_FOLDER = Path(__file__).parent / "compiled"
_own = threading.local()


def round_rows(
    weights: Floats, upper: Floats, cost: Floats, step: float, half_nats: float
) -> Levels:
    """Round column by column, the rest of each row making up for the error (GPTQ).

    Args:
        weights: (R, K), in the order of the columns; used up.
        upper: (K, K), U with U'U the inverse of the covariance in that order.
        cost: (2m + 1,) of the levels -m .. m, in nats.
        step: between levels.
        half_nats: half the nats for each unit of squared error.

    Returns:
        int32 (R, K).
    """
    levels = np.zeros(weights.shape, np.int32)
    upper, most = _fixed(upper), len(cost) // 2

    def call(rows: slice) -> None:
        part, found = weights[rows], levels[rows]
        _code().call(
            "round_rows", *part.shape, most, float(step), float(half_nats), part, upper,
            _fixed(cost), found,
        )  # fmt: skip

    _shared_out(call, len(weights))
    return levels


def descend_rows(
    levels: Levels,
    weights: Floats,
    pull: Floats,
    covariance: Floats,
    cost: Floats,
    values: Floats,
    half_nats: float,
) -> None:
    """Choose each column's levels anew, with all others of its row as they are now.

    Args:
        levels: int32 (R, K), from -m to m; changed in place.
        weights: (R, K), what they stand for; changed in place.
        pull: (R, K), (target - weights) @ covariance; changed in place.
        covariance: (K, K).
        cost: (2m + 1,) of each level, in nats.
        values: (2m + 1,), what each level stands for, ascending.
        half_nats: half the nats for each unit of squared error.
    """
    covariance, most = _fixed(covariance), len(cost) // 2

    def call(rows: slice) -> None:
        part = levels[rows]
        _code().call(
            "descend_rows", *part.shape, most, float(half_nats), covariance, _fixed(cost),
            _fixed(values), pull[rows], weights[rows], part,
        )  # fmt: skip

    _shared_out(call, len(levels))


def descend_rows_like(
    levels: Levels,
    weights: Floats,
    pull: Floats,
    covariance: Floats,
    values: Floats,
    half_nats: float,
    old: Levels,
    ends: tuple[int, int],
    stay: Floats,
    leave: Floats,
    far: Floats,
) -> None:
    """The same, where each level that is not the old one has a price.

    Args:
        levels: as in `descend_rows`, as are the next five.
        weights: (R, K).
        pull: (R, K).
        covariance: (K, K).
        values: (2m + 1,).
        half_nats: half the nats for each unit of squared error.
        old: int32 (R, K).
        ends: the least and the largest level that may be chosen.
        stay: (2,), the cost of staying at a zero, and at another level, in nats.
        leave: (2,), that of leaving them.
        far: (2m + 1,), what comes on top, by how many levels it goes.
    """
    covariance, most = _fixed(covariance), len(values) // 2

    def call(rows: slice) -> None:
        part = levels[rows]
        _code().call(
            "descend_rows_like", *part.shape, most, *ends, float(half_nats), covariance,
            _fixed(stay), _fixed(leave), _fixed(far), _fixed(values), _fixed(old[rows]),
            pull[rows], weights[rows], part,
        )  # fmt: skip

    _shared_out(call, len(levels))


def products(
    levels: Levels, covariance: Floats, reach: Floats, group: Levels, groups: int, rare: int
) -> tuple[Doubles, Doubles]:
    """What the best values of groups of levels follow from.

    Args:
        levels: (R, K), from -m to m.
        covariance: (K, K), C.
        reach: (R, K), the target @ C.
        group: int32 (2m + 1,), of each level; -1 for none.
        groups: G.
        rare: the group whose levels share one step, so that a member counts by its level; -1.

    Returns:
        (G, G), the sum over rows of m_a C m_b', and (G,), that of m_a C t', with m_a the members
        of group a.
    """
    covariance, most = _fixed(covariance), len(group) // 2
    found: list[tuple[Doubles, Doubles]] = []

    def call(rows: slice) -> None:
        both, wanted = np.zeros((groups, groups)), np.zeros(groups)
        part = levels[rows]
        places = np.zeros(part.shape[1], np.int32)
        _code().call(
            "add_products", *part.shape, most, groups, rare, _fixed(group), covariance,
            _fixed(reach[rows]), _fixed(part), places, both, wanted,
        )  # fmt: skip
        found.append((both, wanted))

    _shared_out(call, len(levels))
    return sum(both for both, _ in found), sum(wanted for _, wanted in found)  # type: ignore[return-value]


def _fixed(array: Any) -> Any:  # noqa: ANN401 - whatever array, the same
    """As one piece of memory that is only read, and so not copied back from a sandbox."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _shared_out(call: Callable[[slice], None], rows: int) -> None:
    """Call with parts of the rows, at once in several threads."""
    threads = min(_threads(), -(-rows // _TOGETHER))
    if threads <= 1:
        call(slice(0, rows))
        return
    share = -(-rows // threads // _TOGETHER) * _TOGETHER
    parts = [slice(begin, min(begin + share, rows)) for begin in range(0, rows, share)]
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(call, parts))


def _threads() -> int:
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) else os.cpu_count() or 1


@cache
def _compiled() -> Any:  # noqa: ANN401 - what `code_of` takes
    return library(_FOLDER / "rounding-x86_64-linux.so") or module(_FOLDER / "rounding.wasm")


def _code() -> Code:
    """The calling thread's own."""
    code: Code | None = getattr(_own, "code", None)
    if code is None:
        code = _own.code = code_of(_compiled(), {})
    return code
