"""`mhsvm predict` of folders, zip files and lists."""

from pathlib import Path

from PIL import Image

from mhsvm.cli import predict as command
from tests.fixtures.predicted import draw, files_below, read_areas, run_predict


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


def test_results_below_the_source_are_not_taken_for_images(workplace, checkpoint, capsys):
    draw(workplace / "photos/a.png")
    draw(workplace / "photos/.thumbnails/a.png", seed=1)
    for _ in range(2):
        assert run_predict(checkpoint, "photos", "photos/masks") == 0
        assert [row["image"] for row in read_areas(workplace / "photos/masks")] == ["a.png"]
    # nor by a run into another folder
    assert run_predict(checkpoint, "photos", "other") == 0
    assert files_below(workplace / "other/masks") == ["a.png"]
    assert (
        "left out: 1 folders of results of this program, read only if given themselves, such as photos/masks"
        in capsys.readouterr().out
    )


def test_zip_files_and_lists_give_the_same_masks(workplace, checkpoint, pack):
    paths = [draw(workplace / f"photos/{seed}.png", seed=seed) for seed in range(3)]
    archive = pack({f"x/{path.name}": path.read_bytes() for path in paths[:2]})
    (workplace / "list.txt").write_text("".join(f"{path}\n" for path in paths[1:]))
    assert run_predict(checkpoint, "photos", "whole") == 0
    assert run_predict(checkpoint, archive, "zip") == 0
    assert run_predict(checkpoint, "list.txt", "list") == 0
    assert files_below(workplace / "zip/masks") == ["x/0.png", "x/1.png"]
    assert files_below(workplace / "list/masks") == ["1.png", "2.png"]
    for result in ("zip/masks/x/0.png", "zip/masks/x/1.png", "list/masks/1.png", "list/masks/2.png"):
        name = Path(result).name
        assert (workplace / result).read_bytes() == (workplace / "whole/masks" / name).read_bytes()
    several = ["--p", str(checkpoint), "--source", *map(str, paths[:2]), "--out", "two", "--device", "cpu"]
    assert command.main(several) == 0
    assert files_below(workplace / "two/masks") == ["0.png", "1.png"]


def test_images_of_formats_that_are_not_read_are_errors(workplace, checkpoint, capsys):
    draw(workplace / "photos/a.webp")
    for name in ("b.svg", "c.svg", "d.nef", "e.txt"):
        (workplace / "photos" / name).write_text("x")
    assert run_predict(checkpoint, "photos") == 1
    captured = capsys.readouterr()
    assert "1 masks in out/masks" in captured.out
    assert "error: 3 of 4 images could not be read:\n  1 .nef images, a format that is not read" in captured.err
    assert "\n  2 .svg images, a format that is not read, such as photos/b.svg" in captured.err


def test_members_of_archives_with_names_too_long_for_files_are_named(workplace, checkpoint, pack, capsys):
    content = draw(workplace / "a.png").read_bytes()
    archive = pack({"a.png": content, f"{'x' * 400}.png": content})
    assert run_predict(checkpoint, archive, "out") == 1
    assert files_below(workplace / "out/masks") == ["a.png"]
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "xxx" in line)
    assert line.endswith(
        f"{'x' * 400}.png: its name is too long for the file of its mask, mostly over 255 bytes: shorten it"
    )
