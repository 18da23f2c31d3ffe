"""Files of every format, by their content, to one upright image."""

import builtins
import io
import struct

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from mhsvm.prepare.decode import decode_grayscale, decode_image, decode_mask, to_rgb

SMOOTH = np.stack(np.broadcast_arrays(np.arange(0, 160, 4)[:, None], np.arange(0, 192, 4), 90), axis=2).astype(np.uint8)
MASK = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)


def encode_heic(pixels: np.ndarray, **options) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(file, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("format", "options", "tolerance"),
    [
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {}, 20),
        ("AVIF", {"quality": 95}, 20),
        ("JPEG2000", {}, 0),
        ("PPM", {}, 0),
        ("DIB", {}, 0),
        ("GIF", {}, 60),
    ],
)
def test_formats_of_pillow(encode, format, options, tolerance):
    decoded = decode_image(encode(SMOOTH, format, **options))
    assert decoded.shape == SMOOTH.shape
    assert abs(decoded.astype(int) - SMOOTH).max() <= tolerance


def test_heic_is_read_and_turned(encode):
    decoded = decode_image(encode_heic(SMOOTH, quality=95))
    assert abs(decoded.astype(int) - SMOOTH).max() <= 20
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode_image(encode_heic(SMOOTH, quality=95, exif=exif.tobytes()))
    assert turned.shape == (48, 40, 3)
    assert abs(turned.astype(int) - np.rot90(SMOOTH, -1)).max() <= 20


@pytest.mark.parametrize(("package", "extra"), [("pillow_heif", "heic"), ("pydicom", "dicom")])
def test_the_message_without_an_extra_has_its_command(monkeypatch, package, extra):
    content = encode_heic(SMOOTH) if extra == "heic" else bytes(128) + b"DICM"
    importing = builtins.__import__
    monkeypatch.setattr(
        "mhsvm.prepare.raster.importlib.import_module",
        lambda name: (_ for _ in ()).throw(ImportError(name)) if name == package else importing(name),
    )
    with pytest.raises(ValueError, match=rf"needs the package .*: pip install 'mhsvm\[{extra}\]'"):
        decode_image(content)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "TIFF", "PNG", "AVIF"])
def test_several_frames_are_refused(encode, format):
    frames = [Image.fromarray(np.roll(SMOOTH, 8 * shift, axis=0)) for shift in range(3)]
    with pytest.raises(ValueError, match=f"a {format} of 3 frames; one is expected"):
        decode_image(encode(frames[0], format, save_all=True, append_images=frames[1:]))


def test_the_previews_of_a_camera_are_no_frames(encode):
    frames = [Image.fromarray(SMOOTH), Image.fromarray(SMOOTH // 2)]
    decoded = decode_image(encode(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=95))
    assert abs(decoded.astype(int) - SMOOTH).max() <= 30


def tiff(levels: np.ndarray, *, photometric: int, order: str = "<", bits: int | None = None) -> bytes:
    """An uncompressed TIFF file of one channel, written byte by byte: Pillow writes no white-is-zero files."""
    if levels.dtype == bool:
        bits, strip = 1, np.packbits(levels, axis=1).tobytes()
    elif bits == 12:
        pairs = levels.reshape(-1, 2).tolist()
        strip = b"".join(((first << 12) | second).to_bytes(3, "big") for first, second in pairs)
    else:
        bits, strip = levels.dtype.itemsize * 8, levels.astype(levels.dtype.newbyteorder(order)).tobytes()
    height, width = levels.shape
    values = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 200, 277: 1, 278: height}
    entries = [(tag, 3, 1, value, 0) for tag, value in values.items()] + [(279, 3, 1, len(strip), 0)]
    header = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(entries))
    directory = b"".join(struct.pack(f"{order}HHIHH", *entry) for entry in entries) + bytes(4)
    return (header + directory).ljust(200, b"\0") + strip


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16])
def test_white_is_zero_at_every_depth(order, dtype):
    white = {bool: 1, np.uint8: 255, np.uint16: 65535}[dtype]
    levels = MASK.astype(dtype) * dtype(white)
    plain = tiff(levels, photometric=1, order=order)
    inverted = tiff(~levels if dtype is bool else dtype(white) - levels, photometric=0, order=order)
    for content in (plain, inverted):
        np.testing.assert_array_equal(decode_mask(content), MASK)
        np.testing.assert_array_equal(decode_image(content), np.repeat(MASK[..., None] * 255, 3, axis=2))
        np.testing.assert_array_equal(decode_grayscale(content), MASK.astype(np.float32))


def test_types_of_tags_and_bigtiff(encode):
    # as programs write them: 32-bit values of tags, in which a big-endian 1 starts with zeros
    plain = tiff(MASK * np.uint16(65535), photometric=1, order=">")
    place = plain.index(struct.pack(">HHIH", 262, 3, 1, 1))
    for value, expected in ((1, MASK), (0, 1 - MASK)):
        content = plain[:place] + struct.pack(">HHII", 262, 4, 1, value) + plain[place + 12 :]
        np.testing.assert_array_equal(decode_mask(content), expected)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    inverted = encode((1 - MASK) * np.uint16(65535), "TIFF", tiffinfo=tags, big_tiff=True)
    assert inverted[:4] == b"II\x2b\0"
    np.testing.assert_array_equal(decode_mask(inverted), MASK)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_white_is_zero_in_compressed_files_and_in_opened_images(encode, tmp_path, compression):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    # Pillow writes the tag, and the levels as they are
    content = encode((1 - MASK) * np.uint16(65535), "TIFF", tiffinfo=tags, compression=compression)
    np.testing.assert_array_equal(decode_mask(content), MASK)
    (tmp_path / "a.tif").write_bytes(content)
    with Image.open(tmp_path / "a.tif") as opened:
        np.testing.assert_array_equal(to_rgb(opened)[..., 0], MASK * 255)


def test_twelve_bits_are_fractions_of_4095():
    levels = np.array([[0, 4095], [2048, 16]], np.uint16)
    np.testing.assert_array_equal(decode_image(tiff(levels, photometric=1, bits=12))[..., 0], [[0, 255], [128, 1]])
    np.testing.assert_array_equal(decode_image(tiff(levels, photometric=0, bits=12))[..., 0], [[255, 0], [127, 254]])
    np.testing.assert_array_equal(decode_mask(tiff(levels // 4095 * 4095, photometric=1, bits=12)), [[0, 1], [0, 0]])


# Pillow warns of damaged tags
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("order", ["<", ">"])
def test_damaged_directories_are_value_errors(order):
    content = tiff(MASK * np.uint16(65535), photometric=0, order=order)
    for length in range(4, len(content), 7):
        with pytest.raises(ValueError, match="."):
            decode_image(content[:length])


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_tiff_webp_and_avif_are_turned_like_jpeg(encode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = decode_image(encode(SMOOTH, "JPEG", quality=95, exif=exif))
    for format, options in (("TIFF", {}), ("WEBP", {"lossless": True}), ("AVIF", {"quality": 95})):
        decoded = decode_image(encode(SMOOTH, format, exif=exif, **options))
        assert decoded.shape == expected.shape
        assert abs(decoded.astype(int) - expected).max() <= 30
