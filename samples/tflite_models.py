"""Small TensorFlow Lite models, written tensor by tensor."""

import flatbuffers
import numpy as np
import tflite

KINDS = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int8": 9}
SAME, VALID = 0, 1
NONE, RELU, RELU6 = 0, 1, 3


class Builder:
    """Writes a model tensor by tensor; a tensor is known by its number."""

    def __init__(self, size=8, channels=3, kind="float32", quantised=None):
        self.b = flatbuffers.Builder(1024)
        self.buffers = [self._buffer(b"")]
        self.tensors, self.operators, self.codes = [], [], []
        self.shapes = []
        self.image = self.tensor((1, size, size, channels), kind, quantised=quantised)

    def _vector(self, start, offsets):
        start(self.b, len(offsets))
        for offset in reversed(offsets):
            self.b.PrependUOffsetTRelative(offset)
        return self.b.EndVector()

    def _buffer(self, data):
        vector = self.b.CreateByteVector(data) if data else None
        tflite.BufferStart(self.b)
        if vector is not None:
            tflite.BufferAddData(self.b, vector)
        return tflite.BufferEnd(self.b)

    def tensor(self, shape, kind="float32", values=None, quantised=None, axis=0):
        """`quantised`: (scales, zeros)."""
        buffer = 0
        if values is not None:
            values = np.asarray(values)
            shape, kind = values.shape, values.dtype.name
            buffer = len(self.buffers)
            self.buffers.append(self._buffer(values.tobytes()))
        name = self.b.CreateString(f"t{len(self.tensors)}")
        sides = self.b.CreateNumpyVector(np.array(shape, np.int32))
        q = None
        if quantised is not None:
            scale = self.b.CreateNumpyVector(np.array(quantised[0], np.float32))
            zero = self.b.CreateNumpyVector(np.array(quantised[1], np.int64))
            tflite.QuantizationParametersStart(self.b)
            tflite.QuantizationParametersAddScale(self.b, scale)
            tflite.QuantizationParametersAddZeroPoint(self.b, zero)
            tflite.QuantizationParametersAddQuantizedDimension(self.b, axis)
            q = tflite.QuantizationParametersEnd(self.b)
        tflite.TensorStart(self.b)
        tflite.TensorAddShape(self.b, sides)
        tflite.TensorAddType(self.b, KINDS[kind])
        tflite.TensorAddBuffer(self.b, buffer)
        tflite.TensorAddName(self.b, name)
        if q is not None:
            tflite.TensorAddQuantization(self.b, q)
        self.tensors.append(tflite.TensorEnd(self.b))
        self.shapes.append(tuple(shape))
        return len(self.tensors) - 1

    def add(self, kind, inputs, shape, options=None, **settings):
        """An operator; gives its output."""
        made = self.tensor(shape)
        code = getattr(tflite.BuiltinOperator, kind)
        if code not in self.codes:
            self.codes.append(code)
        table = None
        if options is not None:
            getattr(tflite, f"{options}Start")(self.b)
            for name, value in settings.items():
                getattr(tflite, f"{options}Add{name}")(self.b, value)
            table = getattr(tflite, f"{options}End")(self.b)
        ins = self.b.CreateNumpyVector(np.array(inputs, np.int32))
        outs = self.b.CreateNumpyVector(np.array([made], np.int32))
        tflite.OperatorStart(self.b)
        tflite.OperatorAddOpcodeIndex(self.b, self.codes.index(code))
        tflite.OperatorAddInputs(self.b, ins)
        tflite.OperatorAddOutputs(self.b, outs)
        if table is not None:
            tflite.OperatorAddBuiltinOptionsType(self.b, getattr(tflite.BuiltinOptions, options))
            tflite.OperatorAddBuiltinOptions(self.b, table)
        self.operators.append(tflite.OperatorEnd(self.b))
        return made

    def finish(self, output):
        codes = []
        for code in self.codes:
            tflite.OperatorCodeStart(self.b)
            tflite.OperatorCodeAddDeprecatedBuiltinCode(self.b, min(code, 127))
            tflite.OperatorCodeAddBuiltinCode(self.b, code)
            codes.append(tflite.OperatorCodeEnd(self.b))
        tensors = self._vector(tflite.SubGraphStartTensorsVector, self.tensors)
        operators = self._vector(tflite.SubGraphStartOperatorsVector, self.operators)
        ins = self.b.CreateNumpyVector(np.array([self.image], np.int32))
        outs = self.b.CreateNumpyVector(np.array([output], np.int32))
        tflite.SubGraphStart(self.b)
        tflite.SubGraphAddTensors(self.b, tensors)
        tflite.SubGraphAddInputs(self.b, ins)
        tflite.SubGraphAddOutputs(self.b, outs)
        tflite.SubGraphAddOperators(self.b, operators)
        graph = tflite.SubGraphEnd(self.b)
        graphs = self._vector(tflite.ModelStartSubgraphsVector, [graph])
        codes = self._vector(tflite.ModelStartOperatorCodesVector, codes)
        buffers = self._vector(tflite.ModelStartBuffersVector, self.buffers)
        tflite.ModelStart(self.b)
        tflite.ModelAddVersion(self.b, 3)
        tflite.ModelAddOperatorCodes(self.b, codes)
        tflite.ModelAddSubgraphs(self.b, graphs)
        tflite.ModelAddBuffers(self.b, buffers)
        self.b.Finish(tflite.ModelEnd(self.b), file_identifier=b"TFL3")
        return bytes(self.b.Output())

    # -------------------------------------------------------------------------- common layers

    def conv(self, x, weight, bias, *, stride=1, padding=SAME, act=NONE, depthwise=False):
        _, h, w, _ = self.shapes[x]
        kh, kw = weight[1:3] if isinstance(weight, tuple) else self.shapes[weight][1:3]
        out = self.shapes[weight][3 if depthwise else 0]
        sides = [
            -(-side // stride) if padding == SAME else (side - k) // stride + 1
            for side, k in ((h, kh), (w, kw))
        ]
        kind, options = (
            ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions")
            if depthwise
            else ("CONV_2D", "Conv2DOptions")
        )
        more = {"DepthMultiplier": out // self.shapes[x][3]} if depthwise else {}
        return self.add(
            kind, [x, weight, bias], (1, *sides, out), options, Padding=padding, StrideH=stride,
            StrideW=stride, FusedActivationFunction=act, DilationHFactor=1, DilationWFactor=1,
            **more,
        )  # fmt: skip

    def head(self, x, classes, random):
        """Average, a fully connected layer, softmax."""
        _, h, w, c = self.shapes[x]
        x = self.add(
            "AVERAGE_POOL_2D", [x], (1, 1, 1, c), "Pool2DOptions", Padding=VALID, StrideH=1,
            StrideW=1, FilterHeight=h, FilterWidth=w, FusedActivationFunction=NONE,
        )  # fmt: skip
        x = self.add("RESHAPE", [x, self.tensor((), values=np.array([1, c], np.int32))], (1, c))
        weight = random.normal(size=(classes, c)).astype(np.float32)
        w = self.tensor((), values=weight)
        b = self.tensor((), values=random.normal(size=classes).astype(np.float32))
        x = self.add("FULLY_CONNECTED", [x, w, b], (1, classes), "FullyConnectedOptions")
        return self.add("SOFTMAX", [x], (1, classes), "SoftmaxOptions", Beta=1.0), weight


def small():
    random = np.random.default_rng(5)
    b = Builder(6)
    weight = b.tensor((), values=random.normal(size=(4, 3, 3, 3)).astype(np.float32))
    bias = b.tensor((), values=np.zeros(4, np.float32))
    end, _ = b.head(b.conv(b.image, weight, bias, act=RELU6), 5, random)
    return b.finish(end)
