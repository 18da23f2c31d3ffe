"""`mhsvm predict`: a mask and an overlay for every image that can be read, and a name for every one that cannot."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mhsvm
from mhsvm.build import load_trained
from mhsvm.cli import predict as command
from mhsvm.cli.main import run
from mhsvm.report.overlay import PREDICTION, class_palette


def run_predict(checkpoint, source, out="out", *options):
    return command.main(["--p", str(checkpoint), "--source", str(source), "--out", out, "--device", "cpu", *options])


def draw(path: Path, *, size=(40, 56), seed=0):
    """A dark square on bright ground, (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(150, 256, size=(*size, 3), dtype=np.uint8)
    image[8:24, 10:30] //= 3
    Image.fromarray(image).save(path)
    return path


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def has_lesion(content):
    """Of fresh weights: let about half of the pixels be lesion."""
    content["model"]["head.weight"] *= 50


@pytest.fixture
def checkpoint(make_set, make_checkpoint):
    return make_checkpoint(make_set(), change=has_lesion)


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


def test_images_of_one_stem_are_kept_apart(workplace, checkpoint):
    for seed, name in enumerate(("a.png", "a.bmp", "a.png.bmp", "b.png", "sub/a.png")):
        draw(workplace / "photos" / name, size=(30 + seed, 30), seed=seed)
    assert run_predict(checkpoint, "photos") == 0
    names = ["a.bmp.png", "a.png.bmp.png", "a.png.png", "b.png", "sub/a.png"]
    assert files_below(workplace / "out/masks") == names
    heights = []
    for name in names:
        with Image.open(workplace / "out/masks" / name) as mask:
            heights.append(mask.height)
    assert heights == [31, 32, 30, 33, 34]


def test_unreadable_images_are_all_named_and_nothing_else_is_lost(workplace, checkpoint, capsys):
    draw(workplace / "photos/a.png")
    draw(workplace / "photos/z.png")
    (workplace / "photos/m.jpg").write_bytes(b"not an image")
    whole = draw(workplace / "photos/n.png").read_bytes()
    (workplace / "photos/n.png").write_bytes(whole[: len(whole) // 2])
    assert run_predict(checkpoint, "photos", "out", "--batch-size", "2") == 1
    assert files_below(workplace / "out/masks") == ["a.png", "z.png"]
    captured = capsys.readouterr()
    assert "error: 2 of 4 images could not be read:\n  photos/m.jpg: no BMP, " in captured.err
    assert "\n  photos/n.png: " in captured.err
    assert "2 masks in out/masks" in captured.out


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
    preprocessing = "taking images of 256 x 256, minmax normalisation and threshold 0.5"
    assert f"note: the file does not record its preprocessing: {preprocessing}" in printed
    assert run_predict(checkpoint, path, "other", "--gate-threshold", "0.1") == 0
    assert "gate" not in capsys.readouterr().out
    assert mhsvm.load_predictor(checkpoint, device="cpu").size == (256, 256)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source", "absent"], "there is no image and no folder absent"),
        (["--source", "empty"], "there is no image in empty; looked for .jpg, .jpeg, .png, .bmp"),
        (["--out", "full"], "full exists and is not empty: choose another folder with --out"),
        (["--out", "photos/a.png"], "photos/a.png exists and is not empty"),
        (["--p", "absent.pt"], "there is no checkpoint absent.pt"),
        (["--p", "photos/a.png"], "photos/a.png is no checkpoint or is cut short"),
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
        (("data.normalization", "imagenet"), "equal normalisations; received .* with minmax and .* with imagenet"),
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
