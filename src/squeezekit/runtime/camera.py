"""Frames of a camera as images, through OpenCV where it is installed."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from squeezekit.errors import InputError


def frames(camera: int) -> Iterator[Image.Image]:
    """What a camera sees, frame after frame, in RGB.

    Args:
        camera: its number; 0 is the first.

    Raises:
        InputError: if OpenCV is not installed, or the camera gives nothing.
    """
    try:
        import cv2
    except ModuleNotFoundError:
        raise InputError(
            "a camera needs OpenCV, which is not installed: pip install opencv-python-headless"
        ) from None
    capture = cv2.VideoCapture(camera)
    try:
        seen = False
        while True:
            read, pixels = capture.read()  # (H, W, 3), BGR
            if not read:
                break
            seen = True
            yield Image.fromarray(pixels[:, :, ::-1].copy())
    finally:
        capture.release()
    if not seen:
        raise InputError(f"camera {camera} gives no picture: is it connected, and free?")
