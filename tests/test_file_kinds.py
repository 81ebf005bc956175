"""Files under a model's name that hold none are said to be what they are, by every reader."""

import pickle
import warnings
import zipfile

import pytest
import torch
from torch import nn

from squeezekit.errors import InputError
from squeezekit.interop.weights import READ, read

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


def said(path):
    with pytest.raises(InputError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", READ)
def test_pointers_and_web_pages(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_text(POINTER)
    assert "a Git LFS pointer" in said(path)
    path.write_text("<!DOCTYPE html><html><head><title>Sign in</title></head></html>")
    assert "a web page" in said(path)
    path.write_bytes(b"")
    assert "is empty" in said(path)


@pytest.mark.parametrize("suffix", [".onnx", ".pt", ".pth", ".safetensors"])
def test_torchscript_archives(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that TorchScript is old
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)
    assert "a TorchScript archive" in said(path)


def test_other_archives_and_pickles(tmp_path):
    path = tmp_path / "model.onnx"
    torch.save(nn.Linear(2, 2).state_dict(), path)
    assert "torch.save wrote" in said(path)
    path.write_bytes(pickle.dumps({"weights": [1.0]}))
    assert "a Python pickle" in said(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/config.json", "{}")
    assert "a zip archive" in said(path)
    path.write_bytes(path.read_bytes()[:40])
    assert "a zip archive, and damaged" in said(path)
