"""Paths at which no set can be written."""

import shutil
from collections import namedtuple

import pytest

from mhsvm.prepare.out_path import check_out, check_space

Usage = namedtuple("Usage", "total used free")


def test_paths_below_a_file_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="own.h5 cannot be written: .*file is a file"):
        check_out(tmp_path / "file" / "new" / "own.h5", "folder", overwrite=False)
    check_out(tmp_path / "new" / "folder" / "own.h5", "folder", overwrite=False)


def test_a_set_that_cannot_have_space_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 2**30))
    check_space(tmp_path / "new" / "own.h5", 1000, (256, 256))
    with pytest.raises(OSError, match=r"needs 1\.83 GiB for 10000 images of 256 x 256 pixels, and 1\.00 GiB are free"):
        check_space(tmp_path / "new" / "own.h5", 10_000, (256, 256))
