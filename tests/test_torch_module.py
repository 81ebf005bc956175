"""Torch modules come in by torch's exporter: the same answers, the module untouched, or refused."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

import squeezekit as sk
from squeezekit.models.catalogue import create
from squeezekit.runtime.classifier import from_network
from squeezekit.trainable.network import TrainableNetwork

NAMES = ("cat", "dog", "fox")


class Small(nn.Module):
    """A network as people write them: batch norms, a residual, dropout, a linear head."""

    def __init__(self, channels=3, classes=3):
        super().__init__()
        self.first = nn.Conv2d(channels, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, classes))

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        return self.head(self.pool(x + torch.nn.functional.silu(self.second(x))))


def made(module, seed=0):
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return module


def images(channels=3, size=16, count=5):
    return np.random.default_rng(1).normal(size=(count, channels, size, size)).astype(np.float32)


def answers(module, batch):
    module.eval()
    with torch.inference_mode():
        return module(torch.tensor(batch)).numpy()


EXAMPLE = torch.zeros(1, 3, 16, 16)


@pytest.fixture(scope="module")
def both():
    module = made(Small())
    return module, sk.from_torch(module, EXAMPLE, labels=NAMES)


def test_the_network_answers_as_the_module(both):
    module, network = both
    assert network.metadata.labels == NAMES
    assert network.metadata.name == "Small"
    assert network.outputs == 3
    batch = images()
    np.testing.assert_allclose(
        from_network(network).logits(batch), answers(module, batch), atol=1e-5
    )
    assert "first.weight" in network.tensors


def test_and_back_and_forth(both, tmp_path):
    """As a torch module of ours, which trains, and through the file."""
    _, network = both
    again = network.to_torch()
    assert isinstance(again, TrainableNetwork)
    again.train()
    again(torch.tensor(images())).sum().backward()
    assert any(parameter.grad is not None for parameter in again.parameters())
    back = again.to_network()
    sk.write(back, tmp_path / "a.sqz")
    logits = [from_network(n).logits(images()) for n in (network, sk.read(tmp_path / "a.sqz"))]
    np.testing.assert_allclose(*logits, atol=1e-5)


def test_the_module_stays_as_it_was():
    module = made(Small())
    module.train()
    module.norm.eval()  # as people do who fine-tune
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    sk.from_torch(module, EXAMPLE)
    assert [part.training for part in module.modules()] == modes
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("preprocessing", [
    {"mean": (0.5,), "std": (0.25,)}, sk.Preprocessing(16, 20, mean=(0.5,) * 3, std=(0.25,) * 3),
])  # fmt: skip
def test_what_is_known_of_the_preprocessing_is_kept(preprocessing):
    told = []
    network = sk.from_torch(
        made(Small()), EXAMPLE, preprocessing=preprocessing, licence="MIT", note=told.append
    )
    assert network.metadata.preprocessing.mean == (0.5,) * 3
    assert network.metadata.licence == "MIT"
    assert told == []


def test_what_is_not_known_is_told_and_no_file_about_is_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text('{"pretrained_cfg": {"mean": [0.1, 0.1, 0.1]}}')
    told = []
    network = sk.from_torch(made(Small(1)), np.zeros((2, 1, 16, 16)), note=told.append)
    assert network.metadata.preprocessing.mean == (0.449,)
    (sentence,) = told
    assert "assumed" in sentence


def test_a_softmax_at_the_end_is_noticed():
    module = nn.Sequential(made(Small()), nn.Softmax(dim=1))
    network = sk.from_torch(module, EXAMPLE, labels=NAMES)
    assert network.metadata.output == "probabilities"
    np.testing.assert_allclose(
        from_network(network).probabilities(images()), answers(module, images()), atol=1e-5
    )


def test_two_classes_may_be_named():
    network = sk.from_torch(made(Small(classes=2)), EXAMPLE, labels=["cat", "dog"])
    assert network.metadata.labels == ("cat", "dog")


def test_one_output_is_two_classes():
    module = nn.Sequential(made(Small(classes=1)), nn.Sigmoid())
    network = sk.from_torch(module, EXAMPLE, labels=["cat"])
    assert network.metadata.labels == ("not cat", "cat")
    chance = answers(module, images())[:, 0]
    np.testing.assert_allclose(
        from_network(network).probabilities(images())[:, 1], chance, atol=1e-5
    )


class Noisy(nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3)) + torch.rand(3)


class Tokens(nn.Module):
    def forward(self, x):
        return x.flatten(2).transpose(1, 2)


class Branching(nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3)) * (1 if float(x.sum()) > 0 else -1)


REFUSED = {
    "no module": (lambda: sk.from_torch(3, EXAMPLE), "int is not a torch module"),
    "a flat example": (lambda: sk.from_torch(Small(), torch.zeros(3, 16)), "not 3 x 16"),
    "an oblong example": (lambda: sk.from_torch(Small(), torch.zeros(1, 3, 16, 8)), "square"),
    "too few labels": (
        lambda: sk.from_torch(made(Small()), EXAMPLE, labels=["cat"]),
        "1 labels?, but the module has 3|labels",
    ),
    "chance": (lambda: sk.from_torch(Noisy(), EXAMPLE), "Noisy"),
    "no classes": (lambda: sk.from_torch(Tokens(), EXAMPLE), "Tokens"),
    "a branch on values": (lambda: sk.from_torch(Branching(), EXAMPLE), "Branching cannot be exp"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_come_in_right_is_one_sentence(what):
    call, sentence = REFUSED[what]
    with pytest.raises(sk.SqueezekitError, match=sentence) as told:
        call()
    assert "\n" not in str(told.value)
    assert "/tmp" not in str(told.value)


def test_without_onnxscript_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(sk.InputError, match=r"pip install 'squeezekit\[train\]'"):
        sk.from_torch(Small(), EXAMPLE)


def test_our_own_module_is_a_network_already():
    network = create("squeezenet-digits", labels=("a", "b"))
    from squeezekit.interop.weights import as_network

    np.testing.assert_array_equal(
        from_network(as_network(network.to_torch())).logits(images(1, 8)),
        from_network(network).logits(images(1, 8)),
    )
