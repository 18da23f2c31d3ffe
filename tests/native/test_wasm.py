"""The engine in WebAssembly is the one of the source."""

import json

import numpy as np
import pytest
import torch

from mhsvm.models import create_model
from mhsvm.models.ultralight_native import network_arguments
from mhsvm.models.ultralight_weights import pack_weights
from mhsvm.native import wasm
from mhsvm.text_file import read_json
from tests.fixtures.node import call, call_json, needs_node

EXPORTS = {f"ultralight_{name}" for name in wasm._FUNCTIONS} | {"memory", "__heap_base"}


def test_the_file_is_of_this_source():
    recorded = read_json(wasm.RECORD)
    assert recorded["source sha256"] == wasm.source_checksum(), (
        "ultralight.c or .h has changed: run `make wasm` (clang and lld) and commit ultralight.wasm and its record"
    )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    compiler = wasm.find_compiler()
    if compiler is None:
        pytest.skip("needs clang and wasm-ld")
    path = tmp_path_factory.mktemp("wasm") / "engine.wasm"
    wasm.compile_wasm(compiler, path)
    return compiler, path.read_bytes()


def test_the_file_is_compiled_again_to_the_same_bytes(compiled):
    compiler, content = compiled
    versions = wasm.compiler_versions(compiler)
    if versions.items() <= read_json(wasm.RECORD).items():
        assert content == wasm.WASM.read_bytes()
    else:
        pytest.skip(f"the file was compiled by another compiler than {versions}")


@needs_node
def test_the_file_computes_as_one_compiled_now(compiled):
    torch.manual_seed(0)
    model = create_model("ultralight_vm_unet").eval()
    arguments = {"size": [64, 32], "network": network_arguments(model)}
    image = np.random.default_rng(0).integers(0, 256, (64, 32, 3), np.uint8)
    code = f"""
    const model = {{ ...{json.dumps(arguments)}, weights: inputs[2] }};
    for (const wasm of inputs.slice(0, 2)) give((await openNetworks(wasm, [model]))[0](inputs[3]));
    """
    found = call(code, wasm.WASM.read_bytes(), compiled[1], pack_weights(model), image)
    ours, other = np.frombuffer(found, np.float32).reshape(2, -1)
    assert ours.size == 64 * 32
    assert ours.std() > 0.01
    np.testing.assert_allclose(ours, other, rtol=0, atol=1e-6)
    names = "giveJson(WebAssembly.Module.exports(await WebAssembly.compile(inputs[0])).map((each) => each.name))"
    for content in (wasm.WASM.read_bytes(), compiled[1]):
        assert set(call_json(names, content)) == EXPORTS


def test_the_command_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    assert wasm.main() == 2
    assert "install the packages clang and lld" in capsys.readouterr().err


def test_the_command_writes_the_file_and_its_record(compiled, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(wasm, "WASM", tmp_path / "a.wasm")
    monkeypatch.setattr(wasm, "RECORD", tmp_path / "a.json")
    assert wasm.main() == 0
    assert (tmp_path / "a.wasm").read_bytes() == compiled[1]
    recorded = read_json(tmp_path / "a.json")
    assert recorded == {"source sha256": wasm.source_checksum(), **wasm.compiler_versions(compiled[0])}
    assert "a.wasm: " in capsys.readouterr().out


def test_a_compiler_that_fails_is_quoted(tmp_path):
    compiler = tmp_path / "clang"
    compiler.write_text("#!/bin/sh\necho 'no such target' >&2\nexit 1\n")
    compiler.chmod(0o755)
    with pytest.raises(ValueError, match="clang failed: no such target"):
        wasm.compile_wasm(str(compiler), tmp_path / "a.wasm")
