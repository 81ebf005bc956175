"""The C library as a C library: strict C99, small, and clean under the sanitizers and valgrind."""

import re
import shutil
import subprocess
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
from operator_graphs import KINDS, Graph
from PIL import Image
from small_networks import (
    LABELS,
    on_grids,
    ranged,
    shared,
    small_alexnet,
    small_networks,
    small_squeezenet,
)

from squeezekit.runtime.classifier import from_network
from squeezekit.sqz import container

NATIVE = Path(__file__).parent.parent / "native"
SOURCES = sorted((NATIVE / "sqz").glob("*.c"))
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
SANITIZED = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def compiler(name):
    return shutil.which(name) or pytest.skip(f"{name} is not installed")


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """native/example.c, built with the sanitizers."""
    program = tmp_path_factory.mktemp("c") / "example"
    build = [compiler("clang"), *STRICT, *SANITIZED, NATIVE / "example.c", *SOURCES, "-o", program]
    subprocess.run(build, check=True)
    return program


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A photo as binary PPM: its path, and the image."""
    path = tmp_path_factory.mktemp("photo") / "photo.ppm"
    pixels = np.random.default_rng(1).integers(0, 256, (5, 6, 3), np.uint8)
    image = Image.fromarray(pixels).resize((120, 97), Image.Resampling.BICUBIC)
    image.save(path)
    return path, image


def run(program, *arguments):
    environment = {"ASAN_OPTIONS": "detect_leaks=0"}  # the example leaves that to its end
    return subprocess.run([program, *arguments], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("coder", ["entropy", "huffman", "dense"])
@pytest.mark.parametrize("name", small_networks())
def test_example_says_what_python_says(example, photo, tmp_path, name, coder):
    path, image = photo
    network = shared(small_networks()[name])
    container.write(network, tmp_path / "small.sqz", coder)
    done = run(example, tmp_path / "small.sqz", path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("%  ") for line in done.stdout.splitlines()]
    expected = from_network(network, 1)(image)
    for (percent, label), prediction in zip(lines, expected, strict=True):
        assert float(percent) == pytest.approx(100 * prediction.probability, abs=2e-4)
        assert label == prediction.label or abs(expected[0].probability - 1 / len(expected)) < 1e-3


def test_labels_lose_their_escapes(example, photo, tmp_path):
    container.write(small_squeezenet(), tmp_path / "small.sqz")
    done = run(example, tmp_path / "small.sqz", photo[0])
    assert {line.split("%  ")[1] for line in done.stdout.splitlines()} == set(LABELS)


def test_hostile_files(example, photo, tmp_path):
    """Cut short and with single bits flipped: one sentence each, and the sanitizers are silent."""
    sqz = container.encode(shared(small_alexnet()))
    rng = np.random.default_rng(0)
    for attempt in range(60):
        attack = bytearray(sqz)
        if attempt % 2:
            del attack[rng.integers(len(sqz)) :]
        else:
            attack[rng.integers(len(sqz))] ^= 1 << rng.integers(8)
        (tmp_path / "attack.sqz").write_bytes(attack)
        done = run(example, tmp_path / "attack.sqz", photo[0])
        assert done.returncode == 1
        assert done.stderr.startswith("example: ")
        assert done.stderr.count("\n") == 1


def test_forged_files(photo, tmp_path):
    """The same without checksums, by the fuzzing target: it runs until a sanitizer stops it."""
    program = tmp_path / "fuzz"
    unchecked = "-DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION"
    build = [compiler("clang"), *SANITIZED, "-fsanitize=fuzzer", unchecked, NATIVE / "fuzz.c"]
    built = subprocess.run([*build, *SOURCES, "-o", program], capture_output=True, text=True)
    if "libclang_rt.fuzzer" in built.stderr:
        pytest.skip("this clang has no libFuzzer")
    assert built.returncode == 0, built.stderr
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for coder in ("entropy", "huffman", "dense"):
        (corpus / coder).write_bytes(b"\0" + container.encode(shared(small_alexnet()), coder))
    (corpus / "grids").write_bytes(b"\0" + container.encode(on_grids(small_alexnet())))
    for kind in KINDS:
        graph = Graph(np.random.default_rng(1))
        kind(graph)
        (corpus / kind.__name__).write_bytes(b"\0" + container.encode(graph.network()))
    calibrated = ranged(shared(small_alexnet(35)))
    (corpus / "int8").write_bytes(b"\0" + container.encode(calibrated))
    options = ["-runs=3000", "-seed=1", "-max_len=65536", "-timeout=60"]
    done = subprocess.run([program, *options, corpus], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_valgrind_finds_nothing(photo, tmp_path):
    valgrind = shutil.which("valgrind") or pytest.skip("valgrind is not installed")
    program = tmp_path / "example"
    debug = "-gdwarf-4"  # not every valgrind reads later ones
    build = [compiler("clang"), debug, "-O1", NATIVE / "example.c", *SOURCES, "-o", program]
    subprocess.run(build, check=True)
    for coder in ("entropy", "huffman"):
        container.write(shared(small_alexnet()), tmp_path / "small.sqz", coder)
        checked = [valgrind, "--error-exitcode=9", "--quiet", program, tmp_path / "small.sqz"]
        done = subprocess.run([*checked, photo[0]], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def parts():
    """What the library is made of, by name: a source and its header are one part."""
    found = {}
    for path in sorted((NATIVE / "sqz").iterdir()):
        found.setdefault(path.stem, {})[path.suffix] = path.read_text()
    return found


def includes(part):
    names = re.findall(r'#include "([^"]+)\.h"', "".join(part.values()))
    return set(names)


def test_parts_include_one_another_without_a_circle():
    found = parts()
    graph = {name: includes(part) - {name} for name, part in found.items()}
    assert set().union(*graph.values()) <= set(found)  # and nothing outside of the folder
    order = list(TopologicalSorter(graph).static_order())  # raises where there is a circle
    assert order.index("proto") < order.index("graph") < order.index("open")


def test_functions_are_used_by_including_their_part():
    """So that the includes tell who needs whom: what a header declares, its own source defines."""
    found = parts()
    public = set(re.findall(r"\b(sqz_\w+)\(", found["sqz"][".h"]))
    definition = re.compile(r"^\w[^;={}()#]*?\b(sqz_\w+)\([^;{]*\)\s*\{", re.MULTILINE)
    homes = {
        function: name
        for name, part in found.items()
        for function in definition.findall(part.get(".c", ""))
    }
    assert public <= set(homes)
    for name, part in found.items():
        if ".c" not in part:
            continue
        for function in set(re.findall(r"\b(sqz_\w+)\(", part[".c"])) - public:
            assert homes[function] in includes(part) | {name}
            assert function in found[homes[function]][".h"]


def test_folder_compiles_wherever_it_is_copied_to(tmp_path):
    shutil.copytree(NATIVE / "sqz", tmp_path / "sqz")
    sources = sorted((tmp_path / "sqz").glob("*.c"))
    subprocess.run([compiler("cc"), *STRICT, "-O1", "-c", *sources], check=True, cwd=tmp_path)


def test_sources_are_in_what_is_distributed():
    root = NATIVE.parent
    build = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert "/native" in build["targets"]["sdist"]["include"]
    assert "native/sqz" in build["targets"]["wheel"]["shared-data"]


def test_other_compilers_take_it(tmp_path):
    subprocess.run([compiler("gcc"), *STRICT, "-O2", "-c", *SOURCES], check=True, cwd=tmp_path)


def test_plain_c_without_vectors(photo, example, tmp_path):
    """What a compiler gets that is neither GCC nor clang."""
    program = tmp_path / "plain"
    source = (NATIVE / "sqz" / "vector.h").read_text()
    assert "#if defined(__GNUC__)\n" in source
    folder = tmp_path / "native"
    shutil.copytree(NATIVE, folder)
    (folder / "sqz" / "vector.h").write_text(source.replace("#if defined(__GNUC__)\n", "#if 0\n"))
    build = [compiler("clang"), "-std=c99", "-O1", folder / "example.c"]
    subprocess.run([*build, *sorted((folder / "sqz").glob("*.c")), "-o", program], check=True)
    for network in (small_alexnet(), ranged(shared(small_alexnet()))):
        container.write(network, tmp_path / "small.sqz")
        outputs = [run(p, tmp_path / "small.sqz", photo[0]).stdout for p in (program, example)]
        assert outputs[0] == outputs[1] != ""


BUILDS = {
    (): 76,
    ("-DSQZ_NO_INT8",): 60,
    ("-DSQZ_NO_FLOAT",): 72,
    ("-DSQZ_NO_INT8", "-DSQZ_TRUSTED"): 54,
    ("-DSQZ_NO_FLOAT", "-DSQZ_TRUSTED"): 65,
}
"""What native/README.md lists: switches, and the most KiB of code for x86-64."""


@pytest.mark.parametrize("switches", BUILDS)
def test_library_is_small(tmp_path, switches):
    """C needs no unwind tables."""
    clang, size = compiler("clang"), compiler("size")
    flags = ["--target=x86_64-linux-gnu", "-std=c99", "-Os", "-fno-asynchronous-unwind-tables"]
    built = subprocess.run(
        [clang, *STRICT, *flags, *switches, "-c", *SOURCES], cwd=tmp_path, capture_output=True
    )
    if built.returncode:
        pytest.skip("this clang does not compile for x86-64")
    lines = subprocess.run(
        [size, *sorted(tmp_path.glob("*.o"))], check=True, capture_output=True, text=True
    ).stdout.splitlines()[1:]
    assert (
        sum(int(line.split()[0]) + int(line.split()[1]) for line in lines) <= BUILDS[switches] << 10
    )


def test_builds_of_one_precision_say_what_the_whole_says(photo, example, tmp_path):
    container.write(ranged(shared(small_alexnet(35))), tmp_path / "ranged.sqz")
    container.write(shared(small_alexnet(35)), tmp_path / "plain.sqz")
    said = {}
    for switches in BUILDS:
        program = tmp_path / "program"
        build = [compiler("clang"), *STRICT, "-O1", *switches, NATIVE / "example.c"]
        subprocess.run([*build, *SOURCES, "-o", program], check=True)
        for name in ("ranged", "plain"):
            said[switches, name] = run(program, tmp_path / f"{name}.sqz", photo[0])
    for switches in BUILDS:
        only_float, only_int8 = "-DSQZ_NO_INT8" in switches, "-DSQZ_NO_FLOAT" in switches
        same = said[(), "plain" if only_float else "ranged"].stdout
        assert said[switches, "ranged"].stdout == same != ""
        if only_int8:
            refused = said[switches, "plain"]
            assert refused.returncode == 1
            assert "cannot run in this precision" in refused.stderr
        else:
            assert said[switches, "plain"].stdout == said[(), "plain"].stdout
    assert said[(), "plain"].stdout != said[(), "ranged"].stdout


def test_example_is_an_example():
    """Forty lines, as the documentation says, and no more."""
    source = (NATIVE / "example.c").read_text()
    main = source[source.index("int main") :]
    assert len([line for line in main.splitlines() if line.strip()]) <= 45
