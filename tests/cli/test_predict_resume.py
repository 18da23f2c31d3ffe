"""`mhsvm predict` goes on with a folder that was begun."""

import pytest

from mhsvm.cli import predict as command
from mhsvm.cli.main import run
from tests.fixtures.predicted import draw, has_lesion, read_areas, run_predict


def test_a_second_run_predicts_only_what_is_new_or_changed(workplace, checkpoint, capsys):
    for seed in range(3):
        draw(workplace / f"photos/{seed}.png", seed=seed)
    assert run_predict(checkpoint, "photos") == 0
    before = {path: path.stat().st_mtime_ns for path in (workplace / "out/masks").iterdir()}
    draw(workplace / "photos/1.png", size=(50, 44), seed=9)
    draw(workplace / "photos/3.png", seed=3)
    capsys.readouterr()
    assert run_predict(checkpoint, "photos") == 0
    assert "2 of 4 images are done and skipped" in capsys.readouterr().out
    written = {path.name for path in (workplace / "out/masks").iterdir() if before.get(path) != path.stat().st_mtime_ns}
    assert written == {"1.png", "3.png"}
    assert [(row["image"], row["height"]) for row in read_areas(workplace / "out")] == [
        ("0.png", "40"),
        ("1.png", "50"),
        ("2.png", "40"),
        ("3.png", "40"),
    ]


def test_a_run_that_was_killed_goes_on(workplace, checkpoint, capsys):
    for seed in range(3):
        draw(workplace / f"photos/{seed}.png", seed=seed)
    assert run_predict(checkpoint, "photos", "whole") == 0
    assert run_predict(checkpoint, "photos") == 0
    records = workplace / "out/predictions.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    # killed while it wrote the record of the second image, and one of its files is half there
    records.write_text(lines[0] + lines[1][:25])
    (workplace / "out/masks/1.png").write_bytes(b"half")
    (workplace / "out/areas.csv").unlink()
    capsys.readouterr()
    assert run_predict(checkpoint, "photos") == 0
    assert "1 of 3 images are done and skipped" in capsys.readouterr().out
    for name in ("masks/0.png", "masks/1.png", "masks/2.png", "areas.csv"):
        assert (workplace / "out" / name).read_bytes() == (workplace / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tta", "flips"], "out was begun with other settings: tta none, not flips. Give the same to go on, or"),
        (["--contours"], "out was begun with other settings: contours False, not True"),
        (["--threshold", "0.3"], "out was begun with other settings: threshold 0.5, not 0.3"),
        (["--source", "others"], "out was begun with other settings: source "),
        (["--p", "other.pt"], "out was begun with other settings: checkpoints ['best.pt "),
    ],
)
def test_other_settings_do_not_go_into_the_same_folder(workplace, make_checkpoint, make_set, capsys, options, message):
    prepared_path = make_set()
    checkpoint = make_checkpoint(prepared_path)
    make_checkpoint(prepared_path, path="other.pt", change=has_lesion)
    draw(workplace / "photos/a.png")
    draw(workplace / "others/a.png")
    assert run_predict(checkpoint, "photos") == 0
    given = ["--p", str(checkpoint), "--source", "photos", "--out", "out", "--device", "cpu", *options]
    assert run(command.main, given) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_results_are_not_renamed_under_way(workplace, checkpoint, capsys):
    draw(workplace / "photos/a.png")
    assert run_predict(checkpoint, "photos") == 0
    draw(workplace / "photos/a.bmp")
    with pytest.raises(ValueError, match=r"out holds the results of a\.png as a, but with the present images they are"):
        run_predict(checkpoint, "photos")


def test_missing_masks_and_damaged_records_are_done_again(workplace, checkpoint, capsys):
    for seed in range(3):
        draw(workplace / f"photos/{seed}.png", seed=seed)
    assert run_predict(checkpoint, "photos") == 0
    whole = {name: (workplace / "out/masks" / name).read_bytes() for name in ("0.png", "1.png", "2.png")}
    records = workplace / "out/predictions.jsonl"
    records.write_text(records.read_text().replace('"width"', "width", 1))
    (workplace / "out/masks/1.png").write_bytes(b"")
    (workplace / "out/overlays/2.jpg").unlink()
    capsys.readouterr()
    assert run_predict(checkpoint, "photos") == 0
    printed = capsys.readouterr().out
    assert "1 records of out are damaged; their images are done again" in printed
    assert "are done and skipped" not in printed
    assert {name: (workplace / "out/masks" / name).read_bytes() for name in whole} == whole
    assert len(read_areas(workplace / "out")) == 3
