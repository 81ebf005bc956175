"""The published network: read right, and the same answers whichever way it runs."""

import numpy as np
import pytest

from squeezekit.compression.prune import kept_count, table1
from squeezekit.data import dataset
from squeezekit.data.labelling import matched, with_labels
from squeezekit.errors import InputError
from squeezekit.evaluation import evaluate
from squeezekit.interop import han
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.loading import load
from squeezekit.sqz import container
from squeezekit.sqz.network import SharedTensor


@pytest.fixture(scope="module")
def network(shared_data):
    return han.read(shared_data / "han-2016" / "compressed_SqueezeNet.net")


def test_counts(network):
    weights = {n: t for n, t in network.tensors.items() if n.endswith(".weight")}
    assert sum(t.size for t in weights.values()) == 1_244_448
    assert sum(int(np.count_nonzero(t.values())) for t in weights.values()) == 415_921
    assert network.parameters == 1_248_424
    for name, density in table1().items():
        tensor = weights[name]
        assert isinstance(tensor, SharedTensor)
        # Table 1 counts what was kept; some of that was rounded to zero afterwards.
        assert np.count_nonzero(tensor.levels) <= kept_count(tensor.size, density)
        assert np.count_nonzero(tensor.levels) >= 0.985 * kept_count(tensor.size, density)


def test_same_answers_in_every_way(network, shared_data, tmp_path):
    """64.2 / 84.0 on all 500 images; here on 60 of them, each way; bench/ has the whole."""
    from squeezekit.trainable.network import TorchClassifier

    data = shared_data / "imagenet-500"
    images = dataset.split(data, "all")
    metadata = with_labels(network.metadata, 1000, data_dir=data)
    images = matched(images, metadata)
    container.write(network, tmp_path / "net.sqz")
    ways = [from_network(network), TorchClassifier(network), load(tmp_path / "net.sqz")]
    results = [evaluate(way, images, limit=60) for way in ways]
    for result in results[1:]:
        assert np.array_equal(result.ranked, results[0].ranked)
        assert np.allclose(result.confidence, results[0].confidence, atol=1e-4)
    assert results[0].images == 60
    assert results[0].top1 == pytest.approx(64.2, abs=12)  # 60 images tell no more than that


def test_layer_by_hand():
    """Two entries: a filler after 15 zeros whose code means 0, then a weight 3 places on."""
    codebook = np.zeros(256, np.float32)
    codebook[7] = -0.5
    layer = han.StoredLayer(
        codebook,
        np.zeros(1, np.float32),
        np.array([3, 7], np.uint8),
        np.array([15, 2], np.uint8),
    )
    values = layer.weight((1, 20, 1, 1)).values().reshape(-1)
    assert np.flatnonzero(values).tolist() == [18]
    assert values[18] == -0.5
    with pytest.raises(ValueError, match="position 18"):
        layer.weight((1, 18, 1, 1))


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: b"",
        lambda d: d[:50],
        lambda d: d[:-1],
        lambda d: d + b"\x00",
        lambda d: b"\xff" * 104 + d[104:],
        lambda d: d[:104] + b"\xff\xff\xff\xff" + d[108:],  # NaN in a codebook
        lambda d: d[:-2000] + b"\xff" * 2000,  # gaps that reach past the end
    ],
)
def test_damage_is_refused(shared_data, tmp_path, damage):
    data = (shared_data / "han-2016" / "compressed_SqueezeNet.net").read_bytes()
    path = tmp_path / "broken.net"
    path.write_bytes(damage(data))
    with pytest.raises(InputError, match=r"broken\.net"):
        han.read(path)
