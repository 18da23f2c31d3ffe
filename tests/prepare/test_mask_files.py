"""Every reader of masks reads every kind of mask file alike: preparation, scores of both sides, and native masks."""

import numpy as np
import pytest
from PIL import Image

from mhsvm.evaluation.scorer import score_files
from mhsvm.prepare.native import open_native_masks
from mhsvm.prepare.pipeline import prepare_set
from mhsvm.store import PreparedSet
from tests.prepare.test_mask_levels import BLACK, RED, WHITE, colored, palette
from tests.prepare.test_raster import tiff

MASK = np.zeros((24, 32), np.uint8)
MASK[3:11, 4:25] = 1
MASK[15:20, 7:9] = 1


def rotated(encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(np.rot90(MASK) * 255, "PNG", exif=exif)


KINDS = {
    "0-1.png": lambda encode: encode(MASK),
    "0-255.png": lambda encode: encode(MASK * 255),
    "one-bit.png": lambda encode: encode(MASK.astype(bool)),
    "16-bit.png": lambda encode: encode(MASK * np.uint16(65535)),
    "16-bit-0-1.png": lambda encode: encode(MASK.astype(np.uint16)),
    "16-bit-0-255.png": lambda encode: encode(MASK.astype(np.uint16) * 255),
    "rgb.bmp": lambda encode: encode(np.repeat(MASK[..., None] * 255, 3, axis=2), "BMP"),
    "red.png": lambda encode: encode(np.where(MASK[..., None] > 0, RED, BLACK).astype(np.uint8)),
    "la.png": lambda encode: encode(Image.fromarray(np.dstack([MASK * 255, np.full_like(MASK, 255)]), "LA")),
    "rgba.png": lambda encode: encode(colored(WHITE, BLACK, alpha=(255, 0), mask=MASK)),
    "cut-out.png": lambda encode: encode(colored(WHITE, WHITE, alpha=(255, 0), mask=MASK)),
    "palette.png": lambda encode: encode(palette(MASK, BLACK, RED)),
    "inverted-palette.gif": lambda encode: encode(palette(1 - MASK, WHITE, BLACK), "GIF"),
    "white-is-zero-1.tif": lambda encode: tiff(MASK == 0, photometric=0),
    "white-is-zero-8.tif": lambda encode: tiff(255 - MASK * 255, photometric=0),
    "white-is-zero-16.tif": lambda encode: tiff((1 - MASK) * np.uint16(65535), photometric=0, order=">"),
    "lossless.webp": lambda encode: encode(MASK * 255, "WEBP", lossless=True),
    "map.pgm": lambda encode: encode(MASK * 255, "PPM"),
    "rotated.png": rotated,
    "called.jpg": lambda encode: encode(MASK * 255, "PNG"),
}


@pytest.fixture
def mask_files(encode):
    return {name: make(encode) for name, make in KINDS.items()}


def test_all_kinds_are_prepared_alike(lay_out, picture, tmp_path, mask_files):
    images = {f"images/{name.partition('.')[0]}.png": picture(seed, 24, 32) for seed, name in enumerate(mask_files)}
    source = lay_out({**images, **{f"masks/{name}": content for name, content in mask_files.items()}})
    prepare_set("folder", [source], tmp_path / "own.h5", size=(24, 32))
    with PreparedSet.open(tmp_path / "own.h5") as prepared:
        assert len(prepared.ids) == len(KINDS)
        for row in range(len(KINDS)):
            np.testing.assert_array_equal(prepared.masks([row])[0], MASK * 255, err_msg=prepared.ids[row])


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_all_kinds_are_scored_alike_on_both_sides(lay_out, encode, mask_files, threshold):
    plain = lay_out({f"{name.partition('.')[0]}.png": encode(MASK * 255) for name in mask_files}, name="plain")
    other = lay_out(mask_files, name="other")
    for pred, target in ((plain, other), (other, plain)):
        measured = score_files([pred], [target], threshold=threshold, boundary=False).measured
        assert len(measured.scores) == len(KINDS)
        counts = measured.confusion.tolist()
        assert (counts[0][1], counts[1][0]) == (0, 0)
        assert counts[1][1] == len(KINDS) * MASK.sum()


def test_all_kinds_are_native_masks(pack, mask_files):
    ids = [name.partition(".")[0] for name in mask_files]
    with open_native_masks([pack(mask_files)], ids, source="own", num_classes=1) as native:
        for image_id in ids:
            np.testing.assert_array_equal(native.read(image_id), MASK, err_msg=image_id)


def test_a_lesion_that_is_transparent_is_refused_by_all(lay_out, encode, picture, tmp_path):
    hidden = encode(colored(WHITE, BLACK, alpha=(0, 255), mask=MASK))
    folder = lay_out({"images/a.png": picture(0, 24, 32), "masks/a.png": hidden})
    message = "mask whose transparency hides or contradicts its lesion: 1\n    .*a.png: nothing but black is visible"
    with pytest.raises(ValueError, match=message):
        prepare_set("folder", [folder], tmp_path / "own.h5")
    with pytest.raises(ValueError, match=message):
        score_files([folder / "masks"], [lay_out({"a.png": encode(MASK)}, name="truth")])
    with (
        pytest.raises(ValueError, match=message),
        open_native_masks([folder], ["a"], source="own", num_classes=1),
    ):
        pass
