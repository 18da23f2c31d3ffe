from collections import Counter

import numpy as np
import pytest
import torch

from mhsvm.engine.checkpoint import code_version, save_checkpoint


def test_a_checkpoint_holds_tensors_and_plain_types(tmp_path):
    save_checkpoint(tmp_path / "a.pt", {"model": {"w": torch.ones(2)}, "list": (1, "a", None), "count": Counter("aab")})
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    assert content["format"] == "mhsvm-checkpoint"
    assert content["list"] == [1, "a", None]
    assert content["count"] == {"a": 2, "b": 1}


def test_a_view_is_saved_without_its_storage(tmp_path):
    save_checkpoint(tmp_path / "a.pt", {"model": torch.zeros(1_000_000)[:1]})
    assert (tmp_path / "a.pt").stat().st_size < 10_000


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
