"""Compiled code is what the package was made with, or it is not run."""

import hashlib
import shutil

import pytest

from squeezekit import shipped
from squeezekit.errors import InputError

PACKAGE = shipped.LIST.parent


def compiled_files():
    """All files of the package that are not text, but for what Python itself leaves there."""
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return sorted(path for path in files if b"\0" in path.read_bytes())


def test_all_compiled_files_are_listed():
    listed = {}
    for line in shipped.LIST.read_text().splitlines():
        digest, name = line.split("  ")
        listed[name] = digest
    found = compiled_files()
    assert {path.relative_to(PACKAGE).as_posix() for path in found} == listed.keys()
    for path in found:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert listed[path.relative_to(PACKAGE).as_posix()] == digest
        assert shipped.checked(path) == path.read_bytes()


@pytest.mark.parametrize("name", [path.name for path in compiled_files()])
def test_a_changed_file_is_not_run(tmp_path, monkeypatch, name):
    (path,) = PACKAGE.rglob(name)
    copy = tmp_path / path.relative_to(PACKAGE)
    copy.parent.mkdir(parents=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)
    shutil.copy(shipped.LIST, tmp_path)
    monkeypatch.setattr(shipped, "LIST", tmp_path / shipped.LIST.name)
    with pytest.raises(InputError, match="install squeezekit again"):
        shipped.checked(copy)
