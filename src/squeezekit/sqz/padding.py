"""Padding by which windows cover every pixel: SAME in TensorFlow and in ONNX."""

from __future__ import annotations

from collections.abc import Sequence


def same_padding(
    size: Sequence[int], window: Sequence[int], stride: Sequence[int], *, lower: bool = False
) -> list[tuple[int, int]]:
    """Padding (head, tail) for each axis, so that there are size / stride windows, rounded up.

    Args:
        size: of the image, in pixels.
        window: how many pixels one covers, with its dilation.
        stride: between windows.
        lower: whether the odd pixel stands in front (SAME_LOWER), not behind.
    """
    pads = []
    for n, k, s in zip(size, window, stride, strict=True):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        small, large = total // 2, total - total // 2
        pads.append((large, small) if lower else (small, large))
    return pads
