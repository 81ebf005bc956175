"""Opens whatever holds a network: tells the kind of a file, and hands it to its reader."""

from __future__ import annotations

from pathlib import Path

from squeezekit.errors import InputError, UnsupportedError
from squeezekit.sqz.network import Network

RUN_WEIGHTS = "weights.safetensors"
"""The weights' file in the folder of a training run."""

KINDS = ".sqz, .onnx, .safetensors, .pth, .pt, .net, or the folder of a training run"


def load_network(path: Path | str) -> Network:
    """Read a network from any file or folder that holds one.

    Args:
        path: a `.sqz`; an ONNX model; safetensors (ours, or a state dict); a `.pth` state dict
            (read with weights_only=True); the authors' `.net`; or the folder of a training run.

    Raises:
        InputError: where there is no such file, or it holds no network.
        UnsupportedError: where it holds one that cannot be read yet.
        FormatError: where it is a damaged `.sqz`.
    """
    path = Path(path)
    if path.is_dir():
        path = weights_in_run(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such file")
    match path.suffix.lower():
        case ".sqz":
            from squeezekit.sqz import container

            return container.read(path)
        case ".onnx":
            from squeezekit.interop import onnx_file

            return onnx_file.read(path)
        case ".safetensors":
            from squeezekit.interop import safetensors_file

            return safetensors_file.read(path)
        case ".pth" | ".pt":
            from squeezekit.interop import torchvision

            return torchvision.read(path)
        case ".net":
            from squeezekit.interop import han

            return han.read(path)
        case ".caffemodel":
            raise UnsupportedError(f"{path}: Caffe's own files cannot be read yet")
    raise InputError(f"{path}: is not a file that squeezekit reads ({KINDS})")


def weights_in_run(folder: Path) -> Path:
    """The weights' file in the folder of a training run.

    Raises:
        InputError: where there is none.
    """
    if not (folder / RUN_WEIGHTS).is_file():
        raise InputError(f"{folder}: is not the folder of a training run (it has no {RUN_WEIGHTS})")
    return folder / RUN_WEIGHTS


def file_bytes(path: Path | str) -> int:
    """Size on disk of what `load_network` reads, in bytes."""
    path = Path(path)
    return (weights_in_run(path) if path.is_dir() else path).stat().st_size
