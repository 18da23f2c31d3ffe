"""Flip one random bit of a file: it is refused by name, or its content is unchanged."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mhsvm.models.checkpoint_file import read_checkpoint
from mhsvm.store import (
    BlockGates,
    GateMaps,
    PredictionSet,
    PredictionWriter,
    PreparedSet,
    Sample,
    read_gate_maps,
    write_gate_maps,
    write_set,
)
from mhsvm.training.checkpoint import save_checkpoint
from tests.faults.outcomes import Counts, outcome_of

_NUM, _SIDE = 6, 24


def run(*, count: int, seed: int, folder: Path) -> Counts:
    """Flip `count` bits, one at a time, in a file of each kind.

    Args:
        count: Number of flips for each kind.
        seed: Seed of their places.
        folder: A folder for the files.
    """
    return {name: flip_bits(folder / name, make, read, count=count, seed=seed) for name, (make, read) in KINDS.items()}


def flip_bits(
    path: Path, make: Callable[[Path], None], read: Callable[[Path], object], *, count: int, seed: int
) -> Counter:
    """Make a file, flip bits of it one at a time, and count the outcomes of reading it."""
    make(path)
    whole, expected = path.read_bytes(), read(path)
    generator, counts = random.Random(seed), Counter()
    for _ in range(count):
        place = generator.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        counts[outcome_of(lambda: read(path), expected=expected, path=path)] += 1
    path.write_bytes(whole)
    assert read(path) == expected
    return counts


def _make_set(path: Path) -> None:
    generator = np.random.default_rng(0)
    samples = [
        Sample(
            f"case_{i}",
            generator.integers(0, 256, (_SIDE, _SIDE, 3), np.uint8),
            generator.integers(0, 2, (_SIDE, _SIDE), np.uint8) * 255,
            (100 + i, 200),
            ("train", "val")[i % 2],
            f"patient {i // 2}",
        )
        for i in range(_NUM)
    ]
    write_set(
        path,
        samples,
        name="made",
        size=(_SIDE, _SIDE),
        num_classes=1,
        attributes={"sources": "a b", "version": "1"},
        total=_NUM,
    )


def _read_set(path: Path) -> object:
    with PreparedSet.open(path) as prepared:
        texts = (prepared.name, prepared.ids, prepared.subsets, prepared.groups, prepared.checksum)
        rest = (prepared.size, prepared.num_classes, prepared.attributes, prepared.original_sizes.tolist())
        return texts, rest, prepared.images(slice(None)).tolist(), prepared.masks(slice(None)).tolist()


def _make_predictions(path: Path) -> None:
    probability = np.random.default_rng(0).integers(0, 256, (_NUM, 3, _SIDE, _SIDE), np.uint8)
    probability[:, :, : _SIDE // 2] = 0
    with PredictionWriter(
        path,
        set_name="made.h5",
        set_checksum="ab" * 32,
        size=(_SIDE, _SIDE),
        num_classes=3,
        attributes={"threshold": 0.5, "split": "wu-sorted"},
    ) as writer:
        writer.append([f"case_{i}" for i in range(_NUM)], probability)


def _read_predictions(path: Path) -> object:
    with PredictionSet.open(path) as predictions:
        described = (predictions.ids, predictions.size, predictions.num_classes, predictions.attributes)
        own = (predictions.set_name, predictions.set_checksum)
        return described, own, predictions.probability(slice(None)).tolist()


def _make_gate_maps(path: Path) -> None:
    generator = np.random.default_rng(0)
    blocks = tuple(
        BlockGates(
            f"encoder.{stage}",
            generator.random((2, 3, side, side), np.float32),
            generator.random((2, 3)),
            generator.random((2, 3, 4)),
        )
        for stage, side in enumerate((16, 8))
    )
    write_gate_maps(path, GateMaps(("a", "b"), ("C", "S", "C"), "relu", blocks))


def _read_gate_maps(path: Path) -> object:
    maps = read_gate_maps(path)
    blocks = [(b.block, b.gate.tolist(), b.closed.tolist(), b.route_share.tolist()) for b in maps.blocks]
    return maps.ids, maps.patterns, maps.gate, blocks


def _make_checkpoint(path: Path) -> None:
    save_checkpoint(path, _checkpoint_content())


def _make_foreign_checkpoint(path: Path) -> None:
    torch.save(_checkpoint_content(), path)


def _checkpoint_content() -> dict:
    generator = torch.Generator().manual_seed(0)
    weights = {f"block.{i}.weight": torch.randn(20, 30, generator=generator) for i in range(4)}
    moments = {i: {"step": torch.tensor(3.0), "exp_avg": torch.randn(20, 30, generator=generator)} for i in range(4)}
    progress = {"epoch": 3, "history": [{"epoch": 1, "val_loss": 0.25}], "data_state": generator.get_state()}
    training = {"optimizer": {"state": moments}, "progress": progress}
    return {"model": weights, "config": {"model": {"name": "made"}}, "training": training}


def _read_checkpoint(path: Path) -> object:
    return _plain(read_checkpoint(path))


def _plain(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.tolist()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "set.h5": (_make_set, _read_set),
    "predictions.h5": (_make_predictions, _read_predictions),
    "maps.h5": (_make_gate_maps, _read_gate_maps),
    "last.pt": (_make_checkpoint, _read_checkpoint),
    "foreign.pth": (_make_foreign_checkpoint, _read_checkpoint),
}
