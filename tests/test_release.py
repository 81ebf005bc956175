"""What `make release` builds: the same bytes each time, and all that belongs in it."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EPOCH = "1764000000"


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """Two, of copies in folders of other names whose files have other times and rights."""
    found = []
    for number in range(2):
        copy = tmp_path_factory.mktemp(f"release{number}") / f"copy{number}"
        copy.mkdir()
        for name in ("src", "native", "docs", "tests"):
            junk = shutil.ignore_patterns("__pycache__", "_build", "*.egg-info")
            shutil.copytree(ROOT / name, copy / name, ignore=junk)
        for file in (*ROOT.glob("*.md"), ROOT / "LICENSE", ROOT / "Makefile"):
            shutil.copy(file, copy)
        shutil.copy(ROOT / "pyproject.toml", copy)
        for path in copy.rglob("*.py"):
            os.utime(path, (1e9 * number, 1e9 * number + 5))
            path.chmod(0o664 if number else 0o600)
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-d", copy.parent / "dist"],
            cwd=copy, check=True, capture_output=True,
            env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH},
        )  # fmt: skip
        found.append(sorted((copy.parent / "dist").iterdir()))
    return found


def test_two_releases_are_the_same_bytes(releases):
    first, second = ({path.name: path.read_bytes() for path in paths} for paths in releases)
    assert [name.rpartition(".")[2] for name in first] == ["whl", "gz"]
    assert first == second


def test_the_wheel_has_all_of_the_package(releases):
    wheel = zipfile.ZipFile(releases[0][0])
    package = ROOT / "src"
    files = {p.relative_to(package).as_posix() for p in package.rglob("*") if p.is_file()}
    files = {name for name in files if name.startswith("squeezekit/") and ".pyc" not in name}
    assert {name for name in wheel.namelist() if name.startswith("squeezekit/")} == files
    assert all(wheel.read(name) == (package / name).read_bytes() for name in files)


def test_the_sdist_has_what_its_tests_need_and_nothing_built(releases):
    with tarfile.open(releases[0][1]) as sdist:
        names = sdist.getnames()
    inside = {name.partition("/")[2] for name in names}
    assert {"src/squeezekit/__init__.py", "native/page.c", "tests/corpus/errors.json"} <= inside
    assert not [name for name in inside if "_build" in name or "__pycache__" in name]
