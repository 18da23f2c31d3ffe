"""A disk that refuses data ends in an error that names the file, and HDF5 never learns of it."""

import resource
import sys
from contextlib import contextmanager

import h5py
import numpy as np
import pytest

from mhsvm.store import BlockGates, GateMaps, PredictionWriter, Sample, write_gate_maps, write_set

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
SIZE = (24, 24)
NUM = 8


@contextmanager
def file_size_limit(num_bytes):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def make_set(path):
    generator = np.random.default_rng(0)
    samples = [
        Sample(f"case_{i}", generator.integers(0, 256, (*SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8), SIZE)
        for i in range(NUM)
    ]
    write_set(path, samples, name="made", size=SIZE, num_classes=1, attributes={}, total=NUM)


def make_predictions(path):
    with PredictionWriter(path, set_name="a", set_checksum="b", size=SIZE, num_classes=1) as writer:
        for i in range(NUM):
            writer.append([f"case_{i}"], np.random.default_rng(i).integers(0, 256, (1, *SIZE), np.uint8))


def make_gate_maps(path):
    gate = np.random.default_rng(0).random((2, 3, *SIZE), np.float32)
    block = BlockGates("encoder.0", gate, np.zeros((2, 3)), np.zeros((2, 3, 4)))
    write_gate_maps(path, GateMaps(("a", "b"), ("C", "S", "C"), "relu", (block,)))


@pytest.mark.parametrize("make", [make_set, make_predictions, make_gate_maps])
def test_a_refused_write_is_an_error_at_every_place(tmp_path, make):
    path = tmp_path / "whole.h5"
    make(path)
    size = path.stat().st_size
    path.unlink()
    # the last bytes are those of the checksum; before them HDF5 writes its tables when it closes the file
    for limit in [0, 1, *range(1000, size, size // 12), size - 30, size - 13, size - 1]:
        with file_size_limit(limit), pytest.raises(OSError, match=r"File too large: '.*whole\.h5'"):
            make(path)
        assert list(tmp_path.iterdir()) == []
        # HDF5 has nothing left to write at the end of the process, where it would crash
        assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) == 0
    with file_size_limit(size):
        make(path)
    assert path.stat().st_size == size


def test_writing_ends_at_the_first_refused_image(tmp_path):
    # HDF5 writes several images later, from its cache of chunks
    size, given = (700, 700), []

    def samples():
        for i in range(2 * NUM):
            given.append(i)
            yield Sample(f"case_{i}", np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8), size)

    with file_size_limit(2_000_000), pytest.raises(OSError, match="File too large"):
        write_set(tmp_path / "a.h5", samples(), name="a", size=size, num_classes=1, attributes={}, total=2 * NUM)
    assert len(given) < NUM + 1


def test_the_error_of_the_block_is_kept(tmp_path):
    def samples():
        yield Sample("a", np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8), SIZE)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_set(tmp_path / "a.h5", samples(), name="a", size=SIZE, num_classes=1, attributes={}, total=2)
    assert list(tmp_path.iterdir()) == []
