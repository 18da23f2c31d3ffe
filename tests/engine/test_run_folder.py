from mhsvm.data.split_file import Split
from mhsvm.engine.run_folder import RunFolder

SPLIT = Split("made", {"a": "train"})


def test_an_unsaved_start_is_removed_and_nothing_else(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.remove_unsaved_start()
    run.create(config="", split=SPLIT)
    run.log.write_text("starting")
    run.remove_unsaved_start()
    assert not run.path.exists()

    for kept in (run.last, run.best, run.path / "notes.txt"):
        run.create(config="", split=SPLIT)
        kept.write_text("mine")
        run.remove_unsaved_start()
        assert kept.read_text() == "mine"
        kept.unlink()
        run.remove_unsaved_start()

    run.path.mkdir()
    (run.path / "log.txt").write_text("of something else")
    run.remove_unsaved_start()
    assert run.log.is_file()
