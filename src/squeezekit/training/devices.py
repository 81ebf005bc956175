"""Where training runs: devices, precisions and processes, by Lightning's Fabric."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch
from lightning_fabric import Fabric

from squeezekit.training.recipe import Precision, Recipe

_FABRIC_PRECISION: dict[str, Any] = {
    "float32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


def fabric_for(recipe: Recipe) -> Fabric:
    """One process, or those that torchrun started."""
    for name in ("lightning_fabric", "lightning.fabric"):  # it announces the precision otherwise
        logging.getLogger(name).setLevel(logging.WARNING)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator="auto",
        devices=local if processes > 1 else 1,
        num_nodes=processes // local,
        strategy="ddp" if processes > 1 else "auto",
        precision=_FABRIC_PRECISION[_precision(recipe)],
    )
    fabric.launch()
    return fabric


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 itself; emulating it is slower than float32."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _precision(recipe: Recipe) -> Precision:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bf16 = recipe.precision == "bf16"
    return "float32" if bf16 and not has_bf16(device) else recipe.precision
