"""Sets of several raters through the commands: prepare, test, score, compare and report."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mhsvm.cli import compare, prepare, report, score, test
from mhsvm.evaluation.summary import read_summary
from mhsvm.store import PredictionSet, PreparedSet, Rating, Sample, write_set
from mhsvm.synthetic import write_synthetic_set
from tests.fixtures.tested import run_test

NUM, RATERS = 10, ("rater1", "rater2", "rater3")


@pytest.fixture
def rated(workplace, capsys):
    """A prepared set of three raters; the first image has one mask, and the second two."""
    write_synthetic_set(layout="folder", num=NUM, seed=2, out="lesions", size=(32, 32), num_raters=3)
    for missing in ("rater2/case_0000", "rater3/case_0000", "rater3/case_0001"):
        (workplace / f"lesions/masks/{missing}.png").unlink()
    arguments = ["folder", "--source", "lesions", "--out", "data/lesions.h5", "--size", "32", "--raters"]
    assert prepare.main(arguments) == 0
    assert "27 masks by 3 raters (rater1, rater2, rater3); 9 images have two or more" in capsys.readouterr().out
    return workplace / "data/lesions.h5"


def rows_of(folder):
    with (folder / "raters.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_test_compares_with_each_rater(rated, make_checkpoint, workplace, capsys):
    checkpoint = make_checkpoint(rated)
    run_test(checkpoint, "--split", "all", "--no-boundary", "--out", "first")
    printed = capsys.readouterr().out
    assert "3 raters, 27 masks of 10 images, 9 of them with two or more" in printed
    assert (workplace / "first/log.txt").read_text().count("all but rater2") == 2
    described = read_summary(workplace / "first/summary.json")["raters"]
    assert {name: each["num_images"] for name, each in described["against"].items()} == {
        **{"majority": 9, "staple": 9},
        **{"rater1": 10, "rater2": 9, "rater3": 8},
    }
    rows = rows_of(workplace / "first")
    with PreparedSet.open(rated) as prepared, PredictionSet.open(workplace / "first/predictions.h5") as predictions:
        of_raters = prepared.ratings.of(prepared.ids.index("case_0003"))
        (probability,) = predictions.probability([predictions.ids.index("case_0003")])
    masks = {name: mask >= 128 for name, mask in of_raters.items()}
    masks["prediction"] = probability >= 127.5
    votes = sum(masks[name].astype(int) for name in RATERS)
    masks["majority"], masks["all but rater1"] = votes >= 2, masks["rater2"] & masks["rater3"]
    for mask, reference in (
        ("prediction", "rater2"),
        ("prediction", "majority"),
        ("prediction", "all but rater1"),
        ("rater1", "all but rater1"),
        ("rater1", "rater3"),
    ):
        (found,) = (
            each for each in rows if [each[k] for k in ("id", "mask", "reference")] == ["case_0003", mask, reference]
        )
        pair = masks[mask], masks[reference]
        expected = [(pair[0] & pair[1]).sum(), (pair[0] & ~pair[1]).sum(), (~pair[0] & pair[1]).sum()]
        assert [int(found[name]) for name in ("tp", "fp", "fn")] == expected, (mask, reference)
    # the primary masks, which the other metrics are measured against, are those of the first rater
    with (workplace / "first/cases.csv").open() as file:
        own = {row["id"]: row["tp"] for row in csv.DictReader(file)}
    assert own == {row["id"]: row["tp"] for row in rows if (row["mask"], row["reference"]) == ("prediction", "rater1")}
    check_comparison_and_page(workplace, described, capsys)
    changed = (workplace / "first/raters.csv").read_text().replace("case_0003", "case_0004", 1)
    (workplace / "first/raters.csv").write_text(changed)
    with pytest.raises(ValueError, match=r"raters\.csv changed after the measurement"):
        read_summary(workplace / "first/summary.json")


def check_comparison_and_page(workplace, described, capsys):
    """Compare the test with itself, and make its page; making another test would take as long again."""
    shutil.copytree(workplace / "first", workplace / "second")
    assert compare.main(["first", "second", "--out", "compared"]) == 0
    printed = capsys.readouterr().out
    assert "against majority, 9 images:" in printed
    assert "against rater3, 8 images:" in printed
    against = json.loads((workplace / "compared/comparison.json").read_text())["against"]
    assert list(against) == ["majority", "staple", *RATERS]
    first, second = against["rater2"]["runs"]
    expected = described["against"]["rater2"]["metrics"]["dsc_per_image"]
    assert first["metrics"]["dsc_per_image"] == pytest.approx(expected, abs=1e-12)
    assert second["differences"]["dsc_per_image"]["value"] == 0.0
    assert report.main(["first"]) == 0
    page = (workplace / "first/report.html").read_text()
    assert "Against 3 raters and their consensus" in page
    assert "<th scope=row>all but rater1</th><td>prediction</td><td>9</td>" in page


def test_score_of_masks_against_raters(rated, workplace, capsys):
    truth = workplace / "lesions/masks"
    # the prediction is the mask of the second rater, or of the first
    (workplace / "pred").mkdir()
    for number in range(NUM):
        rater = "rater1" if number == 0 else "rater2"
        content = (truth / rater / f"case_{number:04d}.png").read_bytes()
        (workplace / f"pred/case_{number:04d}.png").write_bytes(content)
    assert score.main(["--pred", "pred", "--truth", "lesions/masks", "--raters", "--out", "mine"]) == 0
    assert "3 raters, 27 masks of 10 images" in capsys.readouterr().out
    described = read_summary(workplace / "mine/summary.json")["raters"]
    assert described["against"]["rater2"]["num_images"] == 9
    assert described["against"]["rater2"]["metrics"]["dsc_per_image"] == 1.0
    assert described["against"]["rater2"]["metrics"]["hd95_per_image"] == 0.0
    among = described["among"]["rater2"]
    assert among["rater"]["metrics"] == among["prediction"]["metrics"]
    assert described["among"]["rater1"]["rater"]["metrics"]["dsc_per_image"] < 1
    # the names of raters in another order make another primary mask
    arguments = ["--pred", "pred", "--truth", "lesions/masks", "--out", "mine", "--no-boundary", "--raters"]
    assert score.main([*arguments, "rater2", "rater1", "rater3"]) == 0
    assert read_summary(workplace / "mine/summary.json")["metrics"]["dsc_per_image"] == 1.0
    with pytest.raises(ValueError, match=r"no mask of a rater: 1\n    rater9: none among"):
        score.main([*arguments, "rater1", "rater9"])
    with pytest.raises(ValueError, match="target without a prediction(.|\n)*masks of several raters need `raters`"):
        score.main(arguments[:-1])


def test_scores_of_raters_at_other_sizes(workplace, capsys):
    for name, side in (("pred/a.png", 8), ("truth/a_rater1.png", 8), ("truth/a_rater2.png", 16)):
        mask = np.zeros((side, side), np.uint8)
        mask[: side // 2] = 255
        (workplace / name).parent.mkdir(exist_ok=True)
        Image.fromarray(mask).save(workplace / name)
    assert score.main(["--pred", "pred", "--truth", "truth", "--raters", "--out", "mine"]) == 0
    against = read_summary(workplace / "mine/summary.json")["raters"]["against"]
    assert [each["metrics"]["dsc_per_image"] for each in against.values()] == [1.0] * 4


def test_a_part_without_rated_masks_has_no_raters(workplace, make_checkpoint):
    image, mask = np.zeros((32, 32, 3), np.uint8), np.full((32, 32), 255, np.uint8)
    ratings = [(), (), (Rating("x", mask),)]
    samples = [
        Sample(f"i{row}", image + np.uint8(90 * row), mask, (32, 32), "train" if own else "test", ratings=own)
        for row, own in enumerate(ratings)
    ]
    path = workplace / "data/lesions.h5"
    write_set(path, samples, name="s", size=(32, 32), num_classes=1, attributes={}, total=3, raters=("x",))
    run_test(make_checkpoint(path, split="all"), "--split", "official", "--no-boundary", "--out", "own")
    assert "raters" not in read_summary(workplace / "own/summary.json")
    assert not (workplace / "own/raters.csv").exists()


def test_help_names_the_option(capsys):
    for command in (prepare, score):
        with pytest.raises(SystemExit):
            command.main(["--help"])
        assert "--raters [NAME ...]" in capsys.readouterr().out
    assert test.parser().prog.endswith("test")
