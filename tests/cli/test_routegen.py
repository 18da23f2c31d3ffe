import pytest
import torch

from mhsvm.cli.routegen import main


@pytest.fixture(autouse=True)
def _working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_writes_the_published_file(shared, tmp_path):
    assert main(["--w", "96", "--h", "64", "--out", "deep/routes.pt"]) == 0
    stages = torch.load(tmp_path / "deep" / "routes.pt", weights_only=True)
    published = torch.load(shared / "fixtures" / "routes_64x96.pt", weights_only=True)
    assert isinstance(stages, list)
    assert len(stages) == 4
    for i, stage in enumerate(stages):
        assert list(stage) == [f"layer_{i}.cxsz_tpinds"]
        assert torch.equal(stage[f"layer_{i}.cxsz_tpinds"], published[f"stage{i}"])


def test_default_name_tells_size_and_depth(tmp_path):
    main(["--w", "48", "--h", "32", "--depth", "2"])
    assert [path.name for path in tmp_path.iterdir()] == ["routes_32x48_depth2.pt"]
    assert len(torch.load("routes_32x48_depth2.pt", weights_only=True)) == 2


def test_same_bytes_each_time(tmp_path):
    main(["--w", "32", "--h", "32", "--out", "a.pt"])
    main(["--w", "32", "--h", "32", "--out", "b.pt"])
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_prints_the_hierarchy(capsys):
    main(["--w", "96", "--h", "64"])
    assert capsys.readouterr().out.splitlines() == [
        "image 64 x 96, patterns C X S Z, two routes each",
        "stage 0: map 16 x 24, 384 cells",
        "stage 1: map 8 x 12, 96 cells",
        "stage 2: map 4 x 6, 24 cells",
        "stage 3: map 2 x 3, 6 cells",
        "written: routes_64x96_depth4.pt",
    ]


def test_size_that_does_not_divide_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="w must be divisible by 32 at this depth, got 90: use 64 or 96"):
        main(["--w", "90", "--h", "64"])
    assert list(tmp_path.iterdir()) == []


def test_height_does_not_clash_with_help(capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["-h"])
    assert exit_info.value.code == 0
    assert "height of the image in pixels" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--w", "64"], ["--h", "64"]])
def test_both_sides_are_needed(arguments, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert "the following arguments are required" in capsys.readouterr().err
