"""Opens whatever holds a network: tells the kind of a file, and hands it to its reader."""

from __future__ import annotations

from pathlib import Path

from squeezekit.errors import InputError
from squeezekit.interop import pretrained
from squeezekit.progress import Progress, silent
from squeezekit.sqz.network import Network

RUN_WEIGHTS = "weights.safetensors"
"""The weights' file in the folder of a training run."""

KINDS = ".sqz, .onnx, .safetensors, .pth, .pt, .net, .caffemodel, or the folder of a training run"
_NAMES = ", ".join(pretrained.PRETRAINED)


def load_network(path: Path | str, progress: Progress = silent) -> Network:
    """Read a network from any file or folder that holds one, or by the name of published weights.

    Args:
        path: a `.sqz`; an ONNX model; safetensors (ours, or a state dict); a `.pth` state dict
            (read with weights_only=True); the authors' `.net`; a `.caffemodel` with its prototxt
            beside it; the folder of a training run; or, where no such file exists, a name from
            `pretrained.PRETRAINED`, fetched if need be.
        progress: told of a download.

    Raises:
        InputError: where there is no such file, or it holds no network, or cannot be fetched.
        UnsupportedError: where it holds one that cannot be read yet.
        FormatError: where it is a damaged `.sqz`.
    """
    path = weights_file(path, progress)
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
            from squeezekit.interop import caffe

            return caffe.read(path)
    raise InputError(f"{path}: is not a file that squeezekit reads ({KINDS})")


def weights_file(path: Path | str, progress: Progress = silent) -> Path:
    """The file that `load_network` reads: itself, in the folder of a run, or fetched by name.

    Raises:
        InputError: where there is none.
    """
    name, path = str(path), Path(path)
    if path.is_dir():
        return weights_in_run(path)
    if path.exists():
        return path
    if name in pretrained.PRETRAINED:
        return pretrained.fetch(name, progress=progress)
    raise InputError(f"{path}: there is no such file, and no pretrained network ({_NAMES})")


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
    return weights_file(path).stat().st_size
