"""Miniatures of the official archives, names exact, from zip files to prepared sets; and sets taken for others."""

import re

import numpy as np
import pytest

from mhsvm.prepare.native import open_native_masks
from mhsvm.prepare.official_ids import set_of_ids
from mhsvm.prepare.pipeline import prepare_set
from mhsvm.prepare.sets import find_set
from mhsvm.store import PreparedSet


@pytest.fixture
def archives(pack, picture, lesion):
    """Write zip files: archives({"NAME.zip": ["member", …]}); a member that is a mask by its name shows a lesion."""

    def write(content):
        paths = []
        for name, members in content.items():
            files = {}
            for member in members if isinstance(members, list) else []:
                number = int(re.findall(r"\d+", member.split("/")[-1])[0])
                make = lesion if re.search(r"_(seg|lesion|A\d\d|MV|ST)|Y_|label", member, re.I) else picture
                kind = {"jpg": "JPEG", "bmp": "BMP", "png": "PNG"}[member.lower().rpartition(".")[2]]
                files[member] = make(number, format=kind)
            paths.append(pack(files if isinstance(members, list) else members, name))
        return paths

    return write


def table(path):
    """Id -> subset and group, of a prepared set."""
    with PreparedSet.open(path) as prepared:
        rows = zip(prepared.subsets, prepared.groups, strict=True)
        return prepared.name, dict(zip(prepared.ids, rows, strict=True))


def test_isic2016(archives, tmp_path):
    part = "ISBI2016_ISIC_Part1_{}_{}.zip".format
    paths = archives(
        {
            part("Training", "Data"): [f"ISBI2016_ISIC_Part1_Training_Data/ISIC_000000{n}.jpg" for n in (0, 1)],
            part("Training", "GroundTruth"): [
                f"ISBI2016_ISIC_Part1_Training_GroundTruth/ISIC_000000{n}_Segmentation.png" for n in (0, 1)
            ],
            part("Test", "Data"): ["ISBI2016_ISIC_Part1_Test_Data/ISIC_0000003.jpg"],
            part("Test", "GroundTruth"): ["ISBI2016_ISIC_Part1_Test_GroundTruth/ISIC_0000003_Segmentation.png"],
            # masks of this part are beside its images
            "ISBI2016_ISIC_Part3B_Test_Data.zip": [
                "ISBI2016_ISIC_Part3B_Test_Data/ISIC_0000003.jpg",
                "ISBI2016_ISIC_Part3B_Test_Data/ISIC_0000003_Segmentation.png",
            ],
        }
    )
    summary = prepare_set("isic2016", paths, tmp_path / "set.h5", size=16)
    assert summary.left_out == {"ISIC 2016 part3b": 2}
    expected = {"ISIC_0000000": ("train", ""), "ISIC_0000001": ("train", ""), "ISIC_0000003": ("test", "")}
    assert table(summary.path) == ("isic2016", expected)


def test_isic2018_with_its_validation_and_test_images(archives, tmp_path):
    content = {}
    for subset, id_ in (("Training", 0), ("Validation", 12255), ("Test", 36347)):
        content[f"ISIC2018_Task1-2_{subset}_Input.zip"] = [f"ISIC2018_Task1-2_{subset}_Input/ISIC_{id_:07d}.jpg"]
        content[f"ISIC2018_Task1_{subset}_GroundTruth.zip"] = [
            f"ISIC2018_Task1_{subset}_GroundTruth/ISIC_{id_:07d}_segmentation.png"
        ]
    summary = prepare_set("isic2018", archives(content), tmp_path / "set.h5", size=16)
    expected = {"ISIC_0000000": ("train", ""), "ISIC_0012255": ("val", ""), "ISIC_0036347": ("test", "")}
    assert table(summary.path) == ("isic2018", expected)


HAM = {
    "HAM10000_images_part_1.zip": ["ISIC_0024306.jpg", "ISIC_0024307.jpg"],
    "HAM10000_images_part_2.zip": ["ISIC_0029306.jpg"],
    "HAM10000_segmentations_lesion_tschandl.zip": [
        f"HAM10000_segmentations_lesion_tschandl/ISIC_00{n}_segmentation.png" for n in (24306, 24307, 29306)
    ],
}
METADATA = "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset\n" + "".join(
    f"HAM_000{lesion},ISIC_00{n},nv,histo,50.0,male,back,vidir_modern\n"
    for n, lesion in ((24306, 7), (24307, 8), (29306, 7), (34320, 9))
)


def test_ham10000_with_its_lesions(archives, pack, tmp_path):
    noise = {"__MACOSX/HAM10000_segmentations_lesion_tschandl/._ISIC_0025504_segmentation.png": b"\0" * 233}
    noise |= {"HAM10000_metadata.csv": METADATA.encode()}
    paths = archives({**HAM, "beside.zip": noise})
    summary = prepare_set("ham10000", paths, tmp_path / "set.h5", size=16)
    expected = {f"ISIC_00{n}": ("", f"HAM_000{lesion}") for n, lesion in ((24306, 7), (24307, 8), (29306, 7))}
    assert table(summary.path) == ("ham10000", expected)
    assert summary.facts[0].startswith("16 x 16 is no size")
    without = prepare_set("ham10000", paths[:-1], tmp_path / "without.h5", size=16)
    assert without.facts[0].startswith("no HAM10000_metadata.csv among the files: without it, images of one lesion")


@pytest.mark.parametrize("name", ["HAM10000_metadata", "HAM10000_metadata.tab"])
def test_the_table_of_ham10000_as_the_publisher_shows_it(archives, lay_out, tmp_path, name):
    text = METADATA.replace(",", "\t") if name.endswith("tab") else METADATA
    folder = lay_out({name: text.encode(), "groups.csv": b"id,group\nISIC_0024307,HAM_0007\n"})
    summary = prepare_set("ham10000", [*archives(HAM), folder], tmp_path / "set.h5", size=16)
    assert {group for _, group in table(summary.path)[1].values()} == {"HAM_0007"}


def test_files_that_are_packed_twice_are_read_once(archives, tmp_path):
    twice = ["trainx/X_{}.bmp", "trainy/Y_{}.bmp", "ph2_dataset/trainx/X_{}.bmp", "ph2_dataset/trainy/Y_{}.bmp"]
    names = [name.format(n) for name in twice for n in range(1, 201, 99)]
    summary = prepare_set("ph2", archives({"PH2.zip": names}), tmp_path / "set.h5", size=16)
    assert table(summary.path) == ("ph2", dict.fromkeys(("1", "100", "199"), ("", "")))
    assert [line.split(", such")[0] for line in summary.skipped] == [
        "6 further copies of an image or mask, under the same name and with the same bytes"
    ]

    with open_native_masks([tmp_path / "PH2.zip"], ["1", "199"], source="ph2", num_classes=1) as native:
        assert sorted(native) == ["1", "199"]


def test_files_of_one_name_that_differ_are_a_problem(lay_out, picture, lesion, tmp_path):
    files = {f"{place}/IMD002/IMD002_lesion.bmp": lesion(format="BMP") for place in "ab"}
    files |= {f"{place}/IMD002/IMD002.bmp": picture(number, format="BMP") for number, place in enumerate("ab")}
    with pytest.raises(ValueError, match=r"id that occurs twice: 2\n    IMD002: own/a/IMD002/IMD002.bmp, own/b/"):
        prepare_set("ph2", [lay_out(files)], tmp_path / "set.h5", size=16)


RATED = {
    "ISIC_0000000": ["A04_T3_S1_5463934bbae47821f88025ad"],
    "ISIC_0000004": ["A04_T1_S2_545d08aabae47821f8802550", "A06_T1_S1_54ea8ac3bae47871b5e00cd2"],
    "ISIC_0000226": ["A06_T1_S1_568bba009fc3c126c063ff73", "A06_T3_S1_5661f0409fc3c147bbd6a626"],
}
CONSENSUS = ["ST_ST_ST_ST", "MV_MV_MV_MV"]


@pytest.fixture
def imaplusplus(lay_out, pack, picture, lesion):
    """The files of the record on Zenodo, and images of the archive; the consensus is another disc than the others."""
    masks = {f"segs/{id_}_{name}.png": lesion(n) for id_, names in RATED.items() for n, name in enumerate(names)}
    several = [id_ for id_, names in RATED.items() if len(names) > 1]
    masks |= {f"segs/{id_}_{name}.png": lesion(4 - n) for id_ in several for n, name in enumerate(CONSENSUS)}
    metadata = "isic_id,attribution,lesion_id,patient_id\nISIC_0000000,Anonymous,IL_7,IP_3\nISIC_0000004,A,IL_8,\n"
    files = {f"images/{id_}.JPG": picture(n, format="JPEG") for n, id_ in enumerate(RATED)}
    lists = {"train": "ISIC_0000004.JPG", "val": "ISIC_0000226", "test": ""}
    files |= {
        f"{name}.csv": f"{'image' if 'JPG' in ids else 'ISIC_id'}\n{ids}\n".encode() for name, ids in lists.items()
    }
    files |= {"img_metadata.csv": (metadata + "ISIC_0000226,A,,\nISIC_0036347,A,IL_1,\n").encode()}
    files |= {"seg_metadata.csv": b"ISIC_id,img_filename\n", "iaa_metrics_image.csv": b"image\n"}
    return [lay_out(files), pack(masks, "segs.zip")]


def test_imaplusplus_with_all_raters(imaplusplus, lesion, tmp_path):
    summary = prepare_set("imaplusplus", imaplusplus, tmp_path / "set.h5", size=(20, 30))
    assert (summary.raters, summary.num_ratings, summary.num_several) == (("A04", "A06", "A06-2"), 5, 2)
    assert summary.skipped == (
        "2 consensus masks by STAPLE, which a test computes from those of the raters, such as "
        "segs.zip/segs/ISIC_0000004_ST_ST_ST_ST.png",
    )
    name, rows = table(summary.path)
    expected = {"ISIC_0000000": ("", "IP_3"), "ISIC_0000004": ("train", "IL_8"), "ISIC_0000226": ("val", "")}
    assert (name, rows) == ("imaplusplus", expected)
    with PreparedSet.open(summary.path) as prepared:
        ratings = prepared.ratings
        assert [list(ratings.of(row)) for row in range(3)] == [["A04"], ["A04", "A06"], ["A06", "A06-2"]]
        assert list(ratings.skills) == ["S1", "S2", "S1", "S1", "S1"]
        assert list(ratings.tools) == ["T3", "T1", "T1", "T1", "T3"]
        # the primary mask is the only one, or the consensus by majority, whose disc is the largest here
        np.testing.assert_array_equal(prepared.masks([0])[0], ratings.of(0)["A04"])
        areas = [int((prepared.masks([row])[0] > 0).sum()) for row in (1, 2)]
        assert areas[0] == areas[1] > max(int((mask > 0).sum()) for mask in ratings.of(1).values())


def test_native_masks_of_imaplusplus_are_the_primary_ones(imaplusplus, tmp_path):
    summary = prepare_set("imaplusplus", imaplusplus, tmp_path / "set.h5", size=(20, 30))
    with (
        PreparedSet.open(summary.path) as prepared,
        open_native_masks(imaplusplus, prepared.ids, source="imaplusplus", num_classes=1) as native,
    ):
        for row, id_ in enumerate(prepared.ids):
            np.testing.assert_array_equal(native.read(id_) * 255, prepared.masks([row])[0])


def test_imaplusplus_without_its_lists(imaplusplus, tmp_path):
    for name in ("train", "test"):
        (imaplusplus[0] / f"{name}.csv").unlink()
    summary = prepare_set("imaplusplus", imaplusplus, tmp_path / "set.h5", size=32)
    assert summary.facts[0] == "no train.csv, test.csv among the files: images have no official subset without it"
    assert summary.subsets == {"": 2, "val": 1}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("val.csv", "ISIC_id\nISIC_0000004\n", "id in the lists of two subsets: 1\n    ISIC_0000004: train and val"),
        ("val.csv", "site\narm\n", r"val\.csv: it has no column of ids, such as isic_id or image_id"),
        ("img_metadata.csv", "isic_id,lesion_id\n", r"img_metadata\.csv: it has no column patient_id"),
    ],
)
def test_bad_tables_of_imaplusplus(imaplusplus, tmp_path, name, text, message):
    (imaplusplus[0] / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        prepare_set("imaplusplus", imaplusplus, tmp_path / "set.h5", size=16)


PAIRS = {
    "isic2016": ("ISBI2016_ISIC_Part1_Test_Data/{}.jpg", "ISBI2016_ISIC_Part1_Test_GroundTruth/{}_Segmentation.png"),
    "isic2017": ("ISIC-2017_Training_Data/{}.jpg", "ISIC-2017_Training_Part1_GroundTruth/{}_segmentation.png"),
    "isic2018": ("ISIC2018_Task1-2_Test_Input/{}.jpg", "ISIC2018_Task1_Test_GroundTruth/{}_segmentation.png"),
    "ham10000": ("HAM10000_images_part_1/{}.jpg", "HAM10000_segmentations_lesion_tschandl/{}_segmentation.png"),
    "imaplusplus": ("images/{}.jpg", "segs/{}_A04_T3_S1_5463934bbae47821f88025ad.png"),
    "ph2": ("IMD002/IMD002_Dermoscopic_Image/IMD002.jpg", "IMD002/IMD002_lesion/IMD002_lesion.png"),
}


@pytest.mark.parametrize(("named", "actual"), [(one, other) for one in PAIRS for other in PAIRS if one != other])
def test_no_set_is_taken_for_another(lay_out, picture, lesion, tmp_path, named, actual):
    image, mask = (name.format("ISIC_0024306") for name in PAIRS[actual])
    source = lay_out({image: picture(format="JPEG"), mask: lesion()})
    with pytest.raises(
        ValueError, match=f"files of another set .*\n    \\d images and masks of .*: prepare {actual}\n"
    ):
        prepare_set(named, [source], tmp_path / "set.h5", size=16)


def test_files_of_another_task_have_no_set_to_prepare(lay_out, picture, tmp_path):
    source = lay_out({"ISIC2018_Task2_Training_GroundTruth_v3/ISIC_0000000_attribute_globules.png": picture()})
    with pytest.raises(ValueError, match="1 images and masks of ISIC 2018 task2: they have no masks of lesions"):
        prepare_set("isic2018", [source], tmp_path / "set.h5", size=16)


def test_the_ids_of_a_year_are_recognized(isic2017_set):
    with PreparedSet.open(isic2017_set.path) as prepared:
        training = [id_ for id_, subset in zip(prepared.ids, prepared.subsets, strict=True) if subset == "train"]
        assert set_of_ids(prepared.ids) == set_of_ids(training[::-1]) == "ISIC 2017"
    assert set_of_ids(training[1:]) is None


LAYOUTS = {
    "Kvasir-SEG": {
        "Kvasir-SEG/images/cju0.jpg": "",
        "Kvasir-SEG/masks/cju0.jpg": "",
        "Kvasir-SEG/kavsir_bboxes.json": "",
    },
    "CVC-ClinicDB": {"CVC-ClinicDB/Original/1.tif": "", "CVC-ClinicDB/Ground Truth/1.tif": ""},
    "BUSI": {
        f"Dataset_BUSI_with_GT/{kind}/{kind} (1){end}.png": "" for kind in ("benign", "normal") for end in ("", "_mask")
    },
    "nnU-Net": {
        "Dataset120_X/imagesTr/a_0000.png": "train",
        "Dataset120_X/labelsTr/a.png": "train",
        "Dataset120_X/imagesTs/b_0000.png": "test",
        "Dataset120_X/labelsTs/b.png": "test",
        "Dataset120_X/dataset.json": "train",
    },
    "mmsegmentation": {
        f"data/my/{kind}/{subset}/{subset}1{end}": subset
        for kind, end in (("img_dir", ".jpg"), ("ann_dir", ".png"))
        for subset in ("train", "val")
    },
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_other_sets(lay_out, picture, lesion, tmp_path, name):
    kinds = {"jpg": "JPEG", "tif": "TIFF", "png": "PNG"}
    files, is_mask = {}, re.compile(r"mask|Ground|labels|ann_dir")
    for path in LAYOUTS[name]:
        kind = kinds.get(path.rpartition(".")[2])
        # nnU-Net has the numbers of classes as levels, and an image without a lesion has an empty mask
        level = 1 if name == "nnU-Net" else 0 if "normal" in path else 255
        make = (lambda kind, level=level: lesion(4, level=level, format=kind)) if is_mask.search(path) else None
        files[path] = b"{}" if kind is None else (make or (lambda kind: picture(format=kind)))(kind)
    threshold = 0.5 if name == "Kvasir-SEG" else None
    summary = prepare_set("folder", [lay_out(files)], tmp_path / "set.h5", size=(20, 30), threshold=threshold)
    assert set(summary.subsets) == set(LAYOUTS[name].values())
    assert summary.num_samples == sum(bool(is_mask.search(path)) for path in files)
    assert summary.num_empty == (1 if name == "BUSI" else 0)
    with PreparedSet.open(summary.path) as prepared:
        lesions = [(prepared.masks([row])[0] >= 128).sum() for row in range(len(prepared))]
        expected = [0 if "normal" in id_ else 149 for id_ in prepared.ids]
        np.testing.assert_allclose(lesions, expected, atol=4)


@pytest.fixture
def busi(lay_out, picture, encode):
    """Two images, one with a mask in two parts."""
    masks = np.zeros((3, 20, 30), np.uint8)
    masks[0, :5, :5], masks[1, 4:10, 4:10], masks[2, 15:, 20:] = 255, 255, 255
    ends = {"(1)_mask": masks[0], "(1)_mask_1": masks[1], "(4)_mask": masks[2]}
    folder = "Dataset_BUSI_with_GT/benign/benign "
    files = {f"{folder}{end}.png": encode(mask) for end, mask in ends.items()}
    files |= {f"{folder}({number}).png": picture(number) for number in (1, 4)}
    return lay_out(files), [np.maximum(masks[0], masks[1]), masks[2]]


def test_several_masks_of_an_image_are_parts_of_one(busi, tmp_path):
    source, expected = busi
    with pytest.raises(ValueError, match=r"id that occurs twice: 1\n(.|\n)*masks of one image .* with `merge_masks`"):
        prepare_set("folder", [source], tmp_path / "set.h5", size=(20, 30))
    summary = prepare_set("folder", [source], tmp_path / "set.h5", size=(20, 30), merge_masks=True)
    (tmp_path / "set").symlink_to(source)
    assert find_set("set", tmp_path) == summary.path
    with PreparedSet.open(summary.path) as prepared:
        assert prepared.ids == ("benign (1)", "benign (4)")
        np.testing.assert_array_equal(prepared.masks(slice(None)), expected)
        assert prepared.attributes["merged_masks"] == 1
        arguments = {"source": "folder", "num_classes": 1, "merge_masks": True}
        with open_native_masks([source], prepared.ids, **arguments) as native:
            np.testing.assert_array_equal([native.read(id_) * 255 for id_ in prepared.ids], expected)


def test_wrong_parts_of_masks(busi, lesion, tmp_path):
    source, _ = busi
    with pytest.raises(ValueError, match="`merge_masks` is for lesion masks"):
        prepare_set("folder", [source], tmp_path / "set.h5", num_classes=2, merge_masks=True)
    (source / "Dataset_BUSI_with_GT/benign/benign (1)_mask_1.png").write_bytes(lesion(height=9))
    with pytest.raises(ValueError, match=r"benign \(1\): the image has 20 x 30 pixels, the mask 9 x 30 "):
        prepare_set("folder", [source], tmp_path / "set.h5", merge_masks=True)
    arguments = {"source": "folder", "num_classes": 1, "merge_masks": True}
    with (
        pytest.raises(ValueError, match="the parts of the mask have different sizes"),
        open_native_masks([source], ["benign (1)"], **arguments),
    ):
        pass
