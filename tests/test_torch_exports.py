"""torch's own exporters: what they make of a plain SqueezeNet v1.1 comes in and answers alike."""

import warnings

import numpy as np
import pytest
import torch
from foreign import run
from torch import nn

from squeezekit.interop import onnx_file
from squeezekit.interop.opening import load
from squeezekit.interop.page_runtime import PageRuntime
from squeezekit.models.cost import cost
from squeezekit.models.fold import fold_batch_norm
from squeezekit.sqz import container
from squeezekit.trainable.network import TorchClassifier


class Fire(nn.Module):
    def __init__(self, inputs, squeezed, expanded):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x):
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.expand1x1(x)), torch.relu(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    """Version 1.1 (Iandola et al. 2016, table 1, and its authors' repository)."""

    def __init__(self, classes=1000):
        super().__init__()
        pool = [nn.MaxPool2d(3, 2, ceil_mode=True) for _ in range(3)]
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool[0],
            Fire(64, 16, 64), Fire(128, 16, 64), pool[1],
            Fire(128, 32, 128), Fire(256, 32, 128), pool[2],
            Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Conv2d(512, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, x):
        return torch.flatten(self.classifier(self.features(x)), 1)


def exported(module, path, size, default, **settings):
    """By the exporter that torch.onnx.export takes by itself, or by the older one."""
    if default:
        pytest.importorskip("onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, about themselves
        torch.onnx.export(
            module.eval(), (torch.zeros(1, 3, size, size),), path, verbose=False,
            **({} if default else {"dynamo": False}), **settings,
        )  # fmt: skip


@pytest.mark.parametrize("default", [True, False])
def test_a_plain_squeezenet(default, tmp_path):
    """Batch 1, as is: the same answers by ONNX Runtime, torch and the C library."""
    torch.manual_seed(0)
    module, path = SqueezeNet(), tmp_path / "squeezenet1_1.onnx"
    exported(module, path, 64, default)
    network = onnx_file.read(path)
    assert network.parameters == 1_235_496  # as torchvision counts them
    assert cost(network).parameters == 1_235_496
    x = np.random.default_rng(1).standard_normal((3, 3, 64, 64), np.float32)
    with torch.inference_mode():
        expected = module(torch.tensor(x)).numpy()
    close = 1e-4 * np.ptp(expected)
    np.testing.assert_allclose(run(network, x), expected, atol=close)
    np.testing.assert_allclose(load(path).logits(x), expected, atol=close)
    np.testing.assert_allclose(TorchClassifier(network).logits(x), expected, atol=close)
    page = PageRuntime(container.encode(fold_batch_norm(network), "dense"))
    np.testing.assert_allclose(page.logits(x[0]), expected[0], atol=close)
