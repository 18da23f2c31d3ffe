"""Sets by a config, and their description in a log."""

from mhsvm.assemble.data import describe_set
from mhsvm.prepare.pipeline import prepare_set
from mhsvm.store import PreparedSet


def test_the_log_says_that_a_set_holds_the_first_images_only(lay_out, picture, lesion, tmp_path):
    files = {
        f"{kind}/{seed}.png": make(seed) for seed in range(3) for kind, make in (("images", picture), ("masks", lesion))
    }
    path = prepare_set("folder", [lay_out(files)], tmp_path / "own.h5", size=(16, 24), limit=2).path
    with PreparedSet.open(path) as prepared:
        assert (
            describe_set(prepared) == f"own-first-2 ({path}): 2 of 3 images of 16 x 24 (height x width), lesion masks"
        )
