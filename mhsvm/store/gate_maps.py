"""Gates of a network's scan heads on selected images: `maps.h5` of a test.

Shape letters: n images, m heads, k routes of a head, h w size of a block's map in cells.
"""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mhsvm.store.hdf5 import read_strings, write_attributes, write_strings
from mhsvm.store.new_file import new_file
from mhsvm.store.rows import MAP_FILTER
from mhsvm.store.saved_file import SavedFile

FORMAT = "mhsvm-gate-maps"


@dataclass(frozen=True)
class BlockGates:
    """The gates of one block of a network.

    Attributes:
        block: Name of the block in the network.
        gate: float32 (n, m, h, w), sigma(cv) of each head, averaged over its channels.
        closed: float64 (n, m), fraction of the head's cells and channels in which the gate is 0.
        route_share: float64 (n, m, k), weight |y_k| / sum_k |y_k| of each route's output, summed over cells and
            channels; NaN where all outputs are 0.
    """

    block: str
    gate: np.ndarray
    closed: np.ndarray
    route_share: np.ndarray


@dataclass(frozen=True)
class GateMaps:
    """Gates of all blocks.

    Attributes:
        ids: Ids of the n images.
        patterns: Scan pattern of each head.
        gate: Name of the gate.
        blocks: Blocks in the order of the forward pass.
    """

    ids: tuple[str, ...]
    patterns: tuple[str, ...]
    gate: str
    blocks: tuple[BlockGates, ...]


def write_gate_maps(path: str | Path, maps: GateMaps) -> None:
    """Write gate maps atomically.

    Raises:
        OSError: The disk is full, or refuses the file for another reason. Nothing is left of it.
    """
    with new_file(path) as new:
        file = new.file
        write_attributes(file, FORMAT, {"gate": maps.gate}, {})
        write_strings(file, "ids", maps.ids)
        write_strings(file, "patterns", maps.patterns)
        write_strings(file, "blocks", [block.block for block in maps.blocks])
        for place, block in enumerate(maps.blocks):
            group = file.create_group(f"block{place:02d}")
            group.create_dataset("gate", data=block.gate, **MAP_FILTER)
            group["closed"], group["route_share"] = block.closed, block.route_share


def read_gate_maps(path: str | Path) -> GateMaps:
    """Read a file that `write_gate_maps` wrote.

    Raises:
        FileNotFoundError: The file does not exist.
        OSError: It is a folder, or must not be read.
        ValueError: The file is not HDF5, is damaged, or has another format or schema version.
    """
    with closing(SavedFile(path, format=FORMAT, how_to_make="mhsvm test")) as saved, saved.reading():
        file = saved.file
        names = read_strings(file, "blocks")
        groups = [file[f"block{place:02d}"] for place in range(len(names))]
        blocks = [
            BlockGates(name, group["gate"][:], group["closed"][:], group["route_share"][:])
            for name, group in zip(names, groups, strict=True)
        ]
        return GateMaps(read_strings(file, "ids"), read_strings(file, "patterns"), str(file.attrs["gate"]), (*blocks,))
