"""The binary of the wheel for a machine, by its system and processor."""

import platform
import sys

import pytest

from mhsvm.native import binary


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A folder with every binary of the table."""
    monkeypatch.setattr(binary, "FOLDER", tmp_path)
    for each in binary.BINARIES:
        (tmp_path / each.file).write_text(each.file)
    binary.write_checksums(tmp_path)
    return tmp_path


def set_machine(monkeypatch, system, machine, *, avx2=False):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(binary, "has_avx2", lambda: avx2)


@pytest.mark.parametrize(
    ("system", "machine", "avx2", "file"),
    [
        ("Linux", "x86_64", True, "linux-x86_64-avx2.so"),
        ("Linux", "x86_64", False, "linux-x86_64.so"),
        ("Linux", "aarch64", False, "linux-arm64.so"),
        ("Darwin", "x86_64", True, "macos-x86_64-avx2.dylib"),
        ("Darwin", "x86_64", False, "macos-x86_64.dylib"),
        ("Darwin", "arm64", False, "macos-arm64.dylib"),
        ("Windows", "AMD64", True, "windows-x86_64-avx2.dll"),
        ("Windows", "AMD64", False, "windows-x86_64.dll"),
    ],
)
def test_a_machine_has_its_binary(folder, monkeypatch, system, machine, avx2, file):
    set_machine(monkeypatch, system, machine, avx2=avx2)
    assert binary.find_binary() == folder / file


@pytest.mark.parametrize(("system", "machine"), [("Linux", "riscv64"), ("Windows", "ARM64"), ("FreeBSD", "x86_64")])
def test_other_machines_have_none(folder, monkeypatch, system, machine):
    set_machine(monkeypatch, system, machine)
    assert binary.find_binary() is None


def test_a_process_of_32_bits_has_none(folder, monkeypatch):
    set_machine(monkeypatch, "Windows", "AMD64")
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    assert binary.find_binary() is None


def test_a_checkout_has_none(monkeypatch, tmp_path):
    monkeypatch.setattr(binary, "FOLDER", tmp_path / "binaries")
    assert binary.find_binary() is None
