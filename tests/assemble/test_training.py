import pytest

from mhsvm.assemble import build_job
from mhsvm.config import load_config
from mhsvm.data.split_file import Split
from mhsvm.runtime.distributed import World


def test_a_batch_has_an_image_for_each_process():
    with pytest.raises(ValueError, match="train.batch_size is that of all 4 processes together, and 3 is less"):
        build_job(
            load_config(None, ("train.batch_size", "3")),
            None,
            Split("none", {"a": "val+test", "b": "train"}),
            World(size=4),
        )
