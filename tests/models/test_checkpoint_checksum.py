"""Checkpoints that differ from what was written are refused by name, ours and others."""

import zipfile

import pytest
import torch

from mhsvm.models.checkpoint_checksum import add_checksum, verify_checksum
from mhsvm.models.checkpoint_file import read_checkpoint

CONTENT = {"model": {"w": torch.arange(100.0), "b": torch.ones(5)}}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "last.pt"
    torch.save(CONTENT, path)
    return path


def test_a_file_with_a_checksum_is_read_by_torch_and_python(saved):
    before = saved.read_bytes()
    add_checksum(saved)
    assert len(saved.read_bytes()) == len(before) + 20
    verify_checksum(saved)
    assert torch.equal(torch.load(saved, weights_only=True)["model"]["w"], CONTENT["model"]["w"])
    assert torch.equal(torch.load(saved, weights_only=True, mmap=True)["model"]["w"], CONTENT["model"]["w"])
    with zipfile.ZipFile(saved) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"mhsvm-crc32:")


def test_every_changed_byte_is_noticed(saved):
    add_checksum(saved)
    content = saved.read_bytes()
    for place in range(0, len(content) - 20, 7):
        damaged = bytearray(content)
        damaged[place] ^= 1
        saved.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"last\.pt is damaged: .*Copy or download it again"):
            verify_checksum(saved)


@pytest.mark.parametrize("ours", [True, False])
def test_the_damaged_part_is_named(saved, ours):
    if ours:
        add_checksum(saved)
    content = bytearray(saved.read_bytes())
    content[content.index(CONTENT["model"]["w"].numpy().tobytes()) + 10] ^= 16
    saved.write_bytes(content)
    with pytest.raises(ValueError, match=r"last\.pt is damaged: its part last/data/0 does not match the checksum"):
        read_checkpoint(saved)


def test_a_cut_file_is_refused(saved):
    add_checksum(saved)
    saved.write_bytes(saved.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"last\.pt is (not a checkpoint or is incomplete|damaged)"):
        read_checkpoint(saved)
