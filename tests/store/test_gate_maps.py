"""Maps of gates in a file."""

import numpy as np
import pytest

from mhsvm.store import BlockGates, GateMaps, PredictionWriter, read_gate_maps, write_gate_maps


def test_what_was_written_is_read(tmp_path):
    generator = np.random.default_rng(0)
    blocks = tuple(
        BlockGates(
            f"encoder.{stage}.blocks.0",
            generator.random((2, 3, side, side + 1), np.float32),
            generator.random((2, 3)),
            generator.random((2, 3, 4)),
        )
        for stage, side in enumerate((8, 4))
    )
    maps = GateMaps(("b", "ä"), ("C", "S", "C"), "relu", blocks)
    write_gate_maps(tmp_path / "maps.h5", maps)
    read = read_gate_maps(tmp_path / "maps.h5")
    assert (read.ids, read.patterns, read.gate) == (maps.ids, maps.patterns, maps.gate)
    for block, expected in zip(read.blocks, blocks, strict=True):
        assert block.block == expected.block
        for name in ("gate", "closed", "route_share"):
            np.testing.assert_array_equal(getattr(block, name), getattr(expected, name))
            assert getattr(block, name).dtype == getattr(expected, name).dtype


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="make it with `mhsvm test`"):
        read_gate_maps(tmp_path / "maps.h5")
    with PredictionWriter(tmp_path / "other.h5", set_name="a", set_checksum="b", size=(2, 2), num_classes=1):
        pass
    with pytest.raises(ValueError, match="must be a file of format 'mhsvm-gate-maps'; its format is 'mhsvm-predictio"):
        read_gate_maps(tmp_path / "other.h5")
