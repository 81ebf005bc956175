"""Pixels against Pillow and numpy by hand, and every kind of file a folder may hold."""

import contextlib
import dataclasses
import functools
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageOps

from squeezekit.errors import InputError, UnsupportedError
from squeezekit.runtime.images import (
    centre_crop,
    default_preprocessing,
    normalized,
    open_image,
    prepare,
    prepare_file,
    resized,
    resized_quickly,
    to_array,
)
from squeezekit.sqz.network import CAFFE, TORCHVISION, Preprocessing


def noise(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def file_bytes(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width, height, bits=1, colour=0):
    """A PNG that states a size and holds no pixels."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


# --- preprocessing ---------------------------------------------------------------------------


def test_caffe_preprocessing_is_warp_centre_crop_bgr_minus_mean():
    image = Image.fromarray(noise(90, 160))
    warped = np.asarray(image.resize((256, 256), Image.Resampling.BILINEAR))
    cropped = warped[14 : 14 + 227, 14 : 14 + 227].astype(np.float32)
    expected = (cropped[:, :, ::-1] - np.array([104, 117, 123], np.float32)).transpose(2, 0, 1)
    found = prepare(image, CAFFE)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("size", "scaled"),
    [((500, 375), (341, 256)), ((375, 500), (256, 341)), ((256, 256), (256, 256)),
     ((100, 33), (775, 256)), ((1, 1), (256, 256))],
)  # fmt: skip
def test_short_side_truncates_the_long_one_as_torchvision_does(size, scaled):
    image = Image.fromarray(noise(size[1], size[0]))
    assert resized(image, TORCHVISION).size == scaled
    by_hand = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (scaled[0] - 224) // 2, (scaled[1] - 224) // 2
    cropped = np.asarray(by_hand)[top : top + 224, left : left + 224].transpose(2, 0, 1)
    mean, std = np.reshape(TORCHVISION.mean, (3, 1, 1)), np.reshape(TORCHVISION.std, (3, 1, 1))
    np.testing.assert_allclose(
        prepare(image, TORCHVISION), (cropped / 255 - mean) / std, atol=2e-6, rtol=0
    )


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_interpolation_is_pillows(interpolation):
    image = Image.fromarray(noise(40, 60))
    method = Image.Resampling[interpolation.upper()]
    preprocessing = Preprocessing(16, 20, "warp", interpolation=interpolation)
    found = resized(image, preprocessing)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(image.resize((20, 20), method)))


def test_one_channel_is_pillows_luminance():
    image = Image.fromarray(noise(8, 8))
    grey = Preprocessing(8, 8, color="L", mean=(0.5,), std=(0.25,))
    expected = (np.asarray(image.convert("L")) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(prepare(image, grey), expected[np.newaxis], atol=1e-6)
    assert prepare(image.convert("L"), TORCHVISION).shape == (3, 224, 224)


@given(arrays.arrays(np.uint8, (2, 5, 4, 3)), st.sampled_from(["RGB", "BGR"]))
def test_a_batch_is_normalized_like_each_of_its_images(pixels, color):
    preprocessing = Preprocessing(4, 4, color=color, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 0.5))
    batch = normalized(pixels, preprocessing)
    assert batch.shape == (2, 3, 5, 4)
    for image, x in zip(pixels, batch, strict=True):
        np.testing.assert_array_equal(to_array(Image.fromarray(image), preprocessing), x)
    rgb = pixels.astype(np.float64)[..., ::-1] if color == "BGR" else pixels.astype(np.float64)
    expected = (rgb / 255 - [0.1, 0.2, 0.3]) / [1.0, 2.0, 0.5]
    np.testing.assert_allclose(batch, np.moveaxis(expected, -1, 1), atol=1e-6)


@pytest.mark.parametrize(("size", "crop", "offset"), [(256, 227, 14), (256, 224, 16), (5, 4, 0)])
def test_the_centre_crop_rounds_down(size, crop, offset):
    pixels = noise(size, size)
    cropped = np.asarray(centre_crop(Image.fromarray(pixels), crop))
    np.testing.assert_array_equal(cropped, pixels[offset : offset + crop, offset : offset + crop])


def test_default_preprocessing_scales_torchvisions():
    assert default_preprocessing(224, 3) == TORCHVISION
    small = default_preprocessing(32, 3)  # too small to be cropped
    assert (small.crop, small.resize, small.mean) == (32, 32, TORCHVISION.mean)
    assert [default_preprocessing(side, 3).resize for side in (63, 64, 96)] == [63, 73, 110]
    grey = default_preprocessing(28, 1)
    assert (grey.crop, grey.resize, grey.color, grey.channels) == (28, 28, "L", 1)
    assert grey.mean == pytest.approx([np.mean(TORCHVISION.mean)])
    assert grey.std == pytest.approx([np.mean(TORCHVISION.std)])
    with pytest.raises(UnsupportedError, match="4 channels"):
        default_preprocessing(224, 4)


# --- kinds of images -------------------------------------------------------------------------


def test_every_kind_of_source_gives_the_same_image(tmp_path):
    pixels = noise(6, 7)
    path = tmp_path / "ein Bild mit Wörtern.PNG"
    Image.fromarray(pixels).save(path)
    with path.open("rb") as stream:
        sources = [path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), stream]
        for source in sources:
            np.testing.assert_array_equal(np.asarray(open_image(source)), pixels)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF", "JPEG2000", "TGA"])
def test_lossless_formats_give_their_pixels(kind):
    pixels = np.repeat(noise(9, 9, 1)[..., np.newaxis], 3, axis=2)
    options = {"lossless": True} if kind == "WEBP" else {}
    options |= {"irreversible": False} if kind == "JPEG2000" else {}
    found = open_image(file_bytes(Image.fromarray(pixels), kind, **options))
    np.testing.assert_array_equal(np.asarray(found.convert("RGB")), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    image = Image.fromarray(noise(6, 9))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_bytes(image, "PNG", exif=exif)
    with Image.open(io.BytesIO(data)) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(np.asarray(open_image(data)), expected)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0\x2a\0\0\0\x08\xff\xff"])
def test_broken_exif_leaves_the_image_as_stored(exif):
    image = Image.fromarray(noise(16, 24))
    data = file_bytes(image, "JPEG", exif=exif)
    assert open_image(data).size == (24, 16)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_greyscale_is_scaled_by_its_range(kind):
    values = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    found = np.asarray(open_image(file_bytes(Image.fromarray(values), kind)))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.rint(values / 257))


def test_pixels_without_an_eight_bit_meaning_are_refused():
    wide = Image.fromarray(np.array([[70_000, 1]], np.int32))
    with pytest.raises(InputError, match="32-bit"):
        open_image(file_bytes(wide, "TIFF"))
    with pytest.raises(InputError, match="floating-point"):
        open_image(file_bytes(Image.new("F", (3, 3), 0.5), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted(kind):
    # No ink is white, full black ink is black, full cyan without red.
    for ink, colour in [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((255, 0, 0, 0), (0, 255, 255)),
    ]:
        data = file_bytes(Image.new("CMYK", (16, 16), ink), kind)
        found = open_image(data)
        assert found.mode == "RGB"
        np.testing.assert_allclose(np.asarray(found)[8, 8], colour, atol=3)


def test_transparency_is_put_on_white():
    pixels = noise(5, 5, 4)
    alpha = pixels[..., 3:].astype(np.float64) / 255
    expected = pixels[..., :3] * alpha + 255 * (1 - alpha)
    found = open_image(file_bytes(Image.fromarray(pixels, "RGBA")))
    assert found.mode == "RGB"
    np.testing.assert_allclose(np.asarray(found), expected, atol=1)


def test_a_transparent_palette_or_grey_value_is_put_on_white():
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255, 0, 255, 0])
    palette.putpixel((0, 0), 0)
    found = open_image(file_bytes(palette, transparency=1))
    assert found.getpixel((0, 0)) == (255, 0, 0)
    assert found.getpixel((3, 3)) == (255, 255, 255)
    opaque = open_image(file_bytes(palette))
    assert opaque.getpixel((3, 3)) == (0, 0, 255)
    grey = Image.new("L", (2, 1), 7)
    grey.putpixel((1, 0), 100)
    found = open_image(file_bytes(grey, transparency=7)).convert("RGB")
    assert (found.getpixel((0, 0)), found.getpixel((1, 0))) == ((255,) * 3, (100,) * 3)


def test_greyscale_and_black_and_white_become_three_equal_channels():
    grey = noise(6, 6, 1)
    found = resized(open_image(file_bytes(Image.fromarray(grey))), Preprocessing(6, 6))
    np.testing.assert_array_equal(np.asarray(found), np.repeat(grey[..., None], 3, axis=2))
    bits = Image.fromarray(grey > 128)
    np.testing.assert_array_equal(
        np.asarray(open_image(file_bytes(bits))), np.where(grey > 128, 255, 0)
    )


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several_counts(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    found = open_image(file_bytes(frames[0], kind, save_all=True, append_images=frames[1:]))
    np.testing.assert_allclose(found.convert("RGB").getpixel((4, 4)), (255, 0, 0), atol=4)


def test_a_single_pixel_is_enough():
    found = prepare(open_image(file_bytes(Image.new("RGB", (1, 1), (104, 117, 123)))), CAFFE)
    assert found.shape == (3, 227, 227)
    np.testing.assert_array_equal(found[:, 0, 0], [19, 0, -19])


# --- what is no image ------------------------------------------------------------------------


def sentence(source):
    with pytest.raises(InputError) as caught:
        open_image(source)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


def test_missing_empty_and_foreign_files_are_named(tmp_path):
    assert sentence(tmp_path / "gone.jpg").endswith("gone.jpg does not exist")
    assert "folder" in sentence(tmp_path)
    for content, reason in [
        (b"", "is empty"),
        (b"This is text, whatever its name says.", "is not an image"),
        (b"<!DOCTYPE html><html></html>", "is not an image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not an image"),
    ]:
        path = tmp_path / "photo.jpg"
        path.write_bytes(content)
        text = sentence(path)
        assert text.startswith(str(path))
        assert reason in text


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files_are_refused(tmp_path, kind, share):
    data = file_bytes(Image.fromarray(noise(64, 64)), kind)
    path = tmp_path / "cut.img"
    path.write_bytes(data[: int(len(data) * share)])
    assert "cut.img" in sentence(path)


@given(st.data())
def test_damaged_files_give_an_image_or_an_input_error(data):
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF"]))
    good = bytearray(file_bytes(Image.fromarray(noise(16, 16)), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InputError):
        assert open_image(bytes(good)).mode in ("L", "RGB")


def test_a_decompression_bomb_is_refused():
    assert "too many pixels" in sentence(png_header(60_000, 60_000))


def test_a_large_image_that_holds_less_than_it_states_is_refused_without_a_warning():
    assert "truncated" in sentence(png_header(12_000, 9_000))


def test_a_sliver_is_refused_by_name(tmp_path):
    path = tmp_path / "sliver.png"
    Image.new("1", (1, 60_000)).save(path)
    with pytest.raises(InputError, match=r"sliver\.png .*1 x 60000"):
        prepare_file(path, TORCHVISION)
    assert prepare_file(path, CAFFE).shape == (3, 227, 227)


# --- decoding at reduced size ----------------------------------------------------------------


@functools.cache
def photo(width, height, mode="RGB"):
    """Detail at every scale as photos have it, the finest of it in brightness only."""
    random = np.random.default_rng(0)
    values = np.zeros((height, width, 1), np.float32)
    for step, strength in ((64, 60), (16, 25), (4, 12), (1, 6)):
        small = random.normal(
            128 if step == 64 else 0, strength,
            (height // step + 1, width // step + 1, len(mode) if step > 4 else 1),
        )  # fmt: skip
        planes = [
            Image.fromarray(plane.astype(np.float32)).resize((width, height), Image.BICUBIC)
            for plane in np.moveaxis(small, -1, 0)
        ]
        values = values + np.stack([np.asarray(plane) for plane in planes], axis=-1)
    pixels = values.clip(0, 255).astype(np.uint8)
    return Image.frombytes(mode, (width, height), pixels.tobytes())


def differences(data, preprocessing):
    exact = resized(open_image(data), preprocessing)
    quick = resized_quickly(data, preprocessing)
    assert (quick.size, quick.mode) == (exact.size, exact.mode)
    return np.abs(np.asarray(exact, int) - np.asarray(quick, int))


QUICK = Preprocessing(112, 128)


@pytest.mark.parametrize("resize_mode", ["short_side", "warp"])
@pytest.mark.parametrize(("size", "reduced"), [
    ((1024, 768), True), ((1031, 771), True), ((771, 1035), True), ((2053, 1537), True),
    ((513, 514), True), ((511, 900), False), ((300, 200), False),
])  # fmt: skip
def test_large_jpegs_are_decoded_smaller_and_nearly_the_same(size, reduced, resize_mode):
    preprocessing = dataclasses.replace(QUICK, resize_mode=resize_mode)
    found = differences(file_bytes(photo(*size), "JPEG", quality=90), preprocessing)
    assert found.max() <= 4
    assert found.mean() <= 0.5
    assert found.any() == reduced


@pytest.mark.parametrize("size", [28, 40, 64])
def test_real_photos_stay_nearly_the_same(shared_data, size):
    paths = sorted(shared_data.glob("imagenet-500/*/*.jpg"))[::20]
    found = [differences(path, Preprocessing(size, size)) for path in paths]
    assert len(found) == 25
    assert 0.2 < np.mean([difference.mean() for difference in found]) <= 0.8
    assert max(difference.max() for difference in found) <= 20


@pytest.mark.parametrize("turn", range(1, 9))
def test_quick_decoding_turns_upright(turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    found = differences(file_bytes(photo(1030, 773), "JPEG", exif=exif), QUICK)
    assert 0 < found.max() <= 4


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [("L", "JPEG", {}), ("CMYK", "JPEG", {}), ("RGB", "JPEG", {"progressive": True}),
     ("RGB", "JPEG", {"subsampling": 0}),
     ("RGB", "MPO", {"save_all": True, "append_images": [photo(64, 64)]})],
)  # fmt: skip
@pytest.mark.parametrize("color", ["RGB", "L"])
def test_quick_decoding_of_every_kind_of_jpeg(mode, kind, options, color):
    channels = 1 if color == "L" else 3
    preprocessing = dataclasses.replace(
        QUICK, color=color, mean=(0.0,) * channels, std=(1.0,) * channels, interpolation="bicubic"
    )
    found = differences(file_bytes(photo(1030, 773, mode), kind, **options), preprocessing)
    assert 0 < found.max() <= 5


def test_what_cannot_be_decoded_smaller_stays_the_same():
    image = photo(1030, 773)
    assert not differences(file_bytes(image, "PNG"), QUICK).any()
    nearest = dataclasses.replace(QUICK, interpolation="nearest")
    assert not differences(file_bytes(image, "JPEG"), nearest).any()


def test_quick_decoding_names_broken_files(tmp_path):
    path = tmp_path / "cut.jpg"
    path.write_bytes(file_bytes(photo(1030, 773), "JPEG")[:-5000])
    with pytest.raises(InputError, match=r"cut\.jpg is a damaged or truncated image"):
        resized_quickly(path, QUICK)
    with pytest.raises(InputError, match=r"gone\.jpg does not exist"):
        resized_quickly(tmp_path / "gone.jpg", QUICK)


def test_anything_that_opens_like_a_path_is_an_image():
    class Stored:
        def open(self, mode):
            assert mode == "rb"
            return io.BytesIO(b"" if self.empty else file_bytes(Image.new("RGB", (3, 2))))

        def __str__(self):
            return "shard.tar/key.png"

    stored = Stored()
    stored.empty = False
    assert open_image(stored).size == (3, 2)
    stored.empty = True
    with pytest.raises(InputError, match=r"^shard\.tar/key\.png is empty$"):
        prepare_file(stored, QUICK)
