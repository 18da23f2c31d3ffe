"""The wheel's binaries: their flags, and where ziglang is installed, that they compile to the same bytes and load."""

import ctypes
import platform
from importlib.util import find_spec

import pytest

import wheel_with_engine as wheel
from mhsvm.native import binary


def test_each_binary_is_for_the_processor_of_its_name():
    flags = {each.file: " ".join(wheel.zig_flags(each)) for each in binary.BINARIES}
    assert flags["linux-x86_64.so"].startswith("-target x86_64-linux-gnu -mcpu=x86_64 -std=c11 -O3")
    assert "-mcpu=x86_64+avx2+fma" in flags["windows-x86_64-avx2.dll"]
    assert "-target aarch64-macos.11.0 -mcpu=generic" in flags["macos-arm64.dylib"]
    assert all(("avx2" in name) == ("avx2" in text.split(" -std")[0]) for name, text in flags.items())
    assert not any("native" in text or "fast-math" in text for text in flags.values())


def test_without_ziglang(monkeypatch, tmp_path):
    monkeypatch.setattr(wheel, "COMPILER", ("-c", "raise SystemExit('no module named ziglang')"))
    with pytest.raises(ValueError, match=r"ziglang cannot compile linux-x86_64-avx2.so: no module named ziglang"):
        wheel.compile_binaries(tmp_path / "binaries")


@pytest.mark.skipif(find_spec("ziglang") is None, reason="needs ziglang")
@pytest.mark.skipif((platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="for Linux on x86-64")
def test_binaries_are_the_same_each_time_and_load(monkeypatch, tmp_path):
    few = [each for each in binary.BINARIES if each.system == "Linux"]
    monkeypatch.setattr(wheel, "BINARIES", few)
    found = []
    for name in ("first", "second"):
        wheel.compile_binaries(tmp_path / name)
        found.append((tmp_path / name / binary.CHECKSUMS).read_text())
        ctypes.CDLL(str(tmp_path / name / "linux-x86_64.so"))
    assert found[0] == found[1]
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == sorted(
        [binary.CHECKSUMS, *(each.file for each in few)]
    )
