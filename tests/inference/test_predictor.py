"""Prediction: the image's own size, the same pixels whichever way the image comes, clear errors."""

import multiprocessing
import os
import re
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from mhsvm.inference.predictor import Predictor, read_rgb
from mhsvm.prepare.resize import resize_image

CPU = torch.device("cpu")


class Red(nn.Module):
    """Lesion is where red is above 100."""

    def forward(self, inputs):
        return (inputs[:, :1] - 100) / 20


class Channels(nn.Module):
    """Classes 0, 1, 2 are red, green, blue."""

    def forward(self, inputs):
        return inputs / 20


def predictor(*models, size=(16, 24), threshold=0.5, **options):
    return Predictor(models or [Red()], normalize=lambda x: x, size=size, threshold=threshold, device=CPU, **options)


def make_image(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(256, size=(4, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", [(61, 45), (16, 24), (7, 5), (1, 1), (16, 300)])
def test_results_have_the_size_of_the_image(size):
    image = make_image(*size)
    mask, probability = predictor()(image)
    assert (mask.shape, mask.dtype) == (size, np.uint8)
    assert (probability.shape, probability.dtype) == (size, np.float32)
    assert set(np.unique(mask)) <= {0, 1}
    assert 0 <= probability.min() <= probability.max() <= 1
    np.testing.assert_array_equal(mask, probability >= 0.5)


def test_the_probability_is_enlarged_and_then_decided():
    image = make_image(64, 96)
    small = torch.from_numpy(resize_image(image, (16, 24))).permute(2, 0, 1).float()
    maps = Red()(small[None]).sigmoid()
    expected = F.interpolate(maps, size=(64, 96), mode="bilinear")[0, 0].numpy()
    mask, probability = predictor()(image)
    np.testing.assert_allclose(probability, expected, atol=1e-6)
    # deciding first would leave steps of four pixels
    blocks = (maps[0, 0] >= 0.5).numpy().repeat(4, axis=0).repeat(4, axis=1)
    assert (mask != blocks).any()


def test_an_image_of_the_models_size_is_left_alone():
    image = make_image(16, 24)
    _, probability = predictor()(image)
    expected = Red()(torch.from_numpy(image).permute(2, 0, 1)[None].float()).sigmoid()[0, 0]
    np.testing.assert_array_equal(probability, expected.numpy())


def test_several_classes():
    image = make_image(40, 50)
    mask, probability = predictor(Channels())(image)
    assert probability.shape == (3, 40, 50)
    np.testing.assert_allclose(probability.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(mask, probability.argmax(axis=0))
    assert set(np.unique(mask)) == {0, 1, 2}


def test_the_threshold_is_the_predictors():
    image = make_image(40, 50)
    low, high = (predictor(threshold=value)(image).mask.mean() for value in (0.1, 0.9))
    assert low > high


def test_file_picture_and_array_agree(tmp_path):
    image = make_image(40, 50)
    Image.fromarray(image).save(tmp_path / "a.png")
    expected = predictor()(image)
    for kind in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(image)):
        got = predictor()(kind)
        np.testing.assert_array_equal(got.mask, expected.mask)
        np.testing.assert_array_equal(got.probability, expected.probability)


def test_grey_arrays_count_as_equal_channels():
    grey = make_image(20, 30)[..., 0]
    expected = predictor()(np.stack([grey] * 3, axis=-1))
    np.testing.assert_array_equal(predictor()(grey).probability, expected.probability)


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "CMYK"])
def test_pictures_of_every_mode_are_read_as_their_files(tmp_path, mode):
    image = Image.fromarray(make_image(20, 30)).convert(mode)
    image.save(tmp_path / "a.tiff")
    np.testing.assert_array_equal(read_rgb(image), read_rgb(tmp_path / "a.tiff"))


def test_exif_orientation_turns_files_and_pictures_upright(tmp_path):
    image = Image.fromarray(make_image(20, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    upright = np.rot90(np.array(image), -1)
    np.testing.assert_array_equal(read_rgb(tmp_path / "turned.png"), upright)
    with Image.open(tmp_path / "turned.png") as opened:
        np.testing.assert_array_equal(read_rgb(opened), upright)
    assert predictor()(tmp_path / "turned.png").mask.shape == (30, 20)


def test_a_batch_is_its_images_one_by_one():
    images = [make_image(40, 50, seed=1), make_image(17, 80, seed=2), make_image(16, 24, seed=3)]
    together = predictor().predict_batch(images)
    for image, got in zip(images, together, strict=True):
        alone = predictor()(image)
        np.testing.assert_array_equal(got.mask, alone.mask)
        np.testing.assert_allclose(got.probability, alone.probability, atol=1e-6)


def test_the_model_runs_in_evaluation_mode():
    class Watching(Red):
        def forward(self, inputs):
            assert not self.training
            return super().forward(inputs)

    assert predictor(Watching().train())(make_image(8, 8)).mask.shape == (8, 8)


@pytest.mark.parametrize(
    ("image", "received"),
    [
        (np.zeros((8, 8, 3), np.float32), "received float32 (8, 8, 3)"),
        (np.zeros((3, 8, 8), np.uint8), "received uint8 (3, 8, 8). Channels come last"),
        (np.zeros((8, 8, 4), np.uint8), "received uint8 (8, 8, 4)"),
        (np.zeros((1, 8, 8, 3), np.uint8), "received uint8 (1, 8, 8, 3)"),
        (np.zeros((0, 8, 3), np.uint8), "received uint8 (0, 8, 3)"),
        (np.zeros((8, 8), bool), "received bool (8, 8)"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), "received a Tensor"),
    ],
)
def test_arrays_of_another_kind_are_refused(image, received):
    with pytest.raises(ValueError, match=re.escape(received)):
        predictor()(image)


def test_files_that_are_no_images_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no image .*absent\.png"):
        predictor()(tmp_path / "absent.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"text\.png: no BMP, .*TIFF, .* file, or a damaged one"):
        predictor()(tmp_path / "text.png")


def test_factors_are_not_rounded():
    seen = []

    class Seeing(nn.Module):
        def forward(self, x):
            seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
            return x[:, :1]

    before = torch.backends.cudnn.allow_tf32
    predictor(Seeing())(make_image(16, 24))
    assert seen == [(False, False)]
    assert torch.backends.cudnn.allow_tf32 == before


def test_broken_weights_make_no_empty_mask():
    class Broken(nn.Module):
        def forward(self, inputs):
            return inputs[:, :1] * float("nan")

    with pytest.raises(ValueError, match="the model's output is not finite"):
        predictor(Broken())(make_image(8, 8))


class Left(nn.Module):
    """Lesion is what lies left, whatever is seen."""

    def forward(self, inputs):
        return torch.linspace(5, -5, inputs.shape[-1]).expand(len(inputs), 1, *inputs.shape[-2:])


class Constant(nn.Module):
    def __init__(self, probability):
        super().__init__()
        self.logit = torch.tensor(probability).logit()

    def forward(self, inputs):
        return self.logit.expand(len(inputs), 1, *inputs.shape[-2:])


def test_probabilities_of_several_models_are_averaged():
    _, probability = predictor(Constant(0.2), Constant(0.9), Constant(0.7))(make_image(20, 30))
    np.testing.assert_allclose(probability, 0.6, atol=1e-6)


@pytest.mark.parametrize(("name", "axes"), [("flips", [(0,), (1,)]), ("turns", [(0,), (1,), "T"])])
def test_what_depends_on_the_view_is_averaged_away(name, axes):
    image = make_image(16, 16)
    _, plain = predictor(Left(), size=(16, 16))(image)
    _, averaged = predictor(Left(), size=(16, 16), augmentation=name)(image)
    assert np.ptp(plain) > 0.9
    for axis in axes:
        other = averaged.T if axis == "T" else np.flip(averaged, axis)
        np.testing.assert_allclose(averaged, other, atol=1e-6)


@pytest.mark.parametrize("name", ["flips", "turns"])
def test_what_does_not_depend_on_the_view_stays(name):
    image = make_image(16, 16)
    expected = predictor(Red(), size=(16, 16))(image).probability
    np.testing.assert_allclose(
        predictor(Red(), size=(16, 16), augmentation=name)(image).probability, expected, atol=1e-6
    )


def test_cleaning_changes_the_mask_alone():
    image = np.zeros((16, 24, 3), np.uint8)
    image[2:10, 2:12, 0] = 255
    image[5, 5, 0] = 0
    image[13, 20, 0] = 255
    plain = predictor()(image)
    cleaned = predictor(largest_component=True, fill_holes=True)(image)
    np.testing.assert_array_equal(cleaned.probability, plain.probability)
    assert (plain.mask.sum(), cleaned.mask.sum()) == (80, 80)
    assert (cleaned.mask[5, 5], cleaned.mask[13, 20]) == (1, 0)


def test_a_predictor_without_a_model():
    with pytest.raises(ValueError, match="a predictor needs at least one model; received none"):
        Predictor([], normalize=lambda x: x, size=(16, 16), threshold=0.5, device=CPU)


class Batches(Red):
    """Records the sizes of its batches, its thread, and the threads of its operations."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, inputs):
        self.seen.append((len(inputs), threading.get_ident(), torch.get_num_threads()))
        return super().forward(inputs)


@pytest.mark.usefixtures("_two_threads")
def test_each_thread_takes_a_part_of_a_batch():
    model, images = Batches(), [make_image(20 + seed, 30, seed) for seed in range(9)]
    expected = [predictor()(image) for image in images]
    found = predictor(model).predict_batch(images)
    for (mask, probability), one in zip(found, expected, strict=True):
        np.testing.assert_array_equal(probability, one.probability)
        np.testing.assert_array_equal(mask, one.mask)
    sizes, idents, inside = zip(*model.seen, strict=True)
    assert sorted(sizes) == [2, 2, 2, 3]
    assert threading.get_ident() not in idents
    assert set(inside) == {1}
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("_two_threads")
def test_an_image_that_cannot_be_read_is_named_from_any_thread(tmp_path):
    images = [make_image(8, 8)] * 6 + [tmp_path / "gone.png"]
    with pytest.raises(FileNotFoundError, match=re.escape("gone.png")):
        predictor().predict_batch(images)
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("_two_threads")
def test_a_hook_receives_the_whole_batch():
    model, seen = Red(), []
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    predictor(model).predict_batch([make_image(8, 8)] * 8)
    assert seen == [8]


@pytest.mark.usefixtures("_two_threads")
def test_autocast_holds_for_the_whole_batch():
    model = Batches()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predictor(model).predict_batch([make_image(8, 8)] * 8)
    assert [size for size, *_ in model.seen] == [8]


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_forked_process_predicts_with_one_thread():
    image = make_image(400, 300)
    segment = predictor()
    # large enough for torch's threads, which a child does not have
    expected = segment(image).mask
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=lambda: queue.put((torch.get_num_threads(), segment(image).mask)))
    child.start()
    try:
        num_threads, found = queue.get(timeout=60)
    finally:
        child.kill()
    assert num_threads == 1
    np.testing.assert_array_equal(found, expected)
