"""What several tests share: the real data where there is some, and small folders of images."""

import os
import signal
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

# Jobs in the background ignore Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow machine is no failure.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real networks and images; skips the test where there is none."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SQUEEZEKIT_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip("needs real data: set SQUEEZEKIT_TEST_DATA to its folder")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads or leaves anything in the user's own cache; gives the folder instead of it."""
    monkeypatch.setenv("SQUEEZEKIT_CACHE", str(tmp_path / "squeezekit cache"))
    return tmp_path / "squeezekit cache"


@pytest.fixture
def make_images(tmp_path):
    """Write small colour-noise images into a folder below `tmp_path`; gives the folder.

    `make_images({"cat": 3, "dog": ["a.jpg", "sub/b.png"]})`: a class has so many images, or these.
    """

    def make(classes, root="data", size=(12, 10)) -> Path:
        for name, images in classes.items():
            folder = tmp_path / root / name
            folder.mkdir(parents=True, exist_ok=True)
            names = [f"{i}.png" for i in range(images)] if isinstance(images, int) else images
            for image in names:
                (folder / image).parent.mkdir(parents=True, exist_ok=True)
                random = np.random.default_rng(zlib.crc32(f"{name}/{image}".encode()))
                noise = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(noise).save(folder / image)
        return tmp_path / root

    return make
