"""What a file will cost is known from its head, and what is too much is refused before the work."""

import contextlib
import dataclasses
import struct
import subprocess
import sys
import zlib

import numpy as np
import onnx
import pytest
from foreign import Maker, mobilenet, resnet
from onnx import helper, shape_inference
from PIL import Image
from small_networks import small_alexnet, small_networks, small_squeezenet

import squeezekit as sk
from squeezekit import errors
from squeezekit.interop import onnx_file
from squeezekit.models.cost import cost as counted
from squeezekit.sqz import container
from squeezekit.sqz.graph import split
from squeezekit.sqz.graph_reader import read_graph
from squeezekit.sqz.limits import Limits
from squeezekit.sqz.network import Metadata, Network, Preprocessing, SharedTensor
from squeezekit.sqz.operators import OPERATORS
from squeezekit.sqz.shapes import cost
from squeezekit.sqz.varint import varint


def costs(network):
    how = network.metadata.preprocessing
    shapes = {name: tensor.shape for name, tensor in network.tensors.items()}
    graph = read_graph(network.graph, network.tensors)
    return cost(graph, shapes, (1, how.channels, how.crop, how.crop))


def foreign(model, tmp_path):
    onnx.save(model, tmp_path / "foreign.onnx")
    return onnx_file.read(tmp_path / "foreign.onnx")


def test_shapes_are_those_that_onnx_infers(tmp_path):
    networks = [*small_networks().values(), foreign(resnet(), tmp_path)]
    networks.append(foreign(mobilenet(), tmp_path))
    for network in networks:
        model = onnx.load_model_from_string(network.graph)
        for name, tensor in network.tensors.items():
            info = helper.make_tensor_value_info(name, 1, tensor.shape)
            model.graph.input.append(info)
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
        for output in model.graph.output:
            output.type.tensor_type.ClearField("shape")
        inferred = shape_inference.infer_shapes(model, data_prop=True).graph
        expected = {
            info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)
            for info in (*inferred.value_info, *inferred.output)
        }
        found = costs(network).shapes
        assert len(expected) > 10
        assert {name: found[name] for name in expected} == expected


def test_work_is_what_the_layers_multiply():
    """Windows of pools and LRN are counted beside it, as what they cost a reader."""
    for network in (small_squeezenet(), small_alexnet()):
        macs = counted(network).macs
        assert macs < costs(network).macs < 1.5 * macs


def test_memory_holds_what_lives_at_once():
    """A squeeze and its two expansions, and never more than everything."""
    network = small_squeezenet()
    found = costs(network)
    sizes = [4 * int(np.prod(shape)) for shape in found.shapes.values()]
    assert sorted(sizes)[-1] + sorted(sizes)[-2] <= found.memory < sum(sizes)


def network_of(maker, output, tensors=None, size=32):
    image = helper.make_tensor_value_info("input", 1, ["N", 3, size, size])
    scores = helper.make_tensor_value_info(output, 1, None)
    made = helper.make_graph(maker.nodes, "net", [image], [scores], maker.initializers)
    opset = helper.make_opsetid("", 17)
    graph, found = split(helper.make_model(made, opset_imports=[opset], ir_version=8))
    return Network(graph, tensors or found, Metadata("x", Preprocessing(crop=size, resize=size)))


def one(op, *shapes, **attributes):
    """A network whose first node gets weights of these shapes."""
    m = Maker()
    x = m.node(op, "input", *[m.tensor(np.ones(shape)) for shape in shapes], **attributes)
    return network_of(m, m.node("Flatten", m.node("GlobalAveragePool", x)))


MISFITS = {
    "channels": lambda: one("Conv", (4, 5, 3, 3)),
    "groups": lambda: one("Conv", (4, 1, 3, 3), group=2),
    "kernel_shape": lambda: one("Conv", (4, 3, 3, 3), kernel_shape=[5, 5]),
    "biases": lambda: one("Conv", (4, 3, 3, 3), (3,)),
    "three axes": lambda: one("Conv", (4, 3, 3)),
    "a window too large": lambda: one("Conv", (4, 3, 33, 33)),
    "pads beside auto_pad": lambda: one("Conv", (4, 3, 3, 3), auto_pad="VALID", pads=[1, 1, 1, 1]),
    "three pads": lambda: one("Conv", (4, 3, 3, 3), pads=[1, 1, 1]),
    "a pool in the padding": lambda: one("MaxPool", kernel_shape=[3, 3], pads=[3, 0, 0, 0]),
    "no kernel": lambda: one("MaxPool"),
    "batch norm": lambda: one("BatchNormalization", (3,), (3,), (3,), (4,)),
    "addition": lambda: one("Add", (1, 4, 1, 1)),
    "slopes": lambda: one("PRelu", (5, 3, 1, 1)),
    "concat": lambda: one("Concat", (1, 3, 31, 32), axis=1),
    "no such axis": lambda: one("Softmax", axis=7),
    "order": lambda: one("Transpose", perm=[0, 1, 1, 3]),
    "product": lambda: one("MatMul", (31, 4)),
    "gemm of four axes": lambda: one("Gemm", (32, 4)),
    "axes that are not 1": lambda: one("Squeeze", (2,), axes=[1]),
}


@pytest.mark.parametrize("name", MISFITS)
def test_shapes_that_do_not_fit_are_refused_by_the_head(name):
    with pytest.raises(errors.FormatError, match="node"):
        container.encode(MISFITS[name]())


def test_a_batch_of_images_stays_a_batch():
    m = Maker()
    flat = m.node("Flatten", m.node("GlobalAveragePool", "input"))
    mixed = m.node("Reshape", flat, m.tensor([1, 3], np.int64))
    with pytest.raises(errors.GraphError):
        container.encode(network_of(m, mixed))


def test_labels_are_as_many_as_outputs():
    network = small_squeezenet()
    metadata = dataclasses.replace(network.metadata, labels=("one", "two"))
    with pytest.raises(errors.GraphError, match="names 2 classes"):
        container.encode(dataclasses.replace(network, metadata=metadata))


def test_every_operator_of_the_list_has_a_shape():
    """Whatever its inputs are: an error of ours, or a shape."""
    for op, operator in OPERATORS.items():
        m = Maker()
        weights = [m.tensor(np.ones((3, 1, 1))) for _ in range(operator.least - 1)]
        x = m.node(op, "input", *weights)
        with contextlib.suppress(errors.FormatError):  # and no other
            container.encode(network_of(m, m.node("Flatten", x)))


# ------------------------------------------------------------------------------------------ bombs


def rebuilt(network, metadata=None, records=None, payload=b"") -> bytes:
    """A file of 30 KB or less with any text and any records."""
    from squeezekit.sqz.metadata_json import to_json

    text = to_json(network.metadata).encode() if metadata is None else metadata
    raw = varint(len(text)) + text + varint(len(network.graph)) + network.graph + records
    deflate = zlib.compressobj(9, wbits=-15)
    stored = deflate.compress(raw) + deflate.flush()
    sizes = struct.pack("<3I", 24 + len(stored) + len(payload), len(stored), len(raw))
    start = b"\x89SQZ\x01\x00\x01\x00" + sizes
    return start + struct.pack("<I", zlib.crc32(start + stored)) + stored + payload


def empty_tensors(count):
    record = b"\x00\x01\x00\x00\x00" + struct.pack("<I", 0)
    names = [f"t{i}".encode() for i in range(count)]
    records = b"".join(varint(len(name)) + name + record for name in names)
    return rebuilt(small_squeezenet(), records=varint(count) + records)


def long_labels(characters):
    text = b'{"labels":["' + b"a" * characters + b'"]}'
    return rebuilt(small_squeezenet(), text, varint(0))


def wide_weights(count):
    """Nothing but zeros, which take next to no bytes."""
    m = Maker()
    x = m.node("Flatten", "input")
    x = m.node("MatMul", x, m.tensor(np.zeros((3072, count // 3072))))
    network = network_of(m, x)
    values = SharedTensor.from_values(next(iter(network.values().values())))
    return container.encode(network.with_tensors({next(iter(network.tensors)): values}))


def wide_activations():
    """A window of 1 that moves over 60,000 pixels of padding."""
    m = Maker()
    x = m.node("Pad", "input", m.tensor([0, 0, 2500, 2500, 0, 0, 2500, 2500], np.int64))
    return container.encode(network_of(m, m.node("Flatten", m.node("GlobalMaxPool", x))))


def much_work():
    """Convolutions with few weights at many places."""
    m = Maker()
    x = m.conv("input", (16, 3, 1, 1))
    weight = m.tensor(np.ones((16, 16, 5, 5)))
    for _ in range(600):
        x = m.node("Conv", x, weight, pads=[2] * 4)
    return container.encode(network_of(m, m.node("Flatten", m.node("GlobalMaxPool", x)), size=64))


BOMBS = {
    "tensors": lambda: empty_tensors(5000),
    "labels": lambda: long_labels(3_000_000),
    "a head": lambda: long_labels(30_000_000),
    "weights": lambda: wide_weights(5_000_000),
    "activations": wide_activations,
    "work": much_work,
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_by_the_head(name):
    data = BOMBS[name]()
    assert len(data) < 1_000_000
    with pytest.raises(errors.LimitError, match=r"the limit is .*lift the limits"):
        container.read_head(data)


def test_who_trusts_a_file_opens_it():
    for data in (wide_weights(5_000_000), wide_activations()):
        assert container.read_head(data, None).records is not None
    roomy = Limits(weights=6_000_000, memory=1 << 30)
    assert container.decode(wide_weights(5_000_000), roomy).parameters > 4_900_000


def test_limits_grow_with_the_file():
    """AlexNet at its smallest, VGG-16 at Deep Compression's size, and small ones as large ones."""
    limits = Limits()
    limits.check("weights", 61_000_000, 1_950_000)
    limits.check("weights", 138_000_000, 11_300_000)
    limits.check("macs", 15_500_000_000, 11_300_000)
    limits.check("weights", 4_200_000, 700_000)
    with pytest.raises(errors.LimitError, match="lift the limits"):
        limits.check("weights", 61_000_000, 200_000)


def test_no_time_left():
    with pytest.raises(errors.LimitError, match="seconds"):
        container.decode(container.encode(small_squeezenet()), Limits(seconds=-1.0))


def test_a_message_is_one_line_without_control_characters():
    """A tensor's name that forges a second line and sets the terminal's title."""
    m = Maker()
    evil = "\x1b]0;PWNED\x07\x1b[2J\nsqueezekit: all is well\u202e"
    x = m.conv("input", (4, 3, 3, 3), bias=False)
    network = network_of(m, m.node("Flatten", m.node("GlobalAveragePool", x)))
    model = onnx.load_model_from_string(network.graph)
    model.graph.node[0].input[1] = evil
    (weight,) = network.tensors.values()
    renamed = Network(model.SerializeToString(), {evil: weight}, network.metadata)
    data = bytearray(container.encode(renamed, "dense"))
    data[-1] ^= 1
    with pytest.raises(errors.ChecksumError) as caught:
        container.decode(bytes(data))
    assert "PWNED" in str(caught.value)
    assert str(caught.value).isprintable()


# ------------------------------------------------------------------------- limits of a caller


def run(*arguments):
    command = [sys.executable, "-m", "squeezekit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def photo(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def large(tmp_path):
    """Longer notes than a stranger's file may have; nothing else is unusual."""
    network = small_squeezenet()
    notes = tuple(f"note {i} {'x' * 3000}" for i in range(500))
    metadata = dataclasses.replace(network.metadata, provenance=notes)
    container.write(dataclasses.replace(network, metadata=metadata), tmp_path / "large.sqz")
    return tmp_path / "large.sqz"


def test_the_front_door_takes_limits(large, photo):
    for refused in (
        lambda: sk.load(large), lambda: sk.read(large), lambda: sk.load(large, limits=Limits()),
        lambda: sk.read(large, limits=Limits(text_bytes=10)),
        lambda: sk.evaluate(large, photo.parent), lambda: sk.compress(large),
    ):  # fmt: skip
        with pytest.raises(errors.LimitError, match=r"large\.sqz: .*if you trust the file, lift"):
            refused()
    assert sk.read(large, limits=None).metadata == sk.load(large, limits=None).metadata
    roomy = Limits(text_bytes=8 << 20)
    assert sk.load(large, limits=roomy)(photo) == sk.load(large, limits=None)(photo)
    with pytest.raises(errors.LimitError, match="seconds"):
        sk.load(large, limits=dataclasses.replace(roomy, seconds=-1.0))


def test_every_verb_that_opens_a_file_can_trust_it(large, photo):
    out = large.with_name("out.sqz")
    for verb in (
        ("info", large), ("predict", large, photo), ("export", large, out),
        ("compress", large, "-o", out, "--method", "prune", "--density", "1"),
        ("evaluate", large, "--data", photo.parent), ("serve", large, "--port", "0"),
    ):  # fmt: skip
        refused = run(*verb)
        assert refused.returncode == 2
        assert "lift the limits" in refused.stderr, verb
        assert len(refused.stderr.splitlines()) == 1
        assert not out.exists()
    for verb in (("info", large), ("predict", large, photo), ("export", large, out)):
        assert run(*verb, "--limits", "none").returncode == 0, verb
    wrong = run("info", large, "--limits", "some")
    assert wrong.returncode == 2
    assert "no limits 'some'" in wrong.stderr


def test_an_onnx_model_has_the_same_limits(tmp_path):
    onnx.save(resnet(), tmp_path / "foreign.onnx")
    for limits in (Limits(macs=1000), Limits(memory=1000), Limits(file_bytes=1000)):
        with pytest.raises(errors.LimitError, match=r"foreign\.onnx: .*lift the limits"):
            sk.read(tmp_path / "foreign.onnx", limits=limits)
        with pytest.raises(errors.LimitError, match=r"foreign\.onnx: .*lift the limits"):
            sk.load(tmp_path / "foreign.onnx", limits=limits)
    assert sk.read(tmp_path / "foreign.onnx", limits=None).parameters > 0


def test_a_safetensors_file_has_the_same_limits(tmp_path):
    file = sk.write(small_squeezenet(), tmp_path / "net.safetensors")
    with pytest.raises(errors.LimitError, match="lift the limits"):
        sk.read(file, limits=Limits(macs=1000))
    assert sk.read(file, limits=None).parameters == small_squeezenet().parameters


def test_photos_have_a_limit_of_pixels(tmp_path, photo):
    file = sk.write(small_squeezenet(), tmp_path / "net.sqz")
    assert sk.load(file, limits=Limits(pixels=1200))(photo)
    with pytest.raises(errors.TooManyPixelsError, match="photo"):
        sk.load(file, limits=Limits(pixels=1199))(photo)
    with pytest.raises(errors.InputError, match="too many pixels"):
        sk.evaluate(file, [(photo, 0)], limits=Limits(pixels=1199))
    header = b"P6 20000 20000 255\n" + bytes(
        100
    )  # 400 million pixels, of which hardly any is there
    (tmp_path / "huge.ppm").write_bytes(header)
    for limits in (Limits(), None):
        with pytest.raises(errors.TooManyPixelsError):
            sk.load(file, limits=limits)(tmp_path / "huge.ppm")
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(errors.InputError) as caught:
        sk.load(file, limits=Limits(pixels=400_000_000))(tmp_path / "huge.ppm")
    assert not isinstance(caught.value, errors.TooManyPixelsError)  # but that it is cut short
    assert before == Image.MAX_IMAGE_PIXELS
