"""Small sets and checkpoints in a folder of their own, which is the working folder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mhsvm.assemble import build_model, build_split, describe_data
from mhsvm.config import load_config, to_dict
from mhsvm.models import create_model
from mhsvm.models.key_maps import published_sources
from mhsvm.store import PreparedSet, Sample, write_set
from mhsvm.system import code_version
from mhsvm.training.checkpoint import save_checkpoint

SIDE = 32
TINY_UNET = {"dims": (8, 16), "depths": (1, 1), "decoder_depths": (1, 1), "d_state": 2}


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """The working folder, empty but for data/."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    return tmp_path


def draw_sample(row: int, num_images: int, *, side: int, num_classes: int, first_id: int) -> Sample:
    """A dark square on bright ground."""
    generator = np.random.default_rng(first_id + row)
    image = generator.integers(150, 256, size=(side, side, 3), dtype=np.uint8)
    mask = np.zeros((side, side), np.uint8)
    top, left = generator.integers(2, side // 2, size=2)
    mask[top : top + side // 3, left : left + side // 3] = 255 if num_classes == 1 else 1
    image[mask > 0] //= 3
    if num_classes > 1:
        mask[:3], mask[-1] = num_classes - 1, 255
    subset = "train" if row < num_images * 0.6 else "val" if row < num_images * 0.8 else "test"
    return Sample(f"case{first_id + row:03d}", image, mask, (side, side), subset)


@pytest.fixture
def make_set(workplace) -> Callable[..., Path]:
    """Write data/NAME.h5."""

    def make(
        name: str = "lesions", *, num: int = 15, side: int = SIDE, num_classes: int = 1, first_id: int = 0
    ) -> Path:
        path = workplace / "data" / f"{name}.h5"
        samples = [draw_sample(row, num, side=side, num_classes=num_classes, first_id=first_id) for row in range(num)]
        write_set(path, samples, name=name, size=(side, side), num_classes=num_classes, attributes={}, total=num)
        return path

    return make


@pytest.fixture
def config(workplace, make_set, request) -> Path:
    """The CONFIG of the test's module as a file, and the set that it names."""
    make_set(num=15)
    path = workplace / "small.yaml"
    path.write_text(request.module.CONFIG)
    return path


@pytest.fixture
def make_checkpoint(workplace) -> Callable[..., Path]:
    """Write a checkpoint of ours with the description of its data, as training does, but with fresh weights."""

    def make(
        prepared_path: Path,
        *settings: str,
        path: str = "results/run/checkpoints/best.pt",
        split: str = "ratio-60-20-20-1",
        change: Callable[[dict], None] | None = None,
    ) -> Path:
        settings = ("model.ultralight_vm_unet.d_state", "2", *settings)
        config = load_config(None, settings)
        torch.manual_seed(0)
        with PreparedSet.open(prepared_path) as prepared:
            content = {
                "model": build_model(config).state_dict(),
                "config": to_dict(config),
                "data": describe_data(prepared, build_split(split, prepared)),
                "version": code_version(),
            }
        if change is not None:
            change(content)
        save_checkpoint(path, content)
        return Path(path)

    return make


@pytest.fixture
def make_published(workplace) -> Callable[..., Path]:
    """Write fresh weights under the keys of a published file: a plain state dict."""

    def make(name: str, path: str = "published.pth", **arguments) -> Path:
        torch.manual_seed(0)
        own = create_model(name, **arguments).state_dict()
        sources = published_sources(name, own, patterns=arguments.get("patterns", ()))
        state = {}
        for key, source in sources.items():
            parts = own[key] if len(source.keys) > 1 else own[key][None]
            for their_key, part in zip(source.keys, parts, strict=True):
                state[("" if name == "ultralight_vm_unet" else "vmunet.") + their_key] = part.reshape(source.shape)
        torch.save(state, path)
        return Path(path)

    return make


@pytest.fixture
def make_published_mhs_vm(make_published) -> Callable[..., Path]:
    """Write a small published MHS-VM, of three heads if not told otherwise."""

    def make(patterns: tuple[str, ...] = ("C", "X", "S")) -> Path:
        return make_published("mhs_vm", patterns=patterns, **TINY_UNET)

    return make
