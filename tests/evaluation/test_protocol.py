"""Which images test a checkpoint: what was asked for, the own split, the published one, or all."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from mhsvm.data.split_file import Split
from mhsvm.evaluation.protocol import choose_protocol

IDS = tuple(f"case{row}" for row in range(10))
PARTS = dict.fromkeys(IDS[:6], "train") | dict.fromkeys(IDS[6:8], "val") | dict.fromkeys(IDS[8:], "test")
OWN = Split("ratio-60-20-20-1", PARTS)


def record(split, name="lesions", checksum="a" * 64):
    ids = {f"{part}_ids": list(split.ids(part)) for part in ("train", "val", "test")}
    return {"name": name, "checksum": checksum, "split": split.name, "split_hash": split.hash, **ids}


def prepared(name="lesions", checksum="a" * 64, ids=IDS):
    return SimpleNamespace(name=name, checksum=checksum, ids=ids, path=Path(f"data/{name}.h5"))


def choose(data, recorded, asked=None):
    made = {
        "all": Split("all", dict.fromkeys(data.ids, "test")),
        "vmunet-7-3": Split("vmunet-7-3", {i: "train" if i in IDS[:7] else "val+test" for i in data.ids}),
        "no-test": Split("no-test", dict.fromkeys(data.ids, "train")),
    }
    return choose_protocol(data, recorded=recorded, asked=asked, make_split=made.__getitem__)


def test_own_split_on_the_own_set():
    protocol = choose(prepared(), record(OWN))
    assert protocol.split == OWN
    assert protocol.ids == IDS[8:]
    assert (protocol.trained_on, protocol.chosen_on) == (0, 0)
    assert protocol.reason == "the checkpoint's own; it was trained on this set"


def test_the_content_tells_a_set_not_its_name():
    protocol = choose(prepared(name="renamed"), record(OWN))
    assert protocol.split.hash == OWN.hash


def test_own_split_where_validation_is_test():
    split = Split("vmunet-7-3", {i: "train" if i in IDS[:7] else "val+test" for i in IDS})
    protocol = choose(prepared(), record(split))
    assert protocol.split.hash == split.hash
    assert protocol.ids == IDS[7:]
    assert (protocol.trained_on, protocol.chosen_on) == (0, 3)


def test_own_split_on_the_own_ids_prepared_otherwise():
    protocol = choose(prepared(checksum="b" * 64), record(OWN))
    assert protocol.split == OWN
    assert "prepared otherwise" in protocol.reason


def test_a_set_that_only_has_the_name_tests_whole():
    protocol = choose(prepared(checksum="b" * 64, ids=IDS[3:]), record(OWN))
    assert protocol.split.name == "all"
    assert protocol.reason == "the checkpoint was trained on another set that is called lesions too"
    assert (protocol.trained_on, protocol.chosen_on) == (3, 2)


def test_another_set_tests_whole_and_its_overlap_is_counted():
    protocol = choose(prepared(name="other", checksum="b" * 64, ids=(*IDS[4:7], "new")), record(OWN))
    assert protocol.split.name == "all"
    assert protocol.reason == "the checkpoint was trained on another set, lesions"
    assert (protocol.trained_on, protocol.chosen_on) == (2, 1)


@pytest.mark.parametrize(
    ("name", "split"), [("isic2017", "vmunet-7-3"), ("isic2018", "vmunet-7-3"), ("ph2", "all"), ("lesions", "all")]
)
def test_published_files(name, split):
    protocol = choose(prepared(name=name), None)
    assert protocol.split.name == split
    assert (protocol.trained_on, protocol.chosen_on) == (None, None)


@pytest.mark.parametrize("recorded", [None, record(OWN)])
def test_what_is_asked_for_comes_first(recorded):
    protocol = choose(prepared(name="isic2017"), recorded, asked="all")
    assert (protocol.split.name, protocol.reason) == ("all", "asked for")


def test_a_split_without_a_test_part_is_an_error():
    with pytest.raises(ValueError, match=r"split 'no-test' of data/lesions\.h5 has no test part: .* such as 'all'"):
        choose(prepared(), record(OWN), asked="no-test")


def test_changed_ids_are_noticed():
    recorded = record(OWN)
    recorded["test_ids"] = ["case9"]
    with pytest.raises(ValueError, match="it was changed. Name a split with `split`"):
        choose(prepared(), recorded)
