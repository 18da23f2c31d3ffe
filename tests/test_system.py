import importlib.util
import os
import stat
import sys

import pytest
import torch

from mhsvm.system import describe_device, list_devices, name_user, read_versions


def test_versions_of_what_is_here_and_empty_ones_of_what_is_not(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mamba_ssm" else found(name))
    versions = read_versions()
    assert versions["mamba_ssm"] == ""
    assert versions["torch"] == torch.__version__
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert all(isinstance(version, str) for version in versions.values())


def test_a_package_without_a_record_of_its_installation(monkeypatch, tmp_path):
    (tmp_path / "causal_conv1d").mkdir()
    (tmp_path / "causal_conv1d/__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert read_versions()["causal_conv1d"] == "of unknown version"
    assert "causal_conv1d" not in sys.modules


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
@pytest.mark.parametrize(
    ("script", "version"), [("echo 570.86.15; echo 570.86.15", "570.86.15"), ("echo no driver; exit 9", "")]
)
def test_driver(monkeypatch, tmp_path, script, version):
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert read_versions()["nvidia driver"] == version


def test_devices():
    cpu, *gpus = list_devices()
    assert cpu == torch.device("cpu")
    assert len(gpus) == torch.cuda.device_count()
    facts = describe_device(cpu)
    assert facts["name"] == "cpu"
    assert facts["model"]
    assert facts["processors"] == os.cpu_count()
    assert facts["threads"] == torch.get_num_threads()
    assert facts["memory_bytes"] > 2**28


def test_a_user_without_a_name_is_named_by_the_number(monkeypatch):
    def fail():
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setenv("USER", "")
    monkeypatch.setattr("getpass.getuser", fail)
    monkeypatch.setattr("os.getuid", lambda: 12345, raising=False)
    name_user()
    assert os.environ["USER"] == "12345"
