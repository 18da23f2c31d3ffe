"""The page of results and the records that it is made from."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from mhsvm.cli.main import run
from mhsvm.config import load_config
from results import main
from results_page import read_published, results_page
from results_records import find_runs, read_records, read_run

ROOT = Path(__file__).parents[2]
PUBLISHED = [
    {"model": "Theirs", "set": "isic2017", "protocol": "of theirs", "iou": "", "dsc": "0.9", "source": "a paper"}
]


@pytest.fixture
def make_run(tmp_path):
    """Write the files of a training of two epochs and its tests."""

    def make(name: str, *settings: str, dsc: float = 0.5, sets: tuple[str, ...] = ("isic2017",), done: int = 2) -> Path:
        folder = tmp_path / "results" / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text(load_config(None, ("train.epochs", "2", *settings)).dump())
        (folder / "metrics.jsonl").write_text('{"epoch": 1}\n' * done)
        times = [{"epoch": 1, "seconds": 3600.4, "device": "Card", "processes": 2, "torch": "9.9"}] * 2
        (folder / "times.jsonl").write_text("".join(json.dumps(line) + "\n" for line in times))
        (folder / "checkpoints/best.pt").write_bytes(name.encode())
        for set_name in sets:
            metrics = {"miou": dsc - 0.1, "dsc": dsc, "miou_per_image": dsc - 0.2, "dsc_per_image": dsc + 0.1}
            summary = {
                "metrics": metrics,
                "protocol": {
                    "set": {"name": set_name, "checksum": "c" * 64, "size": [256, 256]},
                    "split": "wu-sorted" if set_name == "isic2017" else "all",
                    "split_hash": "a" * 64,
                    "num_images": 600,
                    "trained_on": 0,
                    "chosen_on": 0,
                    "threshold": 0.5,
                },
                "checkpoint": {"file": "best.pt", "sha256": hashlib.sha256(name.encode()).hexdigest()},
            }
            test = folder / "tests" / set_name
            test.mkdir(parents=True)
            (test / "summary.json").write_text(json.dumps(summary))
        return folder

    return make


def page_of(*folders: Path) -> str:
    return results_page([read_run(folder)[0] for folder in folders], PUBLISHED)


def test_seeds_share_a_row_that_names_everything(make_run):
    folders = [make_run(f"seed{seed}", "run.seed", str(seed), dsc=0.8 + seed / 100) for seed in (0, 2)]
    page = page_of(*folders)
    assert "## isic2017\n" in page
    assert "### wu-sorted, sha256 aaaaaaaaaaaa" in page
    assert "600 test images at 256 x 256, set cccccccccccc, threshold 0.5." in page
    (row,) = [line for line in page.splitlines() if line.startswith("| ultralight")]
    assert row == (
        "| ultralight_vm_unet, random initialization | isic2017, wu-sorted | 2 epochs, batch 8, AdamW 0.001, "
        "CosineAnnealingLR | 0, 2 | float32 | 2 x Card, torch 9.9 | 2 h 0 min | 0.7100 ± 0.0141 | 0.8100 ± 0.0141 | "
        "0.6100 ± 0.0141 | 0.9100 ± 0.0141 |"
    )
    assert "| Theirs | of theirs | - | 0.9 | a paper |" in page


def test_different_settings_have_rows_of_their_own(make_run):
    changes = [
        ("model.ultralight_vm_unet.branches", "2"),
        ("train.precision", "bfloat16"),
        ("train.clip_norm", "1"),
        ("optimizer.AdamW.weight_decay", "0.1"),
        ("data.soft_targets", "on"),
        ("model.weights", "some/start.pt"),
    ]
    page = page_of(make_run("plain"), *(make_run(f"changed{i}", *change) for i, change in enumerate(changes)))
    rows = [line for line in page.splitlines() if line.startswith("| ultralight")]
    assert len(rows) == 7
    for words in ("branches 2", "| bfloat16 |", "clip_norm 1.0", "weight_decay 0.1", "soft_targets True", "start.pt"):
        assert sum(words in row for row in rows) == 1, words


def test_an_external_test_is_in_the_section_of_its_set(make_run):
    page = page_of(make_run("run", sets=("isic2017", "ph2")))
    section = page.split("## ph2\n")[1]
    assert "### all, sha256" in section
    assert "| isic2017, wu-sorted |" in section
    assert "Theirs" not in section


def test_seen_images_are_reported(make_run):
    folder = make_run("run")
    path = folder / "tests/isic2017/summary.json"
    summary = json.loads(path.read_text())
    summary["protocol"]["chosen_on"] = 600
    path.write_text(json.dumps(summary))
    assert "**the checkpoints have seen images of it: trained on 0, chosen on 600**" in page_of(folder)


def test_only_finished_and_tested_runs_count(make_run):
    assert read_run(make_run("unfinished", done=1)) == (None, "1 of 2 epochs are done")
    assert read_run(make_run("untested", sets=())) == (None, "its best checkpoint was not tested")
    other = make_run("other")
    (other / "checkpoints/best.pt").write_bytes(b"trained on since")
    assert read_run(other) == (None, "its best checkpoint was not tested")
    (other / "checkpoints/best.pt").unlink()
    (other / "times.jsonl").unlink()
    record, reason = read_run(other)
    assert (record.seconds, record.hardware, reason) == (None, "", "")
    assert page_of(other).count("| not recorded | not recorded |") == 1


def test_runs_are_found_below_folders(make_run, tmp_path):
    folders = [make_run("b"), make_run("sweep/a")]
    assert find_runs([tmp_path]) == find_runs([tmp_path, folders[0]]) == folders
    with pytest.raises(FileNotFoundError, match="there is no run folder at or below"):
        find_runs([tmp_path / "nowhere"])


def test_a_damaged_summary_is_named(make_run):
    folder = make_run("run")
    (folder / "tests/isic2017/summary.json").write_text("{")
    with pytest.raises(ValueError, match=r"isic2017/summary\.json is damaged .*: test again"):
        read_run(folder)


def test_published_numbers_are_complete():
    rows = read_published(ROOT / "scripts/records/published.csv")
    assert {row["set"] for row in rows} == {"isic2017", "isic2018", "ph2"}
    for row in rows:
        assert row["model"]
        assert row["protocol"]
        assert row["source"]
        assert 0.8 < float(row["dsc"]) < 1
        assert not row["iou"] or 0.7 < float(row["iou"]) < float(row["dsc"])


def test_the_script_makes_the_page(make_run, tmp_path, capsys):
    good, bad = make_run("good"), make_run("bad", done=1)
    out = tmp_path / "page.md"
    assert run(main, [str(tmp_path / "results"), "--out", str(out)]) == 0
    assert "UltraLight VM-UNet, 4 branches" in out.read_text()
    printed = capsys.readouterr()
    assert printed.out == f"1 tests in {out}\n"
    assert printed.err == f"left out: {bad}: 1 of 2 epochs are done\n"
    shutil.rmtree(good)
    out.unlink()
    assert run(main, [str(tmp_path / "results"), "--out", str(out)]) == 2
    assert "error: none of the runs is finished and tested: no page was made" in capsys.readouterr().err
    assert not out.exists()


def test_kept_records_make_the_page_again(make_run, tmp_path):
    records, pages = tmp_path / "runs.jsonl", [tmp_path / name for name in ("first.md", "second.md")]
    make_run("bad", done=1)
    make_run("plain")
    for name, dsc in (("good", 0.5), ("later", 0.6)):
        make_run(name, "model.ultralight_vm_unet.branches", "2", "run.seed", str(int(10 * dsc)), dsc=dsc)
        folders = [str(tmp_path / "results")] if name == "good" else [str(tmp_path / "results" / name)]
        assert run(main, [*folders, "--keep", "--records", str(records), "--out", str(pages[0])]) == 0
    shutil.rmtree(tmp_path / "results")
    assert run(main, ["--records", str(records), "--out", str(pages[1])]) == 0
    assert pages[0].read_text() == pages[1].read_text()
    assert "| 5, 6 |" in pages[1].read_text()
    kept = read_records(records)
    assert [record.run for record in kept] == ["results/good", "results/later", "results/plain"]
    # only the network that was trained
    assert set(kept[0].settings["model"]) == {
        *("name", "num_classes", "in_channels", "backend", "weights", "ultralight_vm_unet")
    }


def test_the_page_is_that_of_the_records(tmp_path):
    assert run(main, ["--out", str(tmp_path / "page.md")]) == 0
    assert (tmp_path / "page.md").read_text() == (ROOT / "docs/results.md").read_text()
