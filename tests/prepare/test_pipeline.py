"""Preparing: what comes out of real and made archives, and that nothing comes out of bad ones."""

import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mhsvm.prepare import conversion
from mhsvm.prepare.pipeline import LIMIT, MASK_THRESHOLD, prepare_set
from mhsvm.prepare.resize import mask_coverage, resize_image
from mhsvm.store import PreparedSet
from mhsvm.synthetic import write_synthetic_set


@pytest.fixture
def own(picture, lesion):
    """Four good pairs of a ready-split own set, by name."""
    files = {}
    for seed, subset in enumerate(["train", "train", "val", "test"]):
        files[f"{subset}/images/{seed}.png"] = picture(seed)
        files[f"{subset}/masks/{seed}.png"] = lesion(seed)
    return files


def wrong_with(source, tmp_path, **arguments):
    """The message about a source; holds that nothing was written."""
    out = tmp_path / "out" / "set.h5"
    with pytest.raises(
        ValueError, match=r"^the source of .*set\.h5 has problems, and nothing was written:\n"
    ) as caught:
        prepare_set("folder", [source], out, size=16, **arguments)
    assert not out.parent.exists() or list(out.parent.iterdir()) == []
    return str(caught.value)


def test_own_set(own, lay_out, tmp_path):
    source = lay_out(own)
    summary = prepare_set("folder", [source], tmp_path / "own.h5", name="own", size=(16, 12))
    assert summary.path == tmp_path / "own.h5"
    assert (summary.num_samples, summary.num_empty) == (4, 0)
    assert summary.subsets == {"train": 2, "val": 1, "test": 1}
    with PreparedSet.open(summary.path) as prepared:
        assert (prepared.name, prepared.size, prepared.num_classes) == ("own", (16, 12), 1)
        assert prepared.ids == ("0", "1", "2", "3")
        assert prepared.subsets == ("train", "train", "val", "test")
        assert prepared.original_sizes.tolist() == [[20, 30]] * 4
        assert prepared.checksum == summary.checksum
        assert set(prepared.attributes) == {
            "mhsvm_version",
            "image_resizing",
            "mask_resizing",
            "sources",
            "source",
            "pairs",
        }
        for row, subset in enumerate(prepared.subsets):
            image = np.asarray(Image.open(source / subset / "images" / f"{row}.png"))
            mask = np.asarray(Image.open(source / subset / "masks" / f"{row}.png")) > 0
            np.testing.assert_array_equal(prepared.images([row])[0], resize_image(image, (16, 12)))
            np.testing.assert_array_equal(prepared.masks([row])[0], mask_coverage(mask, (16, 12)))


def test_a_folder_is_named_after_its_file(own, lay_out, tmp_path):
    summary = prepare_set("folder", [lay_out(own, name="downloads")], tmp_path / "mine.h5", size=16)
    with PreparedSet.open(summary.path) as prepared:
        assert (summary.name, prepared.name, prepared.source, prepared.is_synthetic) == (
            "mine",
            "mine",
            "folder",
            False,
        )
    # it does not claim to be a public set whose ids it has not
    assert prepare_set("folder", [lay_out(own)], tmp_path / "isic2017.h5", size=16).name == "folder-isic2017"


@pytest.mark.parametrize(
    ("ending", "name"), [("HAM10000_segmentations_lesion_tschandl", "folder-isic2018"), ("masks", "folder-isic2018")]
)
def test_a_folder_does_not_claim_to_be_another_public_set(lay_out, picture, lesion, tmp_path, ending, name):
    files = {"images/ISIC_0024306.jpg": picture(), f"{ending}/ISIC_0024306_segmentation.png": lesion()}
    summary = prepare_set("folder", [lay_out(files)], tmp_path / "isic2018.h5", size=16)
    assert summary.name == name


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("source", "name"), [("isic2017", None), ("folder", "mine")])
def test_synthetic_images_are_called_so(tmp_path, packed, source, name):
    write_synthetic_set(layout=source, num=3, seed=0, out=tmp_path / "set", size=(32, 32))
    paths = sorted(path for path in (tmp_path / "set").iterdir() if path.is_dir())
    if packed:
        paths = [Path(shutil.make_archive(str(tmp_path / path.name), "zip", path)) for path in paths]
    summary = prepare_set(source, paths, tmp_path / "set.h5", name=name, size=16)
    assert summary.name == f"synthetic-{name or source}"
    with PreparedSet.open(summary.path) as prepared:
        assert (prepared.name, prepared.source, prepared.is_synthetic) == (summary.name, source, True)


ISIC = [f"ISIC_000000{number}" for number in range(3)]
OF_2016 = ("ISBI2016_ISIC_Part1_Training_Data/{}.jpg", "ISBI2016_ISIC_Part1_Training_GroundTruth/{}_Segmentation.png")
OF_2018 = ("ISIC2018_Task1-2_Training_Input/{}.jpg", "ISIC2018_Task1_Training_GroundTruth/{}_segmentation.png")
HAM10000 = ("HAM10000_images_part_1/{}.jpg", "HAM10000_segmentations_lesion_tschandl/{}_segmentation.png")
PLAIN = ("images/{}.jpg", "masks/{}_segmentation.png")


@pytest.mark.parametrize(
    ("source", "ids", "names", "message"),
    [
        ("isic2017", ISIC, OF_2016, "6 images and masks of ISIC 2016 part1: prepare isic2016"),
        ("isic2018", ISIC, OF_2016, "6 images and masks of ISIC 2016 part1"),
        (
            "isic2018",
            ["ISIC_0024306"],
            HAM10000,
            "2 images and masks of HAM10000: prepare ham10000",
        ),
        ("isic2017", ISIC, OF_2018, "4 images and masks of ISIC 2018 task1"),
        (
            "isic2018",
            ["ISIC_0024306", "ISIC_0034320"],
            PLAIN,
            "2 pairs such as own/masks/ISIC_0024306_segmentation.png ",
        ),
        (
            "isic2018",
            ["ISIC_0024306"],
            PLAIN,
            "are those of HAM10000, not of ISIC 2018: prepare ham10000",
        ),
        ("isic2017", ISIC, ("images/{}.jpg", "masks/{}_Segmentation.png"), "are those of ISIC 2016, not of ISIC 2017"),
    ],
)
def test_another_public_set_is_named(lay_out, picture, lesion, tmp_path, source, ids, names, message):
    files = {names[0].format(id_): picture() for id_ in ids} | {names[1].format(id_): lesion() for id_ in ids}
    with pytest.raises(ValueError, match="files of another set than the one that was named") as caught:
        prepare_set(source, [lay_out(files)], tmp_path / "set.h5", size=16)
    assert message.replace("4 images", "3 images") in str(caught.value)
    assert not (tmp_path / "set.h5").exists()


@pytest.mark.parametrize("names", [OF_2016, HAM10000])
def test_public_sets_can_be_prepared_as_folders(lay_out, picture, lesion, tmp_path, names):
    files = {names[0].format("ISIC_0024306"): picture(), names[1].format("ISIC_0024306"): lesion()}
    summary = prepare_set("folder", [lay_out(files)], tmp_path / "set.h5", name="other", size=16)
    assert summary.name == "other"
    assert summary.subsets == ({"train": 1} if names is OF_2016 else {"": 1})


def test_the_folder_around_a_set_may_have_any_name(lay_out, picture, lesion, tmp_path):
    files = {OF_2018[0].format(id_): picture() for id_ in ISIC} | {OF_2018[1].format(id_): lesion() for id_ in ISIC}
    beside = {f"{folder}/{ISIC[0]}_x.png": lesion() for folder in ("ISIC2018_Task2_Training_GroundTruth_v3", "notes")}
    beside |= {OF_2016[0].format(ISIC[0]): picture(), "ISIC2018_Task2_Training_GroundTruth_v3/LICENSE.txt": b""}
    for name in ("isic2017_2018", "isic_2016_test_stuff", "isic2017_training_and_test", "ISIC-2017_Training_Data"):
        source = lay_out(files | beside, name=name)
        summary = prepare_set("isic2018", [source], tmp_path / f"{name}.h5", size=16)
        assert summary.subsets == {"train": 3}
        assert summary.left_out["ISIC 2018 task2"] == summary.left_out["ISIC 2016 part1"] == 1


def test_folder_zip_and_number_of_workers_give_the_same_set(own, lay_out, pack, tmp_path):
    checksums = {
        prepare_set("folder", sources, tmp_path / f"{number}.h5", size=16, num_workers=workers).checksum
        for number, (sources, workers) in enumerate([([lay_out(own)], 1), ([lay_out(own)], 7), ([pack(own)], 2)])
    }
    assert len(checksums) == 1


def test_classes(lay_out, encode, picture, tmp_path):
    levels = np.zeros((20, 30), np.uint8)
    levels[4:12, 6:18], levels[12:, :3] = 2, 255
    source = lay_out({"images/a.png": picture(), "masks/a.png": encode(levels)})
    summary = prepare_set("folder", [source], tmp_path / "own.h5", size=(10, 15), num_classes=3)
    assert summary.num_empty == 0
    with PreparedSet.open(summary.path) as prepared:
        assert prepared.num_classes == 3
        expected = levels[::2, ::2].copy()
        expected[6:, 1] = 0  # half of these pixels is ignored: among equals the class wins
        np.testing.assert_array_equal(prepared.masks([0])[0], expected)


def test_masks_without_lesion_are_counted(own, lay_out, lesion, encode, picture, tmp_path):
    own["val/masks/2.png"] = lesion(level=0)
    assert prepare_set("folder", [lay_out(own)], tmp_path / "own.h5", size=16).num_empty == 1
    ignored = np.full((20, 30), 255, np.uint8)
    files = {"images/a.png": picture(), "masks/a.png": encode(ignored)}
    files |= {"images/b.png": picture(1), "masks/b.png": lesion(level=1)}
    summary = prepare_set("folder", [lay_out(files, name="classes")], tmp_path / "c.h5", size=16, num_classes=3)
    assert (summary.num_empty, summary.num_only_ignored, summary.absent) == (1, 1, (2,))


@pytest.mark.parametrize("first", [0, 255])
def test_lesion_masks_are_no_class_masks(own, lay_out, lesion, encode, tmp_path, first):
    own["train/masks/0.png"] = encode(np.full((20, 30), first, np.uint8))
    message = wrong_with(lay_out(own), tmp_path, num_classes=2)
    assert "class masks that hold nothing but 0 and 255: 1\n    all 4 masks, such as own/" in message
    assert "fix: in a class mask 255 means ignore. If they are lesion masks, give `num_classes` 1 or " in message


def test_empty_class_masks_are_allowed_and_their_classes_are_absent(own, lay_out, lesion, tmp_path):
    own |= {name: lesion(level=0) for name in own if "masks" in name}
    summary = prepare_set("folder", [lay_out(own)], tmp_path / "own.h5", size=16, num_classes=3)
    assert (summary.num_empty, summary.num_only_ignored, summary.absent) == (4, 0, (1, 2))


def test_all_problems_of_names_and_headers_in_one_message_before_decoding(
    own, lay_out, picture, lesion, tmp_path, monkeypatch
):
    own |= {
        "train/images/alone.png": picture(),
        "train/masks/lost.png": lesion(),
        "train/images/0.jpg": picture(format="JPEG"),
        "val/images/text.png": picture(),
        "val/masks/text.png": b"no image",
        "test/images/small.png": picture(),
        "test/masks/small.png": lesion(height=10, width=15),
        "test/images/side.png": picture(),
        "test/masks/side.jpg": lesion(height=30, width=20, format="JPEG"),
    }
    monkeypatch.setattr(conversion, "decode_image", pytest.fail)
    message = wrong_with(lay_out(own), tmp_path)
    for line in (
        "id that occurs twice: 1\n    0: own/train/images/0.jpg, own/train/images/0.png\n",
        "image without a mask: 1\n    alone: own/train/images/alone.png\n",
        "mask without an image: 1\n    lost: own/train/masks/lost.png\n",
        "unreadable file: 1\n    own/val/masks/text.png: no BMP, PNG, JPEG, TIFF, WebP, ",
        "mask and image of different sizes: 1\n    small: the image has 20 x 30 pixels, the mask 10 x 15",
    ):
        assert line in message


def test_all_problems_of_contents_in_one_message(own, lay_out, picture, lesion, tmp_path):
    own |= {
        "val/images/cut.png": picture()[:60],
        "val/masks/cut.png": lesion(),
        "val/images/jpeg.png": picture(),
        "val/masks/jpeg.jpg": lesion(format="JPEG"),
        "test/images/side.png": picture(),
        "test/masks/side.png": lesion(height=30, width=20),
    }
    message = wrong_with(lay_out(own), tmp_path)
    for line in (
        "unreadable file: 1\n    own/val/images/cut.png: ",
        "mask with other levels than black and white: 1\n    own/val/masks/jpeg.jpg: ",
        "    fix: threshold it at half and save it as PNG (a JPEG always has gray levels); for class indices give ",
        "mask and image of different sizes: 1\n    side: the image has 20 x 30 pixels, the mask 30 x 20",
    ):
        assert line in message


def test_masks_that_were_resized_smoothly_need_a_threshold(lay_out, encode, picture, lesion, tmp_path):
    hard = np.zeros((40, 60), np.uint8)
    hard[10:30, 14:46] = 255
    soft = Image.fromarray(hard).resize((30, 20), Image.Resampling.BICUBIC)
    files = {f"train/images/{name}.png": picture() for name in "ab"}
    files |= {"train/masks/a.png": encode(soft), "train/masks/b.jpg": encode(soft, "JPEG")}
    source = lay_out(files)
    message = wrong_with(source, tmp_path)
    assert "mask with other levels than black and white: 2" in message
    assert "Or prepare the set with `threshold` 0.5" in message
    summary = prepare_set("folder", [source], tmp_path / "soft.h5", size=(20, 30), threshold=0.5)
    with PreparedSet.open(summary.path) as prepared:
        assert prepared.attributes[MASK_THRESHOLD] == 0.5
        for mask in prepared.masks([0, 1]):
            np.testing.assert_array_equal(mask, hard[::2, ::2])


def test_level_that_is_no_class(lay_out, encode, picture, tmp_path):
    levels = np.tile(np.arange(5, dtype=np.uint8), (20, 6))
    message = wrong_with(lay_out({"images/a.png": picture(), "masks/a.png": encode(levels)}), tmp_path, num_classes=3)
    assert "class mask with a level that is no class: 1\n    own/masks/a.png: levels 3, 4\n" in message


def test_unsound_archive(own, pack, tmp_path):
    message = wrong_with(pack(own | {"../outside.png": b"1", "bomb.png": bytes(40 * 2**20)}), tmp_path)
    assert "path that leaves the archive: 1\n    own.zip/../outside.png" in message
    assert "zip bomb" in message
    assert not (tmp_path.parent / "outside.png").exists()


def test_member_that_is_not_as_declared(own, tmp_path):
    path = tmp_path / "own.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in own.items():
            archive.writestr(name, content)
    content = path.read_bytes()
    first = own["train/images/0.png"]
    path.write_bytes(content.replace(first, first[:-20] + bytes(20)))
    assert "unreadable file: 1\n    own.zip/train/images/0.png: cannot be read as it is declared" in wrong_with(
        path, tmp_path
    )


def test_broken_link(own, lay_out, tmp_path):
    source = lay_out(own)
    (source / "val" / "images" / "2.png").unlink()
    (source / "val" / "images" / "2.png").symlink_to(tmp_path / "absent.png")
    message = wrong_with(source, tmp_path)
    assert "unreadable file: 1\n    own/val/images/2.png: cannot be read as it is declared: " in message
    assert "No such file or directory" in message


def test_wrong_arguments(own, lay_out, tmp_path):
    source, out = lay_out(own), tmp_path / "own.h5"
    out.write_text("kept")
    with pytest.raises(FileExistsError, match=r"own\.h5 exists already; give `overwrite` to replace it"):
        prepare_set("folder", [source], out)
    assert out.read_text() == "kept"
    assert prepare_set("folder", [source], out, size=16, overwrite=True).num_samples == 4
    with pytest.raises(ValueError, match=r"one file; .* is a folder: give such as .*folder\.h5"):
        prepare_set("folder", [source], tmp_path, overwrite=True)
    with pytest.raises(ValueError, match="1 to 255 classes, because 255 means ignore; got 256"):
        prepare_set("folder", [source], tmp_path / "x.h5", num_classes=256)
    with pytest.raises(ValueError, match="at least 1 worker is needed; got 0"):
        prepare_set("folder", [source], tmp_path / "x.h5", num_workers=0)
    with pytest.raises(ValueError, match="unknown source 'isic'"):
        prepare_set("isic", [source], tmp_path / "x.h5")


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGKILL])
def test_ended_halfway(lay_out, lesion, picture, tmp_path, ended_by):
    # Enough large images for seconds of work.
    large, mask = picture(height=2000, width=3000, format="JPEG"), lesion(height=2000, width=3000)
    source = lay_out({f"images/{number}.jpg": large for number in range(150)})
    lay_out({f"masks/{number}.png": mask for number in range(150)})
    out = tmp_path / "out" / "own.h5"
    script = Path(__file__).parents[2] / "scripts" / "prepare.py"
    process = subprocess.Popen(
        [sys.executable, script, "folder", "--source", source, "--out", out, "--size", "16"],
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests themselves run in the background, an interrupt would be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (out.parent.exists() and list(out.parent.iterdir())):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(ended_by)
    errors = process.communicate(timeout=20)[1]
    assert not out.exists()
    if ended_by == signal.SIGINT:
        assert (process.returncode, errors.splitlines()[-1]) == (130, "interrupted")
        assert "Traceback" not in errors
        assert list(out.parent.iterdir()) == []
    else:
        assert [path.suffix for path in out.parent.iterdir()] == [".partial"]
        small = lay_out({"images/a.png": picture(), "masks/a.png": lesion()}, name="small")
        prepare_set("folder", [small], out, size=16)
        assert list(out.parent.iterdir()) == [out]


def test_isic2017_all_of_it(isic2017_set, shared):
    assert isic2017_set.subsets == {"train": 2000, "val": 150}
    assert isic2017_set.num_empty == 0
    assert isic2017_set.seconds < 60
    with PreparedSet.open(isic2017_set.path) as prepared:
        assert (prepared.name, prepared.size) == ("isic2017", (256, 256))
        assert list(prepared.ids) == sorted(prepared.ids)
        assert [line.split("  ")[1] for line in prepared.attributes["sources"].splitlines()] == [
            "ISIC-2017_Training_Data.zip",
            "ISIC-2017_Training_Part1_GroundTruth.zip",
            "ISIC-2017_Validation_Data.zip",
            "ISIC-2017_Validation_Part1_GroundTruth.zip",
        ]
        training = [row for row, subset in enumerate(prepared.subsets) if subset == "train"]
        test_part = training[1400:]
        lesion_pixels = int((prepared.masks(test_part) >= 128).sum())
        assert len(test_part) * 256 * 256 == 39_321_600
        assert lesion_pixels == pytest.approx(5_912_000, rel=1e-3)
        assert round(100 * lesion_pixels / 39_321_600, 2) == 15.03
        row = prepared.ids.index("ISIC_0001769")
        with zipfile.ZipFile(shared / "data" / "ISIC-2017_Validation_Data.zip") as archive:
            image = Image.open(archive.open("ISIC-2017_Validation_Data/ISIC_0001769.jpg"))
            np.testing.assert_array_equal(prepared.images([row])[0], np.asarray(image))


def test_isic2017_native(isic2017_set, shared, tmp_path):
    summary = prepare_set("isic2017", [shared / "data" / "ISIC-2017_native_sample.zip"], tmp_path / "native.h5")
    assert summary.subsets == {"val": 4}
    with PreparedSet.open(summary.path) as native, PreparedSet.open(isic2017_set.path) as squashed:
        assert (native.original_sizes > 500).all()
        rows = [squashed.ids.index(id_) for id_ in native.ids]
        # The same pictures went through another resizing and JPEG at quality 75: near, not equal.
        difference = np.abs(native.images(slice(None)).astype(int) - squashed.images(rows))
        assert difference.mean() < 3
        assert ((native.masks(slice(None)) >= 128) == (squashed.masks(rows) >= 128)).mean() > 0.995


def test_ph2_half_size_and_native(shared, tmp_path):
    half = prepare_set("ph2", [shared / "data" / "PH2Dataset_half_size.zip"], tmp_path / "half.h5")
    native = prepare_set("ph2", [shared / "data" / "PH2Dataset_native_sample.zip"], tmp_path / "native.h5")
    assert (half.num_samples, half.subsets, half.num_empty) == (200, {"": 200}, 0)
    assert native.num_samples == 3
    with PreparedSet.open(half.path) as first, PreparedSet.open(native.path) as second:
        assert second.ids == ("IMD002", "IMD003", "IMD242")
        assert (second.original_sizes > 500).all()
        rows = [first.ids.index(id_) for id_ in second.ids]
        assert np.abs(first.images(rows).astype(int) - second.images(slice(None))).mean() < 3
        assert np.abs(first.masks(rows).astype(int) - second.masks(slice(None))).mean() < 1


def test_pairs_of_formats_that_are_not_read_are_problems(own, lay_out, tmp_path):
    source = lay_out({**own, "val/images/x.svg": b"", "val/masks/x.svg": b"", "val/masks/0.npy": b"", "val/y.psd": b""})
    message = wrong_with(source, tmp_path)
    assert "image of a format that is not read: 2\n    own/val/images/x.svg\n    own/val/masks/x.svg\n" in message
    assert "left out: 2 .svg images, a format that is not read, such as own/val/images/x.svg" in message
    for name in ("images", "masks"):
        (source / "val" / name / "x.svg").unlink()
    # another file of the same image is read, and other folders are not part of the set
    summary = prepare_set("folder", [source], tmp_path / "out.h5")
    assert [line.partition(",")[0] for line in summary.skipped] == ["1 .npy images", "1 .psd images"]


def test_the_first_images_are_never_taken_for_the_whole_set(lay_out, picture, lesion, tmp_path):
    files = {}
    for seed, (subset, name) in enumerate(
        [("train", n) for n in "abcde"] + [("val", "f"), ("test", "g"), ("test", "h")]
    ):
        files |= {f"{subset}/images/{name}.png": picture(seed), f"{subset}/masks/{name}.png": lesion(seed)}
    source = lay_out(files)
    summary = prepare_set("folder", [source], tmp_path / "few.h5", name="own", size=16, limit=5)
    assert summary.subsets == {"train": 2, "val": 1, "test": 2}
    with PreparedSet.open(summary.path) as prepared:
        assert (prepared.name, prepared.attributes[LIMIT]) == ("own-first-5", "5 of 8")
        assert prepared.ids == ("a", "b", "f", "g", "h")
    whole = prepare_set("folder", [source], tmp_path / "own.h5", name="own", size=16, limit=8)
    assert (whole.name, whole.num_samples) == ("own", 8)
    with PreparedSet.open(whole.path) as prepared:
        assert LIMIT not in prepared.attributes
    with pytest.raises(ValueError, match="`limit` is a number of images, 1 or more; received 0"):
        prepare_set("folder", [source], tmp_path / "none.h5", limit=0)
