"""DICOM files of every kind of pixels that a camera or scanner writes."""

import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pydicom")

from pydicom import Dataset, Sequence
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import set_pixel_data
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    VLPhotographicImageStorage,
    generate_uid,
)

from mhsvm.prepare.decode import decode_grayscale, decode_image, decode_mask

MASK = np.array([[0, 1, 1, 0], [0, 0, 1, 0]], np.uint8)
SMOOTH = np.stack(np.broadcast_arrays(np.arange(0, 160, 4)[:, None], np.arange(0, 192, 4), 90), axis=2).astype(np.uint8)


def dicom(pixels: np.ndarray, kind: str, bits: int = 8, *, syntax=ExplicitVRLittleEndian, **attributes) -> bytes:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = VLPhotographicImageStorage, generate_uid()
    set_pixel_data(data, pixels, "MONOCHROME2" if pixels.ndim == 2 else "RGB", bits)
    data.PhotometricInterpretation = kind
    for name, value in attributes.items():
        setattr(data, name, value)
    if syntax == RLELossless:
        data.compress(RLELossless)
    elif syntax in (JPEGBaseline8Bit, JPEG2000Lossless):
        file = io.BytesIO()
        options = {"quality": 95} if syntax == JPEGBaseline8Bit else {"no_jp2": True}
        Image.fromarray(pixels).save(file, "JPEG" if syntax == JPEGBaseline8Bit else "JPEG2000", **options)
        data.PixelData = encapsulate([file.getvalue()])
    data.file_meta.TransferSyntaxUID = syntax
    data["PixelData"].is_undefined_length = syntax.is_encapsulated
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def gray(levels: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(levels, np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless])
def test_colors_are_exact(syntax):
    np.testing.assert_array_equal(decode_image(dicom(SMOOTH, "RGB", syntax=syntax)), SMOOTH)


def test_colors_of_a_jpeg_and_of_ybr():
    jpeg = decode_image(dicom(SMOOTH, "YBR_FULL_422", syntax=JPEGBaseline8Bit))
    assert abs(jpeg.astype(int) - SMOOTH).max() <= 20
    ybr = np.array(Image.fromarray(SMOOTH).convert("YCbCr"))
    assert abs(decode_image(dicom(ybr, "YBR_FULL")).astype(int) - SMOOTH).max() <= 3


def test_planes_are_put_together():
    planes = np.ascontiguousarray(np.moveaxis(SMOOTH, 2, 0)).tobytes()
    content = dicom(SMOOTH, "RGB", PlanarConfiguration=1, PixelData=planes)
    np.testing.assert_array_equal(decode_image(content), SMOOTH)


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (12, np.uint16), (16, np.uint16)])
def test_gray_of_both_polarities(bits, dtype):
    white = dtype(2**bits - 1)
    levels = MASK.astype(dtype) * white
    for content in (dicom(levels, "MONOCHROME2", bits), dicom(white - levels, "MONOCHROME1", bits)):
        np.testing.assert_array_equal(decode_image(content), gray(MASK * 255))
        np.testing.assert_array_equal(decode_mask(content), MASK)
        np.testing.assert_array_equal(decode_grayscale(content), MASK.astype(np.float32))


def test_sixteen_bits_are_divided_by_257():
    levels = np.array([[0, 257, 40_000, 65535]], np.uint16)
    np.testing.assert_array_equal(decode_image(dicom(levels, "MONOCHROME2", 16))[..., 0], [[0, 1, 156, 255]])


def test_masks_of_zero_and_one_and_of_classes():
    np.testing.assert_array_equal(decode_mask(dicom(MASK, "MONOCHROME2")), MASK)
    np.testing.assert_array_equal(decode_mask(dicom(MASK * 2, "MONOCHROME2"), 3), MASK * 2)


@pytest.mark.parametrize(
    ("function", "expected"),
    [("LINEAR", [0, 64, 191, 255]), ("LINEAR_EXACT", [0, 64, 191, 255]), ("SIGMOID", [30, 69, 186, 225])],
)
def test_windows(function, expected):
    levels = np.array([[1000, 1500, 2500, 3000]], np.uint16)
    content = dicom(levels, "MONOCHROME2", 16, WindowCenter="2000", WindowWidth="2000", VOILUTFunction=function)
    np.testing.assert_allclose(decode_image(content)[0, :, 0], expected, atol=1)


def test_the_first_of_several_windows_after_rescaling():
    levels = np.array([[0, 50, 100, 200]], np.uint8)
    window = {"WindowCenter": [0, 9], "WindowWidth": [201, 9], "RescaleSlope": "2", "RescaleIntercept": "-100"}
    np.testing.assert_allclose(
        decode_image(dicom(levels, "MONOCHROME2", **window))[0, :, 0], [0, 128, 255, 255], atol=1
    )


def test_negative_levels_and_rescaling_without_a_window():
    levels = np.array([[-32768, 0, 32767, 100]], np.int16)
    np.testing.assert_array_equal(decode_image(dicom(levels, "MONOCHROME2", 16))[0, :3, 0], [0, 128, 255])
    rescaled = dicom(np.array([[0, 255, 51, 0]], np.uint8), "MONOCHROME2", RescaleSlope="3", RescaleIntercept="7")
    np.testing.assert_array_equal(decode_image(rescaled)[0, :3, 0], [0, 255, 51])


def test_a_lookup_table():
    table = Dataset()
    table.LUTDescriptor = [4, 0, 16]
    table.add_new("LUTData", "OW", np.array([0, 65535, 257 * 5, 257], "<u2").tobytes())
    content = dicom(np.array([[0, 1, 2, 3]], np.uint8), "MONOCHROME2", VOILUTSequence=Sequence([table]))
    np.testing.assert_array_equal(decode_image(content)[0, :, 0], [0, 255, 5, 1])


def test_palettes_keep_colors_and_indices():
    tables = {}
    for channel, values in (("Red", [0, 128, 9]), ("Green", [0, 0, 8]), ("Blue", [0, 0, 7])):
        tables[f"{channel}PaletteColorLookupTableDescriptor"] = [3, 0, 16]
        tables[f"{channel}PaletteColorLookupTableData"] = np.array(np.array(values) * 257, "<u2").tobytes()
    content = dicom(MASK, "PALETTE COLOR", **tables)
    np.testing.assert_array_equal(decode_image(content), MASK[..., None] * np.array([128, 0, 0], np.uint8))
    np.testing.assert_array_equal(decode_mask(content), MASK)
    np.testing.assert_array_equal(decode_mask(dicom(MASK * 2, "PALETTE COLOR", **tables), 3), MASK * 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (dicom(np.stack([MASK] * 3).reshape(6, 4), "MONOCHROME2", NumberOfFrames=3, Rows=2), "of 3 frames; one is"),
        (dicom(MASK, "MONOCHROME2", syntax=DeflatedExplicitVRLittleEndian), "a deflated DICOM file"),
        (dicom(MASK, "MONOCHROME2", WindowCenter="1", WindowWidth="0"), "a window is finite and wider than 0"),
        (dicom(MASK, "MONOCHROME2", Rows=30_000, Columns=30_000), "30000 x 30000 pixels are more than"),
        (dicom(MASK, "HSV"), "HSV"),
        (bytes(128) + b"DICM", "without an image|DICOM"),
    ],
)
def test_files_that_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        decode_image(content)


def test_a_compression_that_needs_another_package_is_named():
    content = dicom(MASK, "MONOCHROME2", syntax=JPEGLSLossless, PixelData=encapsulate([b"\xff\xd8\xff\xd9"]))
    with pytest.raises(ValueError, match="JPEG-LS|JPEGLS"):
        decode_image(content)
