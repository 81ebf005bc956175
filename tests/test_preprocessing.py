"""Preprocessing that a caller or a config beside the weights states, or that is assumed."""

import dataclasses
import json
import math
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from squeezekit.errors import InputError
from squeezekit.runtime.images import default_preprocessing, normalized, prepare
from squeezekit.runtime.preprocessing import assumed, settled, size_asked, with_assumption
from squeezekit.runtime.stated import Stated, described
from squeezekit.sqz.network import CAFFE, TORCHVISION, Metadata, Preprocessing

FOREIGN = with_assumption(Metadata("foreign", TORCHVISION))


def noise(width=40, height=30):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# ------------------------------------------------------------------------------- by the caller


def test_nothing_stated_changes_nothing_and_one_line_says_what_is_assumed():
    told = []
    assert settled(FOREIGN, "net.onnx", None, told.append) == FOREIGN
    assert settled(FOREIGN, "net.onnx", Stated()) == FOREIGN
    (line,) = told
    assert all(word in line for word in ("net.onnx", "assumed", "RGB", "256", "224", "0.485"))
    known = Metadata("ours", TORCHVISION)
    assert settled(known, "net.onnx", None, told.append) == known
    assert len(told) == 1


def test_what_is_stated_takes_its_place_and_is_remembered():
    stated = Stated(color="BGR", scale=1, mean=(104, 117, 123), resize=256, resize_mode="warp")
    told = []
    metadata = settled(FOREIGN, "net.onnx", stated, told.append)
    assert metadata.preprocessing == dataclasses.replace(CAFFE, crop=224)
    assert not assumed(metadata)
    assert not told
    assert "stated: color BGR" in metadata.provenance[-1]
    assert described(metadata.preprocessing) in metadata.provenance[-1]


@given(
    st.builds(
        Preprocessing,
        crop=st.just(224), resize=st.integers(224, 300),
        resize_mode=st.sampled_from(["warp", "short_side"]),
        color=st.sampled_from(["RGB", "BGR"]),
        interpolation=st.sampled_from(["nearest", "bilinear", "bicubic"]),
        scale=st.just(1.0), mean=st.tuples(*[st.floats(-255, 255)] * 3),
        std=st.tuples(*[st.floats(0.1, 255)] * 3),
    )
)  # fmt: skip
def test_a_whole_preprocessing_can_be_stated_over_any_other(preprocessing):
    for base in (TORCHVISION, dataclasses.replace(CAFFE, crop=224)):
        for guessed in (True, False):
            assert Stated.of(preprocessing).over(base, assumed=guessed) == preprocessing


def test_numbers_belong_together_where_they_were_only_assumed():
    half = Stated(mean=(0.5,), std=(0.5,)).over(TORCHVISION, assumed=True)
    assert (half.scale, half.mean, half.std) == (1 / 255, (0.5,) * 3, (0.5,) * 3)
    raw = Stated(scale=1 / 256).over(default_preprocessing(28, 1), assumed=True)
    assert (raw.scale, raw.mean, raw.std, raw.color) == (1 / 256, (0.0,), (1.0,), "L")


def test_over_what_a_file_says_only_what_is_stated_changes():
    changed = Stated(resize_mode="warp", std=(0.2, 0.3, 0.4)).over(TORCHVISION)
    assert changed == dataclasses.replace(TORCHVISION, resize_mode="warp", std=(0.2, 0.3, 0.4))
    with pytest.raises(InputError, match="units of pixel"):
        Stated(scale=1.0).over(TORCHVISION)


def test_each_channel_keeps_its_own_numbers_where_their_order_changes():
    """The same numbers for the same pixels, in the other order."""
    swapped = Stated(color="BGR").over(TORCHVISION)
    x = prepare(noise(), TORCHVISION)
    np.testing.assert_array_equal(prepare(noise(), swapped), x[::-1])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"color": "CMYK"}, "color must be one of RGB, BGR, L"),
        ({"resize_mode": "fit"}, "resize_mode must be one of short_side, warp"),
        ({"interpolation": "lanczos"}, "interpolation must be one of nearest, bilinear, bicubic"),
        ({"resize": 0}, "resize must be a number of pixels"),
        ({"crop": 1.5}, "crop must be a number of pixels"),
        ({"input_size": 100_000}, "input_size must be a number of pixels"),
        ({"crop": 224, "input_size": 227}, "differ"),
        ({"mean": (1, 2)}, "one number or three"),
        ({"mean": (math.nan,)}, "one number or three"),
        ({"std": (0.2, 0, 0.2)}, "std must not be 0"),
        ({"scale": 0}, "scale must be a number other than 0"),
        ({"scale": math.inf}, "scale must be a number other than 0"),
        ({"crop": 200}, "takes 224 pixels a side, not 200"),
        ({"input_size": 299}, "takes 224 pixels a side, not 299"),
        ({"resize": 223}, "smaller than the network's input"),
        ({"color": "L"}, "takes 3 channels"),
        ({"mean": (123.7, 116.3, 103.5)}, "state scale 1 as well"),
    ],
)
def test_what_cannot_be_is_refused_by_name(fields, reason):
    with pytest.raises(InputError, match=reason):
        Stated(**fields).over(TORCHVISION, assumed=True)


def test_one_channel_takes_one_number():
    with pytest.raises(InputError, match="one channel"):
        Stated(mean=(0.1, 0.2, 0.3)).over(default_preprocessing(28, 1), assumed=True)
    with pytest.raises(InputError, match="takes 1 channel:"):
        Stated(color="RGB").over(default_preprocessing(28, 1), assumed=True)


# --------------------------------------------------------------------------------- by a config


def beside(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / "net.onnx"


def from_config(folder, name, content, base=TORCHVISION, stated=None):
    path = beside(folder, name, content)
    foreign = with_assumption(Metadata("foreign", base))
    told = []
    metadata = settled(foreign, path, stated, told.append)
    assert len(told) == 1
    assert name in told[0]
    assert not assumed(metadata)
    return metadata.preprocessing


VIT = {
    "do_normalize": True, "do_resize": True, "feature_extractor_type": "ViTFeatureExtractor",
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 2, "size": 224,
}  # fmt: skip
HALF = Preprocessing(224, 224, "warp", mean=(0.5,) * 3, std=(0.5,) * 3)
MOBILENET = {
    "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "do_normalize": True,
    "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5], "image_processor_type": "MobileNetV1ImageProcessor",
    "resample": 2, "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 256},
}  # fmt: skip
CONVNEXT = {
    "crop_pct": 0.875, "do_normalize": True, "do_resize": True, "resample": 3,
    "feature_extractor_type": "ConvNextFeatureExtractor", "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225], "size": 224,
}  # fmt: skip
BICUBIC = dataclasses.replace(TORCHVISION, interpolation="bicubic")
TIMM = {
    "architecture": "resnet18",
    "pretrained_cfg": {
        "input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.95,
        "crop_mode": "center", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
    },
}  # fmt: skip


def changed(content, **values):
    return {**content, **values}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (VIT, HALF),
        (changed(VIT, size={"height": 224, "width": 224}), HALF),
        (changed(VIT, do_rescale=False, image_mean=127.5, image_std=127.5),
         dataclasses.replace(HALF, scale=1.0, mean=(127.5,) * 3, std=(127.5,) * 3)),
        (changed(VIT, do_normalize=False),
         dataclasses.replace(HALF, mean=(0.0,) * 3, std=(1.0,) * 3)),
        (MOBILENET, dataclasses.replace(HALF, resize=256, resize_mode="short_side")),
        (changed(MOBILENET, crop_size=224, size=256, resample=0),
         dataclasses.replace(HALF, resize=256, resize_mode="short_side", interpolation="nearest")),
        (changed(VIT, size={"height": 256, "width": 256}, crop_size=224),
         dataclasses.replace(HALF, resize=256)),
        (CONVNEXT, BICUBIC),
        (changed(CONVNEXT, size={"shortest_edge": 224}), BICUBIC),
        ({"do_flip_channel_order": True, "do_center_crop": True, "crop_size": 224, "size": 288,
          "image_processor_type": "MobileViTImageProcessor", "do_convert_rgb": True},
         Preprocessing(224, 288, color="BGR", mean=(0.0,) * 3, std=(1.0,) * 3)),
    ],
)  # fmt: skip
def test_what_hugging_face_states(tmp_path, content, expected):
    found = from_config(tmp_path, "preprocessor_config.json", content)
    assert described(found) == described(expected)
    pixels = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    np.testing.assert_allclose(normalized(pixels, found), normalized(pixels, expected), rtol=1e-6)


def test_efficientnet_divides_twice(tmp_path):
    """As its image processor does: (x - mean) / std, then / std again (include_top)."""
    config = {
        "do_center_crop": False, "do_normalize": True, "do_rescale": True, "do_resize": True,
        "image_mean": [0.4, 0.5, 0.6], "image_std": [0.5, 0.25, 0.2], "include_top": True,
        "image_processor_type": "EfficientNetImageProcessor", "resample": 0,
        "rescale_factor": 1 / 255, "rescale_offset": True, "size": {"height": 224, "width": 224},
    }  # fmt: skip
    found = from_config(tmp_path, "preprocessor_config.json", config)
    pixel, std = 100, np.array([0.5, 0.25, 0.2])
    right = ((pixel / 255 - 1) - np.array([0.4, 0.5, 0.6])) / std / std
    x = normalized(np.full((1, 1, 3), pixel, np.uint8), found)
    np.testing.assert_allclose(x.ravel(), right, rtol=1e-5)


def test_what_timm_states(tmp_path):
    expected = dataclasses.replace(BICUBIC, resize=235)  # floor(224 / 0.95)
    assert from_config(tmp_path / "a", "config.json", TIMM) == expected
    flat = {**TIMM["pretrained_cfg"], "num_classes": 10}
    assert from_config(tmp_path / "b", "config.json", flat) == expected
    squash = changed(flat, crop_mode="squash", crop_pct=1.0)
    assert from_config(tmp_path / "c", "config.json", squash) == dataclasses.replace(
        BICUBIC, resize=224, resize_mode="warp"
    )
    grey = changed(flat, input_size=[1, 28, 28], mean=[0.1], std=[0.3], crop_pct=1)
    found = from_config(tmp_path / "d", "config.json", grey, base=default_preprocessing(28, 1))
    assert found == Preprocessing(
        28, 28, color="L", mean=(0.1,), std=(0.3,), interpolation="bicubic"
    )


def test_the_size_of_an_open_network_is_stated_too(tmp_path):
    path = beside(tmp_path, "config.json", TIMM)
    assert size_asked(path, None) == 224
    assert size_asked(path, Stated(input_size=160)) == 160
    assert size_asked(tmp_path / "elsewhere" / "net.onnx", None) is None


def test_the_caller_comes_first(tmp_path):
    stated = Stated(resize=300, mean=(0.4,))
    found = from_config(tmp_path, "config.json", TIMM, stated=stated)
    assert found == dataclasses.replace(BICUBIC, resize=300, mean=(0.4,) * 3)
    small = dataclasses.replace(TORCHVISION, crop=160, resize=183)
    found = from_config(tmp_path, "config.json", TIMM, base=small, stated=Stated(crop=160))
    assert (found.crop, found.resize) == (160, 235)


def test_a_repository_has_its_config_above_its_onnx_folder(tmp_path):
    path = beside(tmp_path, "preprocessor_config.json", VIT).parent / "onnx" / "model.onnx"
    assert size_asked(path, None) == 224
    assert size_asked(tmp_path / "other" / "model.onnx", None) is None


def test_the_file_itself_comes_before_what_lies_beside_it(tmp_path):
    path = beside(tmp_path, "config.json", TIMM)
    ours = Metadata("ours", dataclasses.replace(CAFFE, crop=224))
    assert settled(ours, path) == ours


@pytest.mark.parametrize("content", ["{", "[]", {"model_type": "bert"}, {"mean": 1}])
def test_a_config_of_something_else_says_nothing(tmp_path, content):
    path = beside(tmp_path, "config.json", content)
    told = []
    assert settled(FOREIGN, path, None, told.append) == FOREIGN
    assert "assumed" in told[0]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("preprocessor_config.json", "{", "is not a JSON object"),
        ("preprocessor_config.json", "[" * 100_000, "is not a JSON object"),
        ("config.json", '{"pretrained_cfg": {', "is not a JSON object"),
        ("preprocessor_config.json", changed(VIT, resample=1), "lanczos"),
        ("preprocessor_config.json", changed(VIT, resample="x"), "resample is 'x'"),
        ("preprocessor_config.json", changed(VIT, do_resize=False), "do_resize"),
        ("preprocessor_config.json", changed(VIT, do_pad=True), "do_pad"),
        ("preprocessor_config.json", changed(VIT, auto_map={"x": "y.Z"}), "auto_map"),
        ("preprocessor_config.json", changed(VIT, size={"height": 1, "width": 2}), "size is"),
        ("preprocessor_config.json", changed(VIT, size={"longest_edge": 2}), "size is"),
        ("preprocessor_config.json", changed(VIT, size={"shortest_edge": 224}), "does not crop"),
        ("preprocessor_config.json", changed(VIT, size="224"), "size is '224'"),
        ("preprocessor_config.json", changed(VIT, crop_pct=0.9), "crop_pct"),
        ("preprocessor_config.json", changed(VIT, image_mean=None), "image_mean"),
        ("preprocessor_config.json", changed(VIT, image_std=[0.5, "x", 1]), "image_std"),
        ("preprocessor_config.json", changed(VIT, rescale_factor=[1]), "rescale_factor"),
        ("preprocessor_config.json", changed(MOBILENET, crop_size=300), "larger than its size"),
        ("preprocessor_config.json", changed(VIT, size=160), "takes 224 pixels a side, not 160"),
        ("config.json", changed(TIMM["pretrained_cfg"], crop_mode="border"), "crop_mode"),
        ("config.json", changed(TIMM["pretrained_cfg"], interpolation="random"), "interpolation"),
        ("config.json", changed(TIMM["pretrained_cfg"], input_size=[3, 224, 200]), "input_size"),
        ("config.json", changed(TIMM["pretrained_cfg"], input_size=[4, 224, 224]), "input_size"),
        ("config.json", changed(TIMM["pretrained_cfg"], crop_pct=1.1), "crop_pct"),
        ("config.json", changed(TIMM["pretrained_cfg"], mean=[1, 2]), "mean"),
    ],
)  # fmt: skip
def test_what_a_config_says_and_cannot_be_done_is_refused_by_name(tmp_path, name, content, reason):
    path = beside(tmp_path, name, content)
    with pytest.raises(InputError, match=reason) as refused:
        settled(FOREIGN, path)
    assert str(path.parent / name) in str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"),
    [("preprocessor_config.json", MOBILENET), ("preprocessor_config.json", CONVNEXT),
     ("config.json", TIMM["pretrained_cfg"])],
)  # fmt: skip
@given(data=st.data())
def test_any_config_is_read_or_refused(tmp_path_factory, name, content, data):
    key = data.draw(st.sampled_from([*content, "image_processor_type"]))
    path = beside(tmp_path_factory.mktemp("any"), name, changed(content, **{key: data.draw(JSON)}))
    with suppress(InputError):  # and nothing else
        assert settled(FOREIGN, path).preprocessing.crop == 224
