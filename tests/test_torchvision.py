"""torchvision's networks, written again as torch modules, against what their state dicts become."""

import pickle

import numpy as np
import pytest
import torch
from foreign import images, run
from safetensors.torch import save_file
from torch import nn

from squeezekit.errors import InputError, UnsupportedError
from squeezekit.interop import safetensors_file, torchvision
from squeezekit.sqz.network import TORCHVISION
from squeezekit.trainable.network import TorchClassifier


class Fire(nn.Module):
    def __init__(self, inputs, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x):
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], 1)


def pool():
    return nn.MaxPool2d(3, 2, ceil_mode=True)


class Reference(nn.Module):
    def __init__(self, features, classifier):
        super().__init__()
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(*classifier)

    def forward(self, x):
        x = self.features(x)
        if isinstance(self.classifier[-1], nn.Linear):
            x = nn.AdaptiveAvgPool2d(6)(x).flatten(1)
        return self.classifier(x).flatten(1)


def squeezenet_head(classes):
    return [nn.Dropout(), nn.Conv2d(512, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]


def squeezenet1_0(classes):
    features = [
        nn.Conv2d(3, 96, 7, 2), nn.ReLU(), pool(),
        Fire(96, 16, 64), Fire(128, 16, 64), Fire(128, 32, 128), pool(),
        Fire(256, 32, 128), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), pool(),
        Fire(512, 64, 256),
    ]  # fmt: skip
    return Reference(features, squeezenet_head(classes))


def squeezenet1_1(classes):
    features = [
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(),
        Fire(64, 16, 64), Fire(128, 16, 64), pool(),
        Fire(128, 32, 128), Fire(256, 32, 128), pool(),
        Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
    ]  # fmt: skip
    return Reference(features, squeezenet_head(classes))


def alexnet(classes):
    features = [
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    ]  # fmt: skip
    classifier = [
        nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(),
        nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, classes),
    ]  # fmt: skip
    return Reference(features, classifier)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.pth"


# The counts are torchvision's published ones, of 1000 classes.
@pytest.mark.parametrize(
    ("make", "parameters"),
    [(squeezenet1_0, 1_248_424), (squeezenet1_1, 1_235_496), (alexnet, 61_100_840)],
)
def test_same_answers_as_the_modules(make, parameters):
    torch.manual_seed(0)
    with torch.device("meta"):  # the modules' own first weights take seconds to draw
        reference = make(1000).eval()
    reference.to_empty(device="cpu")
    for weight in reference.parameters():
        weight.detach().normal_(0, 1 / max(weight[0].numel(), 10) ** 0.5)
    state = {name: value.numpy() for name, value in reference.state_dict().items()}
    network = torchvision.from_state_dict(state, "model.pth")
    assert network.parameters == parameters
    assert network.metadata.preprocessing == TORCHVISION
    assert network.metadata.labels == ()
    x = images(2, 3, 224)
    with torch.inference_mode():
        expected = reference(torch.tensor(x)).numpy()
    np.testing.assert_allclose(TorchClassifier(network).logits(x), expected, atol=1e-4)
    np.testing.assert_allclose(run(network, x), expected, atol=1e-4)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {n: v.half().float() if v.ndim == 1 else v for n, v in state.items()},
    ],
)
def test_wrapped_state_dicts(wrap, file):
    state = squeezenet1_1(7).state_dict()
    torch.save(wrap(dict(state)), file)
    network = torchvision.read(file)
    assert network.tensors["conv10.bias"].shape == (7,)
    squeeze = state["features.12.squeeze.weight"].numpy()
    assert np.array_equal(network.tensors["fire9.squeeze1x1.weight"], squeeze)
    assert "squeezenet1_1" in network.metadata.provenance[0]


def test_safetensors_with_torchvisions_names(tmp_path):
    state = squeezenet1_0(4).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    network = safetensors_file.read(tmp_path / "model.safetensors")
    assert network.metadata.name == "squeezenet-1.0"
    assert np.array_equal(network.tensors["conv10.weight"], state["classifier.1.weight"].numpy())


def test_wrong_shapes(file):
    state = squeezenet1_1(7).state_dict()
    state["features.0.weight"] = torch.zeros(64, 1, 3, 3)
    torch.save(state, file)
    with pytest.raises(InputError, match=r"features\.0\.weight has the shape \(64, 1, 3, 3\), but"):
        torchvision.read(file)


def test_other_networks(file):
    torch.save(nn.Linear(3, 4).state_dict(), file)
    with pytest.raises(UnsupportedError, match="squeezenet1_0, squeezenet1_1, alexnet"):
        torchvision.read(file)


class Bomb:
    exploded = False

    def __reduce__(self):
        return setattr, (Bomb, "exploded", True)


def test_pickled_code_is_not_run(file):
    for data in ({"state_dict": Bomb()}, Bomb(), nn.Linear(2, 2)):
        torch.save(data, file)
        with pytest.raises(InputError, match="holds more than tensors"):
            torchvision.read(file)
    file.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match=r"model\.pth"):
        torchvision.read(file)
    assert not Bomb.exploded


def test_damaged_files(file):
    torch.save(squeezenet1_1(2).state_dict(), file)
    good = file.read_bytes()
    for data in (b"", b"no such thing", good[: len(good) // 2], b"PK\x03\x04" + bytes(100)):
        file.write_bytes(data)
        with pytest.raises(InputError, match=r"model\.pth"):
            torchvision.read(file)
    with pytest.raises(InputError, match="there is no such file"):
        torchvision.read(file.parent / "missing.pth")


def test_no_state_dict(file):
    torch.save([torch.zeros(2)], file)
    with pytest.raises(InputError, match="holds no state dict"):
        torchvision.read(file)


def test_names_alone_make_no_room(tmp_path):
    """A few numbers under the names of AlexNet, and a bias of a million classes."""
    from squeezekit.interop.torchvision import from_state_dict

    layers = [*(f"features.{i}" for i in (0, 3, 6, 8, 10)), *(f"classifier.{i}" for i in (1, 4, 6))]
    parts = [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]
    state = {name: np.zeros(1, np.float32) for name in parts}
    with pytest.raises(InputError, match="16 numbers where torchvision's alexnet has 57,007,937"):
        from_state_dict(state, "forged.pth")
    state["classifier.6.bias"] = np.zeros(1_000_000, np.float32)
    with pytest.raises(InputError, match=r"1,000,015 numbers where .* has 4,154,003,840"):
        from_state_dict(state, "forged.pth")
