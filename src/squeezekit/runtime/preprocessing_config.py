"""Reads the preprocessing that Hugging Face's and timm's files beside the weights state.

Sources: transformers' image processors (`preprocessor_config.json`), and timm's
`create_transform` for evaluation (`config.json` with `pretrained_cfg`).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from squeezekit.errors import InputError
from squeezekit.files import read_bytes

HUGGING_FACE, TIMM = "preprocessor_config.json", "config.json"

_MOST_BYTES = 1 << 20
_RESAMPLING: dict[object, str] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
    5: "hamming",
}
_CROP_MODES: dict[object, str] = {"center": "short_side", "squash": "warp"}
_KNOWN_INTERPOLATIONS = ("nearest", "bilinear", "bicubic")

_SHORT_SIDE_FAMILIES = frozenset(
    {"Bit", "CLIP", "ConvNext", "Levit", "MobileNetV1", "MobileNetV2", "MobileViT", "PoolFormer"}
)
"""For these, a size of one number is that of the short side; for the others, of both sides."""

_SAYS_NOTHING = frozenset(
    {
        "_commit_hash", "_processor_class", "_valid_processor_keys", "data_format",
        "default_to_square", "device", "disable_grouping", "do_convert_rgb",
        "feature_extractor_type", "image_processor_type", "input_data_format", "model_input_names",
        "num_channels",
        "processor_class", "return_tensors", "transformers_version",
    }
)  # fmt: skip
"""Keys that change nothing for one photo in RGB."""


def beside(path: Path) -> tuple[dict[str, Any], Path] | None:
    """What a file beside the weights states, as fields of `preprocessing.Stated`.

    Args:
        path: the path of the weights. Of those in a folder "onnx", the folder above counts too: so
            repositories of Hugging Face have it.

    Returns:
        The fields, and the file that states them; None if there is no such file.

    Raises:
        InputError: if it cannot be read, or states what `Preprocessing` cannot express, naming
            it.
    """
    folders = [path.parent]
    if path.parent.name == "onnx":
        folders.append(path.parent.parent)
    for folder in folders:
        if (where := folder / HUGGING_FACE).is_file():
            return _explained(_hugging_face, _content(where), where), where
        if (where := folder / TIMM).is_file() and (config := _timm_part(where)) is not None:
            return _explained(_timm, config, where), where
    return None


class _CannotError(Exception):
    """What cannot be expressed."""


def _explained(read: Any, content: dict[str, Any], where: Path) -> dict[str, Any]:  # noqa: ANN401
    try:
        return dict(read(dict(content)))
    except _CannotError as error:
        raise InputError(
            f"{where}: {error}, which is not supported: state the preprocessing yourself and move "
            "this file away"
        ) from None


def _content(where: Path) -> dict[str, Any]:
    data = read_bytes(where)
    try:
        content = json.loads(data) if len(data) <= _MOST_BYTES else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{where}: is not a JSON object")
    return content


def _timm_part(where: Path) -> dict[str, Any] | None:
    """The part of a config.json that is timm's; None if that is somebody else's, as most are."""
    try:
        content = _content(where)
    except InputError:
        if b"pretrained_cfg" in read_bytes(where)[:_MOST_BYTES]:
            raise
        return None
    config = content.get("pretrained_cfg", content)
    return (
        config
        if isinstance(config, dict) and {"input_size", "mean", "std"} <= config.keys()
        else None
    )


# --------------------------------------------------------------------------------- Hugging Face


def _hugging_face(config: dict[str, Any]) -> dict[str, Any]:
    kind = config.get("image_processor_type") or config.get("feature_extractor_type") or ""
    family = str(kind).removesuffix("Fast").removesuffix("ImageProcessor")
    family = family.removesuffix("FeatureExtractor")
    for key in _SAYS_NOTHING:
        config.pop(key, None)
    if not config.pop("do_resize", True):
        raise _CannotError("do_resize is false")
    fields = _hf_sizes(config, family) | _hf_numbers(config, family)
    if (code := config.pop("resample", None)) is not None:
        fields["interpolation"] = _interpolation(_RESAMPLING.get(_hashable(code), code), "resample")
    if config.pop("do_flip_channel_order", False):
        fields["color"] = "BGR"
    for key, value in config.items():
        if value not in (None, False, [], {}):
            raise _CannotError(f"it states {key!r}")
    return fields


def _hf_sizes(config: dict[str, Any], family: str) -> dict[str, Any]:
    crop_size = config.pop("crop_size", None)
    cropped = config.pop("do_center_crop", crop_size is not None)
    crop = _square(crop_size, "crop_size") if cropped and crop_size is not None else None
    size, crop_pct = config.pop("size", None), config.pop("crop_pct", None)
    if size is None:
        raise _CannotError("it states no 'size'")
    if crop_pct is not None and family not in ("ConvNext", "PoolFormer"):
        raise _CannotError("it states 'crop_pct'")
    if isinstance(size, dict) and size.keys() == {"shortest_edge"}:
        pixels, mode = _pixels(size["shortest_edge"], "size"), "short_side"
    else:
        pixels, mode = _square(size, "size"), "warp"
        if not isinstance(size, dict) and family in _SHORT_SIDE_FAMILIES:
            mode = "short_side"
    if mode == "short_side" and family == "ConvNext":
        if pixels >= 384:
            return {"resize": pixels, "resize_mode": "warp", "crop": pixels}
        share = _positive(crop_pct if crop_pct is not None else 224 / 256, "crop_pct")
        return {"resize": int(pixels / share), "resize_mode": mode, "crop": pixels}
    if mode == "short_side" and family == "PoolFormer":
        pixels = int(pixels / _positive(crop_pct if crop_pct is not None else 0.9, "crop_pct"))
    if mode == "short_side" and family == "Levit":
        pixels = int(256 / 224 * pixels)
    if cropped and crop is None:
        raise _CannotError("it crops, but states no 'crop_size'")
    if crop is None:
        if mode == "short_side":
            raise _CannotError("it resizes the short side and does not crop")
        crop = pixels
    if crop > pixels:
        raise _CannotError(f"its crop_size {crop} is larger than its size {pixels}")
    return {"resize": pixels, "resize_mode": mode, "crop": crop}


def _hf_numbers(config: dict[str, Any], family: str) -> dict[str, Any]:
    factor = config.pop("rescale_factor", None)
    scale = _positive(1 / 255 if factor is None else factor, "rescale_factor")
    if not config.pop("do_rescale", True):
        scale = 1.0
    mean, std = config.pop("image_mean", None), config.pop("image_std", None)
    normalized = config.pop("do_normalize", mean is not None)
    offset = 1.0 if config.pop("rescale_offset", False) else 0.0
    again = config.pop("include_top", family == "EfficientNet")  # divides by std once more
    means: tuple[float, ...] = (0.0,)
    stds: tuple[float, ...] = (1.0,)
    if ((normalized or again) and std is None) or (normalized and mean is None):
        raise _CannotError("it normalizes, but states no 'image_mean' and 'image_std'")
    if normalized:
        means, stds = _numbers(mean, "image_mean"), _numbers(std, "image_std")
    if again:
        divisors = _numbers(std, "image_std")
        stds = tuple(d * d if normalized else d for d in divisors)
    return {"scale": scale, "mean": tuple(m + offset for m in means), "std": stds}


# ------------------------------------------------------------------------------------------ timm


def _timm(config: dict[str, Any]) -> dict[str, Any]:
    size = config["input_size"]
    if not (isinstance(size, list) and len(size) == 3 and size[1] == size[2] and size[0] in (1, 3)):
        raise _CannotError(f"its input_size is {size!r}")
    crop = _pixels(size[1], "input_size")
    mode = _CROP_MODES.get(_hashable(config.get("crop_mode") or "center"))
    if mode is None:
        raise _CannotError(f"its crop_mode is {config['crop_mode']!r}")
    share = _positive(config.get("crop_pct") or 0.875, "crop_pct")
    if share > 1:
        raise _CannotError(f"its crop_pct is {share:g}")
    fields = {
        "resize": math.floor(crop / share), "resize_mode": mode, "crop": crop, "scale": 1 / 255,
        "mean": _numbers(config["mean"], "mean"), "std": _numbers(config["std"], "std"),
    }  # fmt: skip
    if size[0] == 1:
        fields["color"] = "L"
    if (name := config.get("interpolation")) is not None:
        fields["interpolation"] = _interpolation(name, "interpolation")
    return fields


# ---------------------------------------------------------------------------------------- values


def _interpolation(name: object, key: str) -> str:
    if name not in _KNOWN_INTERPOLATIONS:
        raise _CannotError(f"its {key} is {name!r}")
    return str(name)


def _hashable(value: object) -> object:
    return value if isinstance(value, (str, int)) else None


def _square(value: object, key: str) -> int:
    if isinstance(value, dict):
        if value.keys() != {"height", "width"} or value["height"] != value["width"]:
            raise _CannotError(f"its {key} is {json.dumps(value)}")
        value = value["height"]
    elif isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    return _pixels(value, key)


def _pixels(value: object, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65_536:
        raise _CannotError(f"its {key} is {value!r}")
    return value


def _positive(value: object, key: str) -> float:
    (number,) = _numbers(value, key) if not isinstance(value, list) else (0.0,)
    if number <= 0:
        raise _CannotError(f"its {key} is {value!r}")
    return number


def _numbers(value: object, key: str) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    good = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in values)
    if not good or len(values) not in (1, 3) or not all(map(math.isfinite, values)):
        raise _CannotError(f"its {key} is {value!r}")
    return tuple(map(float, values))
