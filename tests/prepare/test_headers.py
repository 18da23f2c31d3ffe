"""Sizes by headers alone."""

from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.headers import read_sizes

PIXELS = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)


def source_file(path: Path) -> SourceFile:
    return SourceFile(path.name, path.stat().st_size, path)


@pytest.mark.parametrize("format", ["JPEG", "BMP", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_sizes_are_upright(tmp_path, format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a"
    options = {} if format == "BMP" else {"exif": exif}
    Image.fromarray(PIXELS).save(path, format, **options)
    sideways = orientation == 6 and format != "BMP"
    assert read_sizes(source_file(path)) == ((300, 200) if sideways else (200, 300),)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_some_formats_leave_open_whether_an_image_is_on_its_side(tmp_path, format):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "a.png", format, exif=exif)
    # Pillow turns the sizes of a TIFF, by its version
    assert set(read_sizes(source_file(tmp_path / "a.png"))) == {(200, 300), (300, 200)}


def test_a_header_at_the_end_of_a_large_file_and_in_an_archive(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    assert len(content) > 2**16
    with ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.tif", content)
    with ZipFile(tmp_path / "a.zip") as archive:
        (member,) = archive.infolist()
        file = SourceFile("a.zip/a.tif", member.file_size, tmp_path / "a.zip", member, archive)
        assert read_sizes(file) == ((200, 300),)


def test_no_image(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match="no BMP, PNG"):
        read_sizes(source_file(tmp_path / "a.png"))
    with pytest.raises(ValueError, match="cannot be read"):
        read_sizes(SourceFile("b.png", 1, tmp_path / "b.png"))
