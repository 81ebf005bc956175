"""What a camera sees, through OpenCV where it is installed: frames, and their classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from PIL import Image

from squeezekit.errors import InputError

if TYPE_CHECKING:
    from squeezekit.runtime.classifier import Classifier, Prediction


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


def answers(
    classifier: Classifier, camera: int, top: int
) -> Iterator[tuple[str, list[Prediction]]]:
    """Classify what a camera sees, frame after frame.

    Args:
        classifier: of the frames.
        camera: its number; 0 is the first.
        top: how many classes a frame gets.

    Yields:
        The number of the frame in words, and its classes, best first.

    Raises:
        InputError: see `frames`.
    """
    for number, frame in enumerate(frames(camera)):
        yield f"frame {number}", classifier(frame, top)
