from pathlib import Path

import pytest

from mhsvm.sweep.grid import make_grid, parse_seeds

FOLDER = Path("results/sweep")


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text("run: {seed: 7}\ntrain: {epochs: 3}\n")
    return path


def test_a_config_alone_is_one_run(config):
    (run,) = make_grid(config, folder=FOLDER)
    assert (run.name, run.variant, run.seed, run.fold) == ("seed7", "", 7, None)
    assert (run.config.run.folder, run.config.run.name, run.config.train.epochs) == (str(FOLDER), "seed7", 3)


def test_settings_folds_and_seeds_make_a_grid(config):
    runs = make_grid(
        config,
        folder=FOLDER,
        settings=["data.split", "kfold-3-9", "model.mhs_vm.gate_threshold", "-1e-3"],
        choices=["optimizer.AdamW.lr=1e-3, 5e-4", "model.mhs_vm.patterns=[C,X],(S, Z)"],
        seeds=[0, 2],
        folds=3,
    )
    assert len(runs) == len({run.name for run in runs}) == 2 * 2 * 3 * 2
    assert [run.name for run in runs[:3]] == [
        "lr=1e-3_patterns=C+X_fold0_seed0",
        "lr=1e-3_patterns=C+X_fold0_seed2",
        "lr=1e-3_patterns=C+X_fold1_seed0",
    ]
    last = runs[-1]
    assert (last.name, last.variant) == ("lr=5e-4_patterns=S+Z_fold2_seed2", "lr=5e-4_patterns=S+Z")
    assert last.config.data.split == "kfold-3-9-2"
    assert last.config.optimizer.AdamW.lr == 5e-4
    assert last.config.model.mhs_vm.gate_threshold == -1e-3
    assert last.config.model.mhs_vm.patterns == ("S", "Z")
    assert (last.config.run.seed, last.seed, last.fold) == (2, 2, 2)


def test_a_split_may_name_a_fold_and_may_vary(config):
    runs = make_grid(config, folder=FOLDER, choices=["data.split=kfold-3-1-0,kfold-3-2"], folds=3)
    assert [run.config.data.split for run in runs] == [f"kfold-3-{seed}-{fold}" for seed in (1, 2) for fold in range(3)]


def test_keys_that_end_alike_are_named_in_full(config):
    choices = ["optimizer.AdamW.lr=1e-3", "optimizer.SGD.lr=1e-2"]
    (run,) = make_grid(config, folder=FOLDER, choices=choices)
    assert run.variant == "optimizer.AdamW.lr=1e-3_optimizer.SGD.lr=1e-2"


def test_values_that_are_paths_make_no_folders(config):
    runs = make_grid(config, folder=FOLDER, choices=["model.weights=a/b.pt,c d.pt"])
    assert [run.variant for run in runs] == ["weights=a-b.pt", "weights=c-d.pt"]
    assert runs[0].config.model.weights == "a/b.pt"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"choices": ["optimizer.AdamW.rate=1,2"]}, "unknown setting 'optimizer.AdamW.rate'"),
        ({"choices": ["train.epochs=3,x"]}, "train.epochs takes int (such as 250), not 'x'"),
        ({"choices": ["train.epochs=3,3"]}, "a value of train.epochs is repeated in '3,3'"),
        ({"choices": ["optimizer.AdamW.lr=0.001,1e-3"]}, "a value of optimizer.AdamW.lr is repeated"),
        ({"choices": ["train.epochs"]}, "`choices` takes KEY=V1,V2, such as optimizer.AdamW.lr=1e-3,5e-4"),
        ({"choices": ["train.epochs=3,,4"]}, "`choices` takes KEY=V1,V2"),
        ({"choices": ["=3"]}, "`choices` takes KEY=V1,V2"),
        ({"choices": ["model.mhs_vm.patterns=C,X"]}, "takes lists: write each in brackets"),
        ({"choices": ["train.epochs=3", "TRAIN.epochs=4"]}, "train.epochs is set more than once"),
        ({"choices": ["train.epochs=3"], "settings": ["train.Epochs", "4"]}, "train.epochs is set more than once"),
        ({"choices": ["run.seed=1,2"]}, "`choices` cannot vary run.seed: name the seeds with `seeds` 0-4"),
        ({"choices": ["Run.device=cpu,cuda"]}, "`choices` cannot vary Run.device: the sweep assigns the GPUs"),
        ({"choices": ["model.weights=a/b,a-b"]}, "two runs of the sweep would be called weights=a-b_seed7"),
        ({"seeds": [1, 1]}, "two runs of the sweep would be called seed1"),
        ({"seeds": [1], "settings": ["run.seed", "2"]}, "run.seed and `seeds` are both given"),
        ({"folds": 5}, "`folds` 5 goes with a split of 5 folds, and data.split is 'wu-sorted': set data.split kfold-5"),
        ({"folds": 4, "settings": ["data.split", "kfold-5-1"]}, "`folds` 4 goes with a split of 4 folds"),
        ({"settings": ["train.epochs"]}, "'train.epochs' at the end has no value"),
    ],
)
def test_bad_grids_are_refused(arguments, message, config):
    with pytest.raises(ValueError, match="^.*$") as error:
        make_grid(config, folder=FOLDER, **arguments)
    assert message in str(error.value)


def test_a_missing_config_is_an_error():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        make_grid("nowhere.yaml", folder=FOLDER)


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-2", [0, 1, 2]), ("7", [7]), ("1, 5,9", [1, 5, 9]), ("0-1,9", [0, 1, 9])]
)
def test_seeds_are_read(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "-1", "1-", "1.5"])
def test_bad_seeds_are_refused(text):
    with pytest.raises(ValueError, match=r"seeds are written 0-4 or 1,5,9"):
        parse_seeds(text)
