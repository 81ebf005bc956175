"""One web page that classifies photos by itself: the network, its runtime and a user interface."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import re
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np

from squeezekit.errors import InputError, LimitError, UnsupportedError
from squeezekit.files import read_bytes, write_whole
from squeezekit.interop import onnx_file
from squeezekit.interop.page_runtime import PageRuntime, packed_build
from squeezekit.models.fold import fold_batch_norm
from squeezekit.sqz import container
from squeezekit.sqz.limits import DEFAULT, Limits
from squeezekit.sqz.network import Network, Preprocessing, share_equal_values

_FORBIDDEN = "\0\r<"
"""HTML would change the first two, and the third may end a script element."""

_FIRST_PAIR = 0x100


def write(network: Network, path: Path | str, coder: container.CoderName = "entropy") -> None:
    """Write a network as a page; the `.sqz` that `container.write` would write is inside.

    Raises:
        UnsupportedError: if the page's runtime lacks an operator of the graph; it is named.
        InputError: if the file cannot be written.
    """
    write_whole(path, page(container.encode(network, coder)).encode())


def page(sqz: bytes) -> str:
    """The page for the bytes of a `.sqz` file; in the page, 7 of its bytes take 8.

    Raises:
        UnsupportedError: see `write`.
        FormatError: if the bytes are no `.sqz`.
    """
    packed = packed_build(PageRuntime(sqz).page_precision)  # refuses what the page could not run
    metadata = container.read_head(sqz).metadata
    title = html.escape(metadata.title or metadata.name)
    style, script = _short_css(_part("page.css")), _short_js(_part("page.js"))
    fields = {
        "policy": _policy(style, script),
        "title": title,
        "style": style,
        "script": script,
        "runtime_bytes": str(len(packed)),
        "runtime": as_text(packed),
        "model_bytes": str(len(sqz)),
        "model": "",
    }
    template = Template(_short_html(_part("page.html")))
    program_bytes = len(template.substitute(fields, program_bytes="00000").encode())
    fields["model"] = as_text(sqz)
    return template.substitute(fields, program_bytes=f"{program_bytes:05}")


def page_for(
    file: Path, preprocessing: Preprocessing, limits: Limits | None = DEFAULT
) -> str | None:
    """The page for a .sqz or .onnx file; None if the page's runtime cannot run its network.

    Args:
        file: the file of the network.
        preprocessing: the preprocessing of its images, which may be another one than the file has.
        limits: how much the file may ask for; None trusts it.

    Raises:
        FormatError: if a .sqz is damaged.
    """
    is_sqz = file.suffix.lower() == ".sqz"
    try:
        if is_sqz:
            data = read_bytes(file)
            if container.read_head(data, limits).metadata.preprocessing == preprocessing:
                return page(data)
        network = (
            container.read(file, limits)
            if is_sqz
            else onnx_file.read(file, input_size=preprocessing.crop, limits=limits)
        )
    except (InputError, LimitError, UnsupportedError):  # a page has the default limits
        return None
    return page_of(network, preprocessing)


def page_of(network: Network, preprocessing: Preprocessing) -> str | None:
    """The page for a network with this preprocessing; None if its runtime cannot run it."""
    metadata = dataclasses.replace(network.metadata, preprocessing=preprocessing)
    network = fold_batch_norm(dataclasses.replace(network, metadata=metadata))
    try:
        return page(container.encode(share_equal_values(network), "entropy"))
    except (LimitError, UnsupportedError):
        return None


def as_text(data: bytes) -> str:
    """Bytes as text that survives HTML and UTF-8: seven bits in each character.

    Seven bits that HTML would change are written together with the next seven, as one of 384
    characters that take two bytes in UTF-8. So 7 bytes always take 8.
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    groups = -(-len(bits) // 7) + 1  # and one of ones, so that each that needs a next one has it
    padded = np.pad(bits, (0, 7 * groups - len(bits)), constant_values=1)
    sevens = np.packbits(padded.reshape(groups, 7), axis=1) >> 1
    return re.sub(
        f"([{_FORBIDDEN}])(.)",
        lambda pair: chr(_FIRST_PAIR + 128 * _FORBIDDEN.index(pair[1]) + ord(pair[2])),
        sevens.tobytes().decode("ascii"),
        flags=re.DOTALL,
    )


def _part(name: str) -> str:
    return resources.files("squeezekit.interop").joinpath("page", name).read_text("utf-8")


def _policy(style: str, script: str) -> str:
    """The Content-Security-Policy: this style, this script, and nothing from anywhere."""
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    ]
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src blob: data:; "
        f"style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}' 'wasm-unsafe-eval'"
    )


def _short_html(text: str) -> str:
    return text.replace("\n<", "<")


def _short_css(text: str) -> str:
    return re.sub(r"\s*([{};,]|: )\s*", lambda mark: mark[1].strip(), text).replace(";}", "}")


def _short_js(text: str) -> str:
    """Without comments, indentation and most spaces; a line that must stay one keeps its end."""
    lines = [line.strip() for line in text.splitlines()]
    code = "\n".join(line for line in lines if line and not line.startswith("//"))
    spaced = r" ?(=>|[=!]==?|[-+*]=|<<|>>>?|<=|&&|\|\||[={}<>?|&*/]|[:,;] |[;{,(]\n) ?"
    parts = re.split(r'("[^"]*"|`[^`]*`)', code)
    for i in range(0, len(parts), 2):  # those between the strings
        parts[i] = re.sub(spaced, lambda mark: mark[1].strip(), parts[i])
    return "".join(parts)
