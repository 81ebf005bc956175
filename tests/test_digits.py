"""The built-in digits against scikit-learn's own arrays."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from squeezekit.data.dataset import split
from squeezekit.data.digits import DIGITS_SIZE, write_digits
from squeezekit.errors import InputError


def test_every_digit_is_written_once_under_its_class(tmp_path):
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    write_digits(tmp_path / "new" / "digits")
    digits = load_digits()
    numbers = []
    for part in ("train", "val"):
        image_set = split(tmp_path / "new" / "digits", part)
        assert image_set.classes == tuple("0123456789")
        for path, target in zip(image_set.paths, image_set.targets, strict=True):
            number = int(path.stem)
            with Image.open(path) as image:
                assert (image.mode, image.size) == ("L", (DIGITS_SIZE, DIGITS_SIZE))
                written = np.asarray(image)
            np.testing.assert_array_equal(np.rint(written / 255 * 16), digits.images[number])
            assert digits.target[number] == target
            numbers.append(number)
    assert sorted(numbers) == list(range(1797))


def test_a_fifth_of_each_class_is_held_out_by_the_seed(tmp_path):
    pytest.importorskip("sklearn")
    write_digits(tmp_path / "a")
    write_digits(tmp_path / "b")
    write_digits(tmp_path / "c", seed=1)
    names = [
        [path.relative_to(tmp_path / folder) for path in split(tmp_path / folder, "val").paths]
        for folder in "abc"
    ]
    assert names[0] == names[1] != names[2]
    train, val = split(tmp_path / "a", "train"), split(tmp_path / "a", "val")
    held_out = np.bincount(val.targets) / np.bincount(np.append(train.targets, val.targets))
    np.testing.assert_allclose(held_out, 0.2, atol=0.005)


def test_writing_again_changes_nothing(tmp_path):
    pytest.importorskip("sklearn")
    write_digits(tmp_path)
    write_digits(tmp_path)
    assert len(split(tmp_path, "all")) == 1797


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    pytest.importorskip("sklearn")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        write_digits(tmp_path / "file")


def test_without_scikit_learn_the_way_to_get_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"pip install squeezekit\[train\]"):
        write_digits(tmp_path)


def test_the_module_loads_without_scikit_learn():
    code = "import squeezekit.data.digits, sys; sys.exit('sklearn' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
