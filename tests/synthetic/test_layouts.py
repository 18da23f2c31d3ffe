import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from mhsvm.store import SYNTHETIC_MARKER
from mhsvm.synthetic import generate_sample, list_layouts, write_synthetic_set


@pytest.fixture(scope="module")
def samples():
    return [generate_sample(seed=3, index=index, size=(96, 96)) for index in range(120)]


def files(folder):
    """All files but the marks, see `test_folders_of_synthetic_images_are_marked`."""
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [name for name in found if not name.endswith(SYNTHETIC_MARKER)]


def read(path):
    with Image.open(path) as image:
        return image.mode, np.asarray(image)


def test_types_and_values(samples):
    for image, mask in samples:
        assert (image.dtype, image.shape) == (np.uint8, (96, 96, 3))
        assert (mask.dtype, mask.shape) == (np.uint8, (96, 96))
        assert set(np.unique(mask)) == {0, 255}


def test_the_same_seed_and_index_draw_the_same_bytes():
    first, again = (generate_sample(seed=5, index=7, size=(64, 80)) for _ in range(2))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])


def test_seeds_and_indices_draw_different_scenes():
    images = [generate_sample(seed=s, index=i, size=(48, 48))[0].tobytes() for s in range(4) for i in range(4)]
    assert len(set(images)) == 16


@pytest.mark.parametrize("index", range(6))
def test_a_scene_is_the_same_at_every_size(index):
    small, large = (generate_sample(seed=0, index=index, size=(side, side)) for side in (64, 256))
    shrunk = np.asarray(Image.fromarray(large[0]).resize((64, 64), Image.Resampling.BOX), np.float32)
    assert np.abs(shrunk - small[0]).mean() < 8
    overlap = (large[1].reshape(64, 4, 64, 4).mean((1, 3)) > 127) == (small[1] > 127)
    assert overlap.mean() > 0.98


def test_lesion_shares_are_like_those_of_real_sets(samples):
    shares = np.array([(mask > 0).mean() for _, mask in samples])
    assert shares.min() > 0.018
    assert shares.max() < 0.61
    assert 0.14 < shares.mean() < 0.26
    assert np.percentile(shares, 90) > 0.3
    assert np.percentile(shares, 10) < 0.07


def test_some_lesions_touch_the_frame_but_not_most(samples):
    touching = sum(bool(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).any()) for _, mask in samples)
    assert 5 <= touching <= 60


def test_masks_are_where_the_lesion_is_drawn(samples):
    """Inside is darker than the skin next to it, and the mask's border is where the image changes."""
    contrasts, agreements = [], []
    for image, mask in samples:
        lesion = mask > 0
        near = ndimage.binary_dilation(lesion, iterations=8) & ~ndimage.binary_dilation(lesion, iterations=3)
        core = ndimage.binary_erosion(lesion, iterations=2)
        green = ndimage.median_filter(image[..., 1], 5).astype(np.float32)
        inside, outside = np.median(green[core]), np.median(green[near])
        contrasts.append(outside - inside)
        darker = green < (inside + outside) / 2
        agreements.append((darker == lesion)[near | lesion].mean())
    assert np.mean(np.array(contrasts) > 8) > 0.97
    assert np.mean(agreements) > 0.9


def test_skin_tones_run_from_light_to_dark(samples):
    tones = np.array([np.median(image[mask == 0], axis=0).mean() for image, mask in samples])
    assert tones.min() < 110
    assert tones.max() > 210


def test_a_frame_need_not_be_square():
    image, mask = generate_sample(seed=0, index=1, size=(64, 160))
    assert image.shape == (64, 160, 3)
    assert 0.01 < (mask > 0).mean() < 0.61


def test_isic2017_looks_like_the_official_archives(tmp_path):
    write_synthetic_set(layout="isic2017", num=11, seed=0, out=tmp_path / "set", size=(32, 48))
    found = files(tmp_path / "set")
    assert "ISIC-2017_Training_Data/ISIC_0000000.jpg" in found
    assert "ISIC-2017_Training_Data/ISIC_0000000_superpixels.png" in found
    assert "ISIC-2017_Training_Data/ISIC-2017_Training_Data_metadata.csv" in found
    assert "ISIC-2017_Test_v2_Part1_GroundTruth/ISIC_0000012_segmentation.png" in found
    counts = [
        sum(name.startswith(f"ISIC-2017_{subset}_Data/") and name.endswith(".jpg") for name in found)
        for subset in ("Training", "Validation", "Test_v2")
    ]
    assert counts == [8, 1, 2]
    assert sum(name.endswith("_segmentation.png") for name in found) == 11
    mode, mask = read(tmp_path / "set/ISIC-2017_Training_Part1_GroundTruth/ISIC_0000000_segmentation.png")
    assert (mode, mask.shape) == ("L", (32, 48))
    assert set(np.unique(mask)) == {0, 255}


def test_isic2018_looks_like_the_official_archives(tmp_path):
    write_synthetic_set(layout="isic2018", num=3, seed=0, out=tmp_path / "set", size=(32, 32))
    assert files(tmp_path / "set") == [
        "ISIC2018_Task1-2_Test_Input/ATTRIBUTION.txt",
        "ISIC2018_Task1-2_Test_Input/ISIC_0000002.jpg",
        "ISIC2018_Task1-2_Test_Input/LICENSE.txt",
        "ISIC2018_Task1-2_Training_Input/ATTRIBUTION.txt",
        "ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg",
        "ISIC2018_Task1-2_Training_Input/LICENSE.txt",
        "ISIC2018_Task1-2_Validation_Input/ATTRIBUTION.txt",
        "ISIC2018_Task1-2_Validation_Input/ISIC_0000001.jpg",
        "ISIC2018_Task1-2_Validation_Input/LICENSE.txt",
        "ISIC2018_Task1_Test_GroundTruth/ATTRIBUTION.txt",
        "ISIC2018_Task1_Test_GroundTruth/ISIC_0000002_segmentation.png",
        "ISIC2018_Task1_Test_GroundTruth/LICENSE.txt",
        "ISIC2018_Task1_Training_GroundTruth/ATTRIBUTION.txt",
        "ISIC2018_Task1_Training_GroundTruth/ISIC_0000000_segmentation.png",
        "ISIC2018_Task1_Training_GroundTruth/LICENSE.txt",
        "ISIC2018_Task1_Validation_GroundTruth/ATTRIBUTION.txt",
        "ISIC2018_Task1_Validation_GroundTruth/ISIC_0000001_segmentation.png",
        "ISIC2018_Task1_Validation_GroundTruth/LICENSE.txt",
    ]


def test_ph2_looks_like_the_official_tree(tmp_path):
    write_synthetic_set(layout="ph2", num=2, seed=0, out=tmp_path / "set", size=(32, 32))
    folder = "PH2Dataset/PH2 Dataset images"
    assert files(tmp_path / "set") == [
        f"{folder}/IMD002/IMD002_Dermoscopic_Image/IMD002.bmp",
        f"{folder}/IMD002/IMD002_lesion/IMD002_lesion.bmp",
        f"{folder}/IMD002/IMD002_roi/IMD002_R1_Label3.bmp",
        f"{folder}/IMD003/IMD003_Dermoscopic_Image/IMD003.bmp",
        f"{folder}/IMD003/IMD003_lesion/IMD003_lesion.bmp",
        "PH2Dataset/PH2_dataset.txt",
    ]
    image, mask = generate_sample(seed=0, index=1, size=(32, 32))
    case = tmp_path / "set" / folder / "IMD003"
    assert np.array_equal(read(case / "IMD003_Dermoscopic_Image/IMD003.bmp")[1], image)
    mode, stored = read(case / "IMD003_lesion/IMD003_lesion.bmp")
    assert mode == "1"
    assert np.array_equal(stored, mask > 0)


def test_folder_has_equal_stems(tmp_path):
    write_synthetic_set(layout="folder", num=2, seed=0, out=tmp_path / "set", size=(32, 32))
    assert files(tmp_path / "set") == [
        "images/case_0000.jpg",
        "images/case_0001.jpg",
        "masks/case_0000.png",
        "masks/case_0001.png",
    ]


@pytest.mark.parametrize("layout", list_layouts())
def test_a_longer_set_begins_like_a_shorter_one(tmp_path, layout):
    for num in (1, 2):
        write_synthetic_set(layout=layout, num=num, seed=4, out=tmp_path / str(num), size=(32, 32))
    name = next(name for name in files(tmp_path / "1") if name.endswith((".jpg", "Image/IMD002.bmp")))
    assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_an_empty_folder_is_filled_with_the_usual_rights(tmp_path):
    (tmp_path / "set").mkdir()
    write_synthetic_set(layout="folder", num=1, seed=0, out=tmp_path / "set", size=(32, 32))
    (tmp_path / "plain").mkdir()
    assert files(tmp_path / "set") == ["images/case_0000.jpg", "masks/case_0000.png"]
    assert (tmp_path / "set").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("layout", "folders"),
    [
        ("folder", {".", "images", "masks"}),
        ("isic2017", {".", "ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"}),
        ("ph2", {".", "PH2Dataset", "PH2Dataset/PH2 Dataset images"}),
    ],
)
def test_folders_of_synthetic_images_are_marked(tmp_path, layout, folders):
    write_synthetic_set(layout=layout, num=1, seed=0, out=tmp_path / "set", size=(32, 32))
    marks = list((tmp_path / "set").rglob(SYNTHETIC_MARKER))
    assert {path.parent.relative_to(tmp_path / "set").as_posix() for path in marks} == folders
    assert "mhsvm synthesize has generated them" in marks[0].read_text(encoding="utf-8")


def test_a_run_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def stop(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mhsvm.synthetic.layouts.generate_sample", stop)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic_set(layout="folder", num=1, seed=0, out=tmp_path / "set", size=(32, 32))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "isic"}, "unknown layout 'isic'; known are isic2017, isic2018, ph2, folder"),
        ({"num": 0}, "a set has at least 1 image, got 0"),
        ({"seed": -1}, "a seed is 0 or more, got -1"),
        ({"size": (16, 256)}, "height and width are at least 32 pixels, got 16 x 256"),
    ],
)
def test_bad_arguments(tmp_path, change, message):
    arguments = {"layout": "folder", "num": 1, "seed": 0, "out": tmp_path / "set", "size": (32, 32)}
    with pytest.raises(ValueError, match=message):
        write_synthetic_set(**arguments | change)
    assert not (tmp_path / "set").exists()


def test_something_at_out_is_not_overwritten(tmp_path):
    (tmp_path / "note.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match="exists and is not an empty folder: name another, or remove it"):
        write_synthetic_set(layout="folder", num=1, seed=0, out=tmp_path)
    with pytest.raises(FileExistsError, match="note.txt exists"):
        write_synthetic_set(layout="folder", num=1, seed=0, out=tmp_path / "note.txt")


def test_raters_differ_a_little_and_a_habit_is_one_of_a_rater(tmp_path):
    write_synthetic_set(layout="folder", num=6, seed=1, out=tmp_path / "set", size=(64, 64), num_raters=3)
    assert len(files(tmp_path / "set")) == 6 + 3 * 6
    masks = np.stack(
        [
            [read(tmp_path / f"set/masks/rater{rater}/case_{index:04d}.png")[1] > 0 for index in range(6)]
            for rater in (1, 2, 3)
        ]
    )
    own = np.stack([generate_sample(seed=1, index=index, size=(64, 64))[1] > 0 for index in range(6)])
    for first, second in [(0, 1), (0, 2), (1, 2)]:
        dice = 2 * (masks[first] & masks[second]).sum() / (masks[first].sum() + masks[second].sum())
        assert 0.8 < dice < 0.99
    assert (2 * (masks & own).sum((1, 2, 3)) / (masks.sum((1, 2, 3)) + own.sum()) > 0.85).all()
    with pytest.raises(ValueError, match="several raters are for layout 'folder'"):
        write_synthetic_set(layout="ph2", num=1, seed=1, out=tmp_path / "ph2", num_raters=2)
