import numpy as np
import pytest

from mhsvm.leakage import perceptual_hash
from mhsvm.leakage.perceptual_hash import SYMMETRIES


@pytest.fixture(scope="module")
def images():
    noise = np.random.default_rng(0).normal(size=(5, 8, 8))
    return np.kron(noise, np.ones((8, 8))).astype(np.float32) * 30 + 120


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_signatures_in_a_symmetry_are_those_of_rotated_images(images, symmetry):
    # All views of each, so that turning leaves the set's mean spectrum as it is.
    views = np.concatenate([perceptual_hash.apply_symmetry(images, each) for each in SYMMETRIES])
    turned = perceptual_hash.spectra(perceptual_hash.apply_symmetry(views, symmetry))
    found = perceptual_hash.signatures(perceptual_hash.spectra(views), symmetry)
    np.testing.assert_allclose(found, perceptual_hash.signatures(turned), atol=1e-5)


def test_symmetries_are_eight_different_views(images):
    views = {perceptual_hash.apply_symmetry(images[0], symmetry).tobytes() for symmetry in SYMMETRIES}
    assert len(views) == 8
    assert np.array_equal(perceptual_hash.apply_symmetry(images, SYMMETRIES[0]), images)


def test_a_signature_has_unit_length_and_forgets_brightness_and_contrast(images):
    plain = perceptual_hash.signatures(perceptual_hash.spectra(images))
    np.testing.assert_allclose(np.linalg.norm(plain, axis=1), 1, rtol=1e-5)
    changed = perceptual_hash.signatures(perceptual_hash.spectra(images * 0.5 + 70))
    np.testing.assert_allclose(changed, plain, atol=1e-4)


def test_centring_undoes_shift_and_scale():
    axis = np.arange(64, dtype=np.float32)

    def blob(row, column, radius):
        distance = ((axis[:, None] - row) ** 2 + (axis - column) ** 2) / radius**2
        return 200 - 120 * np.exp(-distance)

    centred = perceptual_hash.center_on_lesion(np.stack([blob(32, 32, 12), blob(27, 36, 9)]))
    assert np.abs(centred[0] - centred[1]).mean() < 4
    assert np.unravel_index(centred[1].argmin(), (64, 64)) == pytest.approx((32, 32), abs=1)


def test_centring_turns_about_the_lesion():
    axis = np.arange(64, dtype=np.float32)
    rows, columns = axis[:, None], axis
    # a slanted bar, off the middle
    bar = 200 - 120 * np.exp(-(((rows - 30) - (columns - 34)) ** 2 / 20 + ((rows - 30) + (columns - 34)) ** 2 / 300))
    plain, turned = (perceptual_hash.center_on_lesion(bar[None], degrees=degrees)[0] for degrees in (0, 90))
    # about (32, 32), which is a pixel and not the middle between two
    assert np.abs(np.rot90(plain)[:-1] - turned[1:]).mean() < 2
    assert np.abs(plain - turned).mean() > 10
