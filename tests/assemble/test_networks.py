"""Which backend a network's scans run on: argument, MHSVM_BACKEND, config, "auto", in this order."""

import pytest
import torch
from PIL import Image

import mhsvm
from mhsvm.assemble import build_model, load_trained
from mhsvm.assemble.runs import plan_run
from mhsvm.cli.predict import main as predict
from mhsvm.config import load_config, to_dict
from mhsvm.ops.scan import chunked
from mhsvm.training.checkpoint import save_checkpoint
from mhsvm.training.run_folder import RunFolder
from tests.fixtures.backends import ScanBackend

SETTINGS = ("model.ultralight_vm_unet.channels", "4,4,4,4,4,4", "model.ultralight_vm_unet.d_state", "1")


@pytest.fixture
def ran(set_scan_backends):
    """Names of the backends that have scanned, in a table of recording ones."""
    names = set()

    def recording(name):
        def scan(*arguments, **options):
            names.add(name)
            return chunked.selective_scan(*arguments, **options)

        return ScanBackend(name, scan)

    rows = ("fastest", "of_config", "of_environment", "of_argument")
    set_scan_backends(*map(recording, rows), alone=True)
    return names


@pytest.fixture
def image():
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("argument", "environment", "config", "expected"),
    [
        ("of_argument", "of_environment", "of_config", "of_argument"),
        (None, "of_environment", "of_config", "of_environment"),
        (None, None, "of_config", "of_config"),
        (None, "", "of_config", "of_config"),
        (None, None, "auto", "fastest"),
        # who asks for "auto" gets it, as far as nothing above says otherwise
        ("auto", "of_environment", "of_config", "of_environment"),
        ("auto", None, "of_config", "fastest"),
        (None, "auto", "of_config", "fastest"),
    ],
)
def test_order_of_authority(ran, image, monkeypatch, tmp_path, argument, environment, config, expected):
    if environment is not None:
        monkeypatch.setenv("MHSVM_BACKEND", environment)
    config = load_config(None, (*SETTINGS, "model.backend", config))
    model = build_model(config, backend=argument).eval()
    model(image)
    assert ran == {expected}

    ran.clear()
    save_checkpoint(tmp_path / "best.pt", {"model": model.state_dict(), "config": to_dict(config)})
    load_trained(tmp_path / "best.pt", backend=argument, device=torch.device("cpu")).model(image)
    assert ran == {expected}


def test_what_is_wrong_is_named(ran, image, monkeypatch):
    wrong = load_config(None, (*SETTINGS, "model.backend", "slow"))
    with pytest.raises(ValueError, match="^backend: unknown name 'slow'; known are: auto, fastest, of_config"):
        build_model(wrong)(image)
    monkeypatch.setenv("MHSVM_BACKEND", "fast")
    with pytest.raises(ValueError, match="^environment variable MHSVM_BACKEND: unknown name 'fast'; known are: auto"):
        build_model(wrong)(image)


@pytest.mark.parametrize(("environment", "source"), [("", "backend"), ("slow", "environment variable MHSVM_BACKEND")])
def test_an_unknown_backend_is_refused_before_a_run_has_a_folder(monkeypatch, tmp_path, environment, source):
    monkeypatch.setenv("MHSVM_BACKEND", environment)
    config = load_config(None, (*SETTINGS, "model.backend", "slow"))
    with pytest.raises(ValueError, match=f"{source}: unknown name 'slow'"):
        plan_run(config, RunFolder(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_a_commands_option_is_an_argument(ran, monkeypatch, tmp_path):
    monkeypatch.setenv("MHSVM_BACKEND", "of_environment")
    config = load_config(None, SETTINGS)
    save_checkpoint(tmp_path / "best.pt", {"model": build_model(config).state_dict(), "config": to_dict(config)})
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    command = ["--p", str(tmp_path / "best.pt"), "--source", str(tmp_path / "a.png"), "--device", "cpu"]
    assert predict([*command, "--out", str(tmp_path / "one"), "--backend", "of_argument"]) == 0
    assert ran == {"of_argument"}
    ran.clear()
    assert predict([*command, "--out", str(tmp_path / "two")]) == 0
    assert ran == {"of_environment"}


def test_a_training_starts_from_weights_in_the_package_by_name():
    name = "isic2017-wu-sorted"
    model = build_model(load_config(None, ("model.name", "ultralight_vm_unet", "model.weights", name)))
    expected = mhsvm.create_model("ultralight_vm_unet", pretrained=name).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
