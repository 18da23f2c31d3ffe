"""`mhsvm predict`: a mask and an overlay for every image that can be read, and a name for every one that cannot."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

import mhsvm
from mhsvm.assemble import load_trained
from mhsvm.cli import predict as command
from mhsvm.cli.main import run
from mhsvm.inference.overlay import PREDICTION, class_palette
from tests.fixtures.predicted import draw, files_below, has_lesion, read_areas, run_predict


def test_a_folder_keeps_its_tree_and_every_image_its_size(workplace, checkpoint, capsys):
    sizes = {"b.png": (40, 56), "a.JPG": (33, 21), "sub/deeper/c.bmp": (64, 64)}
    for seed, (name, size) in enumerate(sizes.items()):
        draw(workplace / "photos" / name, size=size, seed=seed)
    (workplace / "photos/notes.txt").write_text("no image")
    (workplace / "photos/._b.png").write_text("left by an operating system")
    draw(workplace / "photos/a_superpixels.png", size=(8, 8), seed=9)
    assert run_predict(checkpoint, "photos") == 0
    assert files_below(workplace / "out/masks") == ["a.png", "b.png", "sub/deeper/c.png"]
    assert files_below(workplace / "out/overlays") == ["a.jpg", "b.jpg", "sub/deeper/c.jpg"]
    for name, (height, width) in sizes.items():
        with Image.open(workplace / "out/masks" / Path(name).with_suffix(".png")) as mask:
            assert (mask.mode, mask.size) == ("L", (width, height))
            assert set(np.unique(mask)) <= {0, 255}
        with Image.open(workplace / "out/overlays" / Path(name).with_suffix(".jpg")) as overlay:
            assert overlay.size == (width, height)
    assert "3 masks in out/masks" in capsys.readouterr().out


@pytest.mark.parametrize("batch_size", ["1", "2", "8"])
def test_masks_are_those_of_the_predictor(workplace, checkpoint, batch_size):
    paths = [draw(workplace / f"photos/{seed}.png", size=(40 + seed, 50), seed=seed) for seed in range(3)]
    assert run_predict(checkpoint, "photos", "out", "--batch-size", batch_size) == 0
    predictor = mhsvm.load_predictor(checkpoint, device="cpu")
    for path in paths:
        expected = predictor(path).mask
        with Image.open(workplace / "out/masks" / path.name) as mask:
            np.testing.assert_array_equal(np.array(mask), expected * 255)
        assert 0 < expected.mean() < 1


def test_the_overlay_shows_image_and_outline(workplace, checkpoint):
    path = draw(workplace / "a.png", size=(300, 300))
    assert run_predict(checkpoint, path) == 0
    with Image.open(workplace / "out/overlays/a.jpg") as overlay, Image.open(path) as image:
        drawn, plain = (np.array(picture).astype(int) for picture in (overlay, image))
    # colours are near, not equal, in a JPEG
    assert (np.abs(drawn - np.array(PREDICTION)).max(axis=-1) < 60).any()
    assert np.median(np.abs(drawn - plain)) < 30


def test_several_classes_are_a_palette_of_indices(workplace, make_set, make_checkpoint):
    checkpoint = make_checkpoint(
        make_set(num_classes=3), "model.num_classes", "3", "loss.name", "ce_dice", change=has_lesion
    )
    path = draw(workplace / "a.png")
    assert run_predict(checkpoint, path) == 0
    expected = mhsvm.load_predictor(checkpoint, device="cpu")(path)
    assert expected.probability.shape == (3, 40, 56)
    with Image.open(workplace / "out/masks/a.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.array(mask), expected.mask)
        assert mask.getpalette()[:9] == class_palette()[:9]


def test_size_and_threshold_come_from_the_checkpoint(workplace, make_set, make_checkpoint):
    path = draw(workplace / "a.png")
    prepared_path = make_set(side=64)
    low, high = (
        mhsvm.load_predictor(
            make_checkpoint(
                prepared_path, "evaluation.threshold", threshold, path=f"{threshold}.pt", change=has_lesion
            ),
            device="cpu",
        )
        for threshold in ("0.3", "0.7")
    )
    assert low.size == high.size == (64, 64)
    assert low(path).mask.mean() > high(path).mask.mean()
    np.testing.assert_array_equal(low(path).mask, low(path).probability >= np.float32(0.3))


def test_a_published_file_says_what_was_assumed(workplace, make_published_mhs_vm, capsys):
    path = draw(workplace / "a.png")
    checkpoint = make_published_mhs_vm()
    assert run_predict(checkpoint, path) == 0
    printed = capsys.readouterr().out
    assert "note: the file does not hold its gate threshold: taking its authors' 0.4" in printed
    preprocessing = "taking images of 256 x 256, minmax normalization and threshold 0.5"
    assert f"note: the file does not record its preprocessing: {preprocessing}" in printed
    assert run_predict(checkpoint, path, "other", "--gate-threshold", "0.1") == 0
    assert "gate" not in capsys.readouterr().out
    assert mhsvm.load_predictor(checkpoint, device="cpu").size == (256, 256)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source", "absent"], "there is no image and no folder absent"),
        (["--source", "empty"], "there is no image in empty; looked for BMP, PNG, JPEG, TIFF"),
        (["--out", "full"], "full exists and is not empty: choose another one with --out"),
        (["--out", "photos/a.png"], "photos/a.png exists and is not empty"),
        (["--p", "absent.pt"], "there is no checkpoint absent.pt"),
        (["--p", "photos/a.png"], "photos/a.png is not a checkpoint or is incomplete"),
        (["--gate-threshold", "0.1"], "ultralight_vm_unet has no gate: leave --gate-threshold out"),
        (["--device", "tpu9"], "device 'tpu9' cannot be used here"),
    ],
)
def test_what_a_user_can_do_wrong(workplace, checkpoint, capsys, options, message):
    draw(workplace / "photos/a.png")
    draw(workplace / "full/a.png")
    (workplace / "empty").mkdir()
    given = ["--p", str(checkpoint), "--source", "photos", "--out", "out", *options]
    assert run(command.main, given) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}")
    assert not (workplace / "out").exists()


def test_the_predictor_refuses_a_device_that_is_not_there(checkpoint):
    with pytest.raises(ValueError, match="device 'tpu9' cannot be used here"):
        mhsvm.load_predictor(checkpoint, device="tpu9")


def test_the_predictor_runs_what_was_trained(workplace, checkpoint):
    path = draw(workplace / "a.png", size=(32, 32))
    trained = load_trained(checkpoint, device=torch.device("cpu"))
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    stretched = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255
    with torch.inference_mode():
        expected = trained.model(stretched).sigmoid()[0, 0]
    probability = mhsvm.load_predictor(checkpoint, device="cpu")(path).probability
    np.testing.assert_allclose(probability, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("evaluation.threshold", "0.4"),
            r"averaged have equal thresholds; received .*best\.pt with 0\.5 and other\.pt with 0\.4\."
            " Predict with each alone or give a threshold for all",
        ),
        (("data.normalization", "imagenet"), "equal normalizations; received .* with minmax and .* with imagenet"),
    ],
)
def test_checkpoints_that_do_not_go_together(workplace, make_set, make_checkpoint, settings, message):
    prepared_path = make_set()
    paths = [make_checkpoint(prepared_path), make_checkpoint(prepared_path, *settings, path="other.pt")]
    with pytest.raises(ValueError, match=message):
        mhsvm.load_predictor(paths, device="cpu")
    if "threshold" in settings[0]:
        assert mhsvm.load_predictor(paths, device="cpu", threshold=0.45).threshold == 0.45


def test_sizes_that_do_not_go_together(workplace, make_set, make_checkpoint):
    small, large = make_checkpoint(make_set()), make_checkpoint(make_set("large", side=64), path="large.pt")
    with pytest.raises(
        ValueError, match=r"equal image sizes; received .* with \(32, 32\) and large\.pt with \(64, 64\)"
    ):
        mhsvm.load_predictor([small, large], device="cpu")


def test_a_threshold_is_a_probability(checkpoint):
    with pytest.raises(ValueError, match="the threshold is a probability, 0 to 1; received 127"):
        mhsvm.load_predictor(checkpoint, device="cpu", threshold=127)
    with pytest.raises(ValueError, match="a predictor needs at least one checkpoint; received none"):
        mhsvm.load_predictor([], device="cpu")


def test_several_checkpoints_and_views_are_averaged(workplace, make_set, make_checkpoint):
    def other_weights(content):
        has_lesion(content)
        content["model"]["head.bias"] += 1

    prepared_path = make_set()
    paths = [
        make_checkpoint(prepared_path, change=has_lesion),
        make_checkpoint(prepared_path, path="other.pt", change=other_weights),
    ]
    picture = draw(workplace / "a.png")
    options = ["--p", *map(str, paths), "--tta", "turns", "--probabilities", "--threshold", "0.4", "--device", "cpu"]
    assert command.main([*options, "--source", str(picture), "--out", "out"]) == 0
    views = mhsvm.load_predictor(paths[0], device="cpu", augmentation="turns")(picture).probability
    others = mhsvm.load_predictor(paths[1], device="cpu", augmentation="turns")(picture).probability
    expected = (views + others) / 2
    with Image.open(workplace / "out/probabilities/a.png") as written:
        assert written.mode == "L"
        np.testing.assert_allclose(np.array(written) / 255, expected, atol=0.5 / 255 + 1e-5)
    with Image.open(workplace / "out/masks/a.png") as mask:
        clear = np.abs(expected - 0.4) > 1e-5
        np.testing.assert_array_equal((np.array(mask) > 0)[clear], (expected >= 0.4)[clear])


def test_masks_are_cleaned_if_asked_and_areas_are_those_of_the_masks(workplace, checkpoint):
    for seed in range(3):
        draw(workplace / f"photos/{seed}.png", size=(60 + seed, 50), seed=seed)
    assert run_predict(checkpoint, "photos", "plain") == 0
    assert run_predict(checkpoint, "photos", "clean", "--largest-component", "--fill-holes") == 0
    plain, clean = (read_areas(workplace / folder) for folder in ("plain", "clean"))
    assert any(int(row["regions"]) > 1 for row in plain)
    for folder, rows in (("plain", plain), ("clean", clean)):
        for row in rows:
            with Image.open(workplace / folder / "masks" / row["image"]) as image:
                mask = np.array(image) > 0
            parts, regions = ndimage.label(mask, np.ones((3, 3)))
            assert (int(row["pixels"]), int(row["regions"])) == (mask.sum(), regions)
            assert float(row["share"]) == pytest.approx(mask.mean(), abs=1e-6)
            assert (row["width"], row["height"], row["class"]) == ("50", str(mask.shape[0]), "1")
            if folder == "clean":
                assert regions == 1
                np.testing.assert_array_equal(ndimage.binary_fill_holes(mask), mask)


def test_contours_are_polygons_of_the_image(workplace, checkpoint):
    picture = draw(workplace / "a.png", size=(120, 90))
    assert run_predict(checkpoint, picture, "out", "--contours", "--largest-component") == 0
    content = json.loads((workplace / "out/contours/a.json").read_text())
    assert (content["image"], content["width"], content["height"]) == ("a.png", 90, 120)
    (region,) = content["regions"]
    with Image.open(workplace / "out/masks/a.png") as mask:
        lesion = np.array(mask) > 0
    outer = np.array(region["outer"])
    assert (outer >= 0).all()
    assert (outer <= [90, 120]).all()
    rows, columns = np.nonzero(lesion)
    # an outline runs at most a pixel away from the outermost centres
    np.testing.assert_allclose(outer.min(axis=0), [columns.min() + 0.5, rows.min() + 0.5], atol=1)
    np.testing.assert_allclose(outer.max(axis=0), [columns.max() + 0.5, rows.max() + 0.5], atol=1)
    assert region["area"] == pytest.approx(lesion.sum(), rel=0.05)
    with Image.open(workplace / "out/contours/a.png") as drawn:
        assert (drawn.mode, drawn.size) == ("RGBA", (90, 120))
        alpha = np.array(drawn)[..., 3] > 0
    edge = ndimage.binary_dilation(lesion, iterations=2) & ~ndimage.binary_erosion(lesion, iterations=3)
    assert 0 < alpha.sum() < alpha.size / 2
    assert (alpha & ~edge).sum() < 0.1 * alpha.sum()


def test_several_classes_have_a_probability_an_area_and_contours_each(workplace, make_set, make_checkpoint):
    checkpoint = make_checkpoint(
        make_set(num_classes=3), "model.num_classes", "3", "loss.name", "ce_dice", change=has_lesion
    )
    draw(workplace / "photos/a.png")
    assert run_predict(checkpoint, "photos", "out", "--probabilities", "--contours") == 0
    names = ["a.class-0.png", "a.class-1.png", "a.class-2.png"]
    assert files_below(workplace / "out/probabilities") == names
    levels = []
    for name in names:
        with Image.open(workplace / "out/probabilities" / name) as image:
            levels.append(np.array(image).astype(int))
    assert np.abs(sum(levels) - 255).max() <= 2
    with Image.open(workplace / "out/masks/a.png") as image:
        mask = np.array(image)
    assert [(row["class"], int(row["pixels"])) for row in read_areas(workplace / "out")] == [
        ("1", (mask == 1).sum()),
        ("2", (mask == 2).sum()),
    ]
    regions = json.loads((workplace / "out/contours/a.json").read_text())["regions"]
    assert {region["class"] for region in regions} == set(np.unique(mask[mask > 0]).tolist())


def test_what_a_network_cannot_do(workplace, checkpoint, capsys):
    draw(workplace / "a.png")
    with pytest.raises(SystemExit, match="2"):
        run_predict(checkpoint, "a.png", "out", "--tta", "mirror")
    assert "argument --tta: invalid choice: 'mirror'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="the threshold is a probability, 0 to 1; received 127"):
        run_predict(checkpoint, "a.png", "out", "--threshold", "127")
    assert not (workplace / "out").exists()
