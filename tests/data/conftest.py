import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mhsvm.data.prepare import Summary, prepare_set
from mhsvm.data.store import PreparedSet, Sample, write_set
from mhsvm.data.synthetic import draw_sample


def _encode(pixels: np.ndarray | Image.Image, format: str = "PNG", **options) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """The bytes of an image file: encode(array or PIL image, format="PNG", **options of Pillow)."""
    return _encode


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """An image file of smooth colours that differ with `seed`: picture(seed=0, height=20, width=30, format="PNG")."""

    def make(seed: int = 0, height: int = 20, width: int = 30, format: str = "PNG") -> bytes:
        rows, columns = np.mgrid[:height, :width]
        colours = [rows * 5 + seed * 11, columns * 4 + seed * 7, rows + columns]
        return _encode(np.stack(colours, axis=2).astype(np.uint8), format)

    return make


@pytest.fixture(scope="session")
def lesion() -> Callable[..., bytes]:
    """A mask file with a disc of `level`: lesion(seed=0, height=20, width=30, level=255, format="PNG")."""

    def make(seed: int = 0, height: int = 20, width: int = 30, level: int = 255, format: str = "PNG") -> bytes:
        rows, columns = np.mgrid[:height, :width]
        disc = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (3 + seed % 5) ** 2
        return _encode((disc * level).astype(np.uint8), format)

    return make


@pytest.fixture
def lay_out(tmp_path) -> Callable[[dict[str, bytes]], Path]:
    """Write files of a source, by name, below a new folder: lay_out({"images/a.png": bytes, …}, name="own")."""

    def write(files: dict[str, bytes], name: str = "own") -> Path:
        for path, content in files.items():
            target = tmp_path / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return tmp_path / name

    return write


@pytest.fixture
def pack(tmp_path) -> Callable[[dict[str, bytes]], Path]:
    """Write files of a source, by name, into a new zip file: pack({"a.png": bytes, …}, name="own.zip")."""

    def write(files: dict[str, bytes], name: str = "own.zip") -> Path:
        target = tmp_path / name
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, content in files.items():
                archive.writestr(path, content)
        return target

    return write


@pytest.fixture(scope="session")
def isic2017_set(shared, tmp_path_factory) -> Summary:
    """All 2150 training and validation pairs of ISIC 2017, prepared from their archives: path, counts, seconds."""
    archives = sorted((shared / "data").glob("ISIC-2017_[TV]*.zip"))
    return prepare_set("isic2017", archives, tmp_path_factory.mktemp("isic2017") / "isic2017.h5")


@pytest.fixture(scope="session")
def scenes() -> list[np.ndarray]:
    """Eight different synthetic lesions, uint8 (96, 96, 3)."""
    return [draw_sample(seed=11, index=index, size=(96, 96))[0] for index in range(8)]


@pytest.fixture
def write_images(tmp_path) -> Callable[..., PreparedSet]:
    """Write and open a set of images by id: write_images({"a": image, …}, name="own", groups=("", …))."""

    def write(images: dict[str, np.ndarray], name: str = "own", groups: Sequence[str] | None = None) -> PreparedSet:
        path = tmp_path / f"{name}.h5"
        size = next(iter(images.values())).shape[:2]
        samples = [
            Sample(id_, image, np.zeros(size, np.uint8), size, group=group)
            for (id_, image), group in zip(images.items(), groups or [""] * len(images), strict=True)
        ]
        write_set(path, samples, name=name, size=size, num_classes=1, attributes={}, total=len(samples))
        return PreparedSet.open(path)

    return write


@pytest.fixture(scope="session")
def brighter() -> Callable[[np.ndarray], np.ndarray]:
    """Another picture of the same lesion: cropped and in other light."""

    def edit(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        cropped = Image.fromarray(image).crop((4, 3, width - 3, height - 4)).resize((width, height))
        return np.clip(np.asarray(cropped) * [1.1, 0.9, 0.8] + 5, 0, 255).astype(np.uint8)

    return edit
