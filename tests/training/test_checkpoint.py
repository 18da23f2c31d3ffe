import sys
from collections import Counter

import numpy as np
import pytest
import torch

from mhsvm.system import code_version
from mhsvm.training.checkpoint import save_checkpoint, take_snapshot


def test_a_checkpoint_holds_tensors_and_plain_types(tmp_path):
    save_checkpoint(tmp_path / "a.pt", {"model": {"w": torch.ones(2)}, "list": (1, "a", None), "count": Counter("aab")})
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    assert content["format"] == "mhsvm-checkpoint"
    assert content["list"] == [1, "a", None]
    assert content["count"] == {"a": 2, "b": 1}


def test_a_view_is_saved_without_its_storage(tmp_path):
    save_checkpoint(tmp_path / "a.pt", {"model": torch.zeros(1_000_000)[:1]})
    assert (tmp_path / "a.pt").stat().st_size < 10_000


def test_tensors_of_every_kind_come_back_as_they_were(tmp_path, assert_same):
    generator = torch.Generator().manual_seed(0)
    last = torch.randn(2, 3, 4, 4, generator=generator).to(memory_format=torch.channels_last)
    content = {
        "model": {
            "small": torch.randn(3, 5, generator=generator, requires_grad=True).detach(),
            "number": torch.tensor(7),
            "large": torch.randn(100, 100, generator=generator),
            "part": torch.randn(6, 6, generator=generator)[1:, ::2],
            "channels last": last,
            "none": torch.zeros(0, 4),
        },
        "training": [torch.get_rng_state(), torch.randn(5, generator=generator).bfloat16(), torch.tensor([True])],
    }
    save_checkpoint(tmp_path / "a.pt", content)
    found = torch.load(tmp_path / "a.pt", weights_only=True)
    for key, value in content.items():
        assert_same(found[key], value)
    assert found["model"]["channels last"].is_contiguous(memory_format=torch.channels_last)


def test_a_snapshot_does_not_change_any_more(assert_same):
    small, large = torch.zeros(4), torch.zeros(100, 100)
    snapshot = take_snapshot({"model": {"small": small, "large": large, "again": small}})
    small += 1
    large += 1
    assert_same(snapshot["model"], {"small": torch.zeros(4), "large": torch.zeros(100, 100), "again": torch.zeros(4)})


def test_a_generator_takes_its_state_back(tmp_path):
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    save_checkpoint(tmp_path / "a.pt", {"states": [generator.get_state() for generator in generators]})
    drawn = [torch.rand(3, generator=generator) for generator in generators]
    for state, expected in zip(torch.load(tmp_path / "a.pt", weights_only=True)["states"], drawn, strict=True):
        generator = torch.Generator()
        generator.set_state(state)
        assert torch.equal(torch.rand(3, generator=generator), expected)


def test_weights_do_not_drag_the_optimizer_s_state_along(tmp_path):
    save_checkpoint(tmp_path / "a.pt", {"model": {"w": torch.ones(2)}, "training": {"w": torch.zeros(5000)}})
    assert torch.load(tmp_path / "a.pt", weights_only=True)["model"]["w"].untyped_storage().nbytes() == 8


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
def test_a_disk_that_refuses_is_told_of_and_the_old_file_stays(tmp_path):
    import resource

    save_checkpoint(tmp_path / "a.pt", {"value": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*a\.pt'"):
            save_checkpoint(tmp_path / "a.pt", {"model": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.load(tmp_path / "a.pt", weights_only=True)["value"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_anything_else_is_refused_and_the_old_file_stays(tmp_path):
    save_checkpoint(tmp_path / "a.pt", {"value": 1})
    with pytest.raises(TypeError, match=r"checkpoint\['training'\]\['loss'\]\[0\] is a float64"):
        save_checkpoint(tmp_path / "a.pt", {"training": {"loss": [np.float64(1)]}})
    assert torch.load(tmp_path / "a.pt", weights_only=True)["value"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_the_version_names_code_and_torch():
    version = code_version()
    assert version["torch"] == torch.__version__
    assert set(version) == {"mhsvm", "commit", "torch"}
    assert {type(value) for value in version.values()} == {str}
