"""Embedded images decode to the arrays that were encoded."""

import base64
import io

import numpy as np
from PIL import Image

from mhsvm.report.images import color_image, gray_map, label_map, mask, shown_size


def decoded(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2])))


def test_maps_are_exact_and_color_images_nearly():
    generator = np.random.default_rng(0)
    values = generator.integers(256, size=(40, 60), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(decoded(gray_map(values)).convert("L")), values)
    np.testing.assert_array_equal(np.asarray(decoded(label_map(values))), values)
    truth = decoded(mask(values > 100))
    assert truth.mode == "1"
    np.testing.assert_array_equal(np.asarray(truth), values > 100)
    smooth = np.broadcast_to(np.linspace(80, 200, 60).astype(np.uint8)[:, None], (40, 60, 3))
    shown = decoded(color_image(smooth))
    assert shown.format == "JPEG"
    assert np.abs(np.asarray(shown).astype(int) - smooth).max() < 8


def test_large_maps_are_shrunk_by_area():
    assert shown_size((512, 1024)) == (128, 256)
    assert shown_size((200, 256)) == (200, 256)
    lesion = np.zeros((512, 512), bool)
    # half of every second pair of rows, and less than half of the others
    lesion[0::4] = True
    lesion[2::4, ::3] = True
    shrunk = np.asarray(decoded(mask(lesion)))
    assert shrunk.shape == (256, 256)
    assert shrunk[0::2].all()
    assert not shrunk[1::2, 1::3].any()
    assert decoded(label_map(np.full((512, 300), 3, np.uint8))).size == (150, 256)
