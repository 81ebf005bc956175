"""What runs a network: ONNX Runtime, which starts fastest, or OpenVINO, fastest in int8."""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np

from squeezekit.errors import GraphError, InputError

Array = np.ndarray[tuple[Any, ...], np.dtype[Any]]
BackendName = Literal["onnxruntime", "openvino"]

_SILENT = 4  # every error that ONNX Runtime would log is raised as well


@dataclass(frozen=True)
class Port:
    """An input or output of a graph.

    Attributes:
        name: in the graph.
        type: the type of its numbers, as numpy calls it ("float32"), or as the backend does.
        shape: a size for each axis; None if the graph leaves it open, or where no axis is known.
    """

    name: str
    type: str
    shape: tuple[int | None, ...]


class Backend(Protocol):
    """A network that is ready to run; several threads may run it at once.

    Attributes:
        name: as `load` takes it.
        inputs, outputs: the inputs and outputs of the graph; it runs where there is one input.
    """

    name: BackendName
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def run(self, images: Array) -> Array:
        """The first output for a batch.

        Raises:
            GraphError: if the backend fails.
        """


def installed(name: BackendName) -> bool:
    """Whether a backend can be imported."""
    return importlib.util.find_spec(name) is not None


def load_onnxruntime() -> None:
    """Import it, so that the first network starts sooner."""
    import onnxruntime  # noqa: F401


def start(name: str, model: bytes, threads: int | None) -> Backend:
    """Make a network ready to run.

    Args:
        name: the name of the backend.
        model: an ONNX model.
        threads: the number of threads that one batch may use; None is all cores.

    Raises:
        InputError: if there is no such backend, or it is not installed.
        GraphError: if it does not take the graph.
    """
    if name not in get_args(BackendName):
        raise InputError(f"there is no backend {name!r}: use {' or '.join(get_args(BackendName))}")
    known = cast(BackendName, name)
    if not installed(known):
        raise InputError(f"{name} is not installed: pip install 'squeezekit[{name}]'")
    return _OnnxRuntime(model, threads) if known == "onnxruntime" else _OpenVino(model, threads)


class _OnnxRuntime:
    name: BackendName = "onnxruntime"

    def __init__(self, model: bytes, threads: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = _SILENT
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
            # Names that are not UTF-8 fail when they are asked for.
            self.inputs = tuple(self._port(port) for port in self._session.get_inputs())
            self.outputs = tuple(self._port(port) for port in self._session.get_outputs())
        except Exception as error:  # ONNX Runtime has no common base class of its errors
            raise _cannot_run("ONNX Runtime", error) from None

    @staticmethod
    def _port(port: Any) -> Port:  # noqa: ANN401 - onnxruntime has no types
        kind = str(port.type).removeprefix("tensor(").removesuffix(")")
        kind = {"float": "float32"}.get(kind, kind)
        return Port(port.name, kind, tuple(map(_whole, port.shape)))

    def run(self, images: Array) -> Array:
        try:
            (outputs,) = self._session.run([self.outputs[0].name], {self.inputs[0].name: images})
        except Exception as error:  # ONNX Runtime has no common base class of its errors
            raise _cannot_run("ONNX Runtime", error) from None
        return cast(Array, outputs)


class _OpenVino:
    name: BackendName = "openvino"

    def __init__(self, model: bytes, threads: int | None) -> None:
        import openvino

        # Float stays float32: by itself OpenVINO takes bfloat16 where the processor has it.
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            core = openvino.Core()
            compiled = core.compile_model(core.read_model(model), "CPU", settings)
        except Exception as error:
            raise _cannot_run("OpenVINO", error) from None
        self._request = compiled.create_infer_request()
        self._turn = threading.Lock()  # a request serves one at a time
        self.inputs = tuple(self._port(port) for port in compiled.inputs)
        self.outputs = tuple(self._port(port) for port in compiled.outputs)

    @staticmethod
    def _port(port: Any) -> Port:  # noqa: ANN401 - openvino's types are not for strict checking
        kind = str(port.element_type.to_dtype().name)
        shape = port.partial_shape
        sizes = () if shape.rank.is_dynamic else tuple(shape)
        return Port(
            port.any_name, kind, tuple(s.get_length() if s.is_static else None for s in sizes)
        )

    def run(self, images: Array) -> Array:
        try:
            with self._turn:
                self._request.infer([images], share_inputs=True)
                return cast(Array, self._request.get_output_tensor(0).data.copy())
        except Exception as error:
            raise _cannot_run("OpenVINO", error) from None


def _whole(size: object) -> int | None:
    return size if isinstance(size, int) and size > 0 else None


def _cannot_run(who: str, error: Exception) -> GraphError:
    """One line of what a backend says; OpenVINO names its own source files first, then a list."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    listed = [line.removeprefix("-- ") for line in lines if line.startswith("-- ")]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    (reason, *_) = [*listed, *told, *lines, type(error).__name__]
    return GraphError(f"{who} cannot run the graph ({reason})")
