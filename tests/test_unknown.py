"""The class "unknown": photos of other things are told so, by every program."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from squeezekit.compression.share import share
from squeezekit.data.folders import ImageSet, of_one_class, scan
from squeezekit.errors import InputError, UnsupportedError
from squeezekit.interop.page_runtime import PageRuntime
from squeezekit.models import catalogue
from squeezekit.models.fold import fold_batch_norm
from squeezekit.models.head import linear_head, without_relu_behind_head
from squeezekit.runtime.classifier import from_network
from squeezekit.runtime.images import prepare_file
from squeezekit.sqz import container
from squeezekit.unknown import Features, auroc, with_unknown


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> dict[str, ImageSet]:
    """Dark and bright noise is known, stripes are other things."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for part, count in (("train", 60), ("held", 60)):
        for name, low in (("bright", 128), ("dark", 0)):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(low, low + 128, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    (root / "others").mkdir()
    for i in range(300):
        low, high = sorted(random.integers(0, 256, 2))
        pixels = np.where(np.arange(8) % 2, low // 4, 192 + high // 4).astype(np.uint8)
        pixels = np.broadcast_to(pixels, (8, 8)) + random.integers(0, 9, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "others" / f"{i}.png")
    others = of_one_class(root / "others", sorted((root / "others").iterdir()))
    return {"train": scan(root / "train"), "held": scan(root / "held"), "others": others}


@pytest.fixture(scope="module")
def knows(photos):
    """A network with random features and a last layer fitted to them by least squares."""
    network = catalogue.create("squeezenet-digits", labels=("bright", "dark"))
    network = without_relu_behind_head(fold_batch_norm(network))
    x, _ = Features(network).of(photos["train"], lambda *a: None, 0, 1)
    x1 = np.column_stack([x, np.ones(len(x))])
    targets = np.eye(2)[photos["train"].targets] * 8 - 4
    found = np.linalg.lstsq(x1.T @ x1 + 1e-6 * np.eye(x1.shape[1]), x1.T @ targets, rcond=None)[0]
    weight, bias = list(network.tensors)[-2:]
    shape = network.tensors[weight].shape
    return network.with_tensors(
        {
            weight: found[:-1].T.reshape(shape).astype(np.float32),
            bias: found[-1].astype(np.float32),
        }
    )


def answers(network, images):
    how = network.metadata.preprocessing
    batch = np.stack([prepare_file(path, how) for path in images.paths])
    return batch, from_network(network, precision="float").logits(batch)


@pytest.mark.parametrize("shared", [False, True], ids=["float", "shared"])
def test_others_are_unknown_and_the_rest_is_as_it_was(knows, photos, shared):
    network = share(knows, 6) if shared else knows
    made, rule = with_unknown(network, photos["train"], photos["held"], photos["others"], keep=0.9)
    assert made.metadata.labels == ("bright", "dark", "unknown")
    batch, known = answers(made, photos["held"])
    before = answers(network, photos["held"])[1]
    np.testing.assert_allclose(known[:, :2], before, rtol=1e-4, atol=1e-4)
    right = before.argmax(axis=1) == photos["held"].targets
    assert right.mean() > 0.9
    assert (known.argmax(axis=1)[right] != 2).mean() >= 0.9  # as many as were to be kept
    test = photos["others"].subset(np.arange(0, 300, 5))
    strange = answers(made, test)[1].argmax(axis=1)
    assert 100 * (strange != 2).mean() == pytest.approx(rule.others_accepted)
    assert rule.others_accepted < 20
    assert rule.auroc > 0.9
    small = container.encode(made)
    assert len(small) - len(container.encode(network)) < 2048
    page = PageRuntime(small)
    for image, expected in zip(batch, known, strict=True):
        np.testing.assert_allclose(page.logits(image), expected, rtol=1e-3, atol=1e-3)


def test_what_cannot_be_is_refused(knows, photos):
    train, held, others = photos["train"], photos["held"], photos["others"]
    with pytest.raises(InputError, match="at least 50 held-out"):
        with_unknown(knows, train, held.subset(np.arange(49)), others)
    with pytest.raises(InputError, match="250 of others"):
        with_unknown(knows, train, held, others.subset(np.arange(249)))
    with pytest.raises(InputError, match="keep must be"):
        with_unknown(knows, train, held, others, keep=1.0)
    metadata = dataclasses.replace(knows.metadata, labels=("dark", "unknown"))
    with pytest.raises(InputError, match="already"):
        with_unknown(dataclasses.replace(knows, metadata=metadata), train, held, others)
    metadata = dataclasses.replace(knows.metadata, labels=())
    with pytest.raises(UnsupportedError, match="names of its classes"):
        with_unknown(dataclasses.replace(knows, metadata=metadata), train, held, others)
    relu = catalogue.create("squeezenet-1.1", classes=2, input_size=64, variant="plain")
    with pytest.raises(UnsupportedError, match="Relu behind its last layer"):
        linear_head(relu)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=20),
    st.lists(st.integers(0, 5), min_size=1, max_size=20),
)
def test_auroc_is_the_share_of_pairs_in_order(known, others):
    pairs = [(a > b) + (a == b) / 2 for a in known for b in others]
    found = auroc(np.array(known, float), np.array(others, float))
    assert found == pytest.approx(sum(pairs) / len(pairs))
