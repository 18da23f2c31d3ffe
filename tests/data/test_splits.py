import hashlib
import logging
import re
from collections import Counter

import pytest

from mhsvm.data.splits import Split, list_splits, make_split, seeded_order, suggest_split


def numbered(count, *, first=0):
    return [f"ISIC_{first + number:07d}" for number in range(count)]


def split_of(name, *, train=0, val=0, test=0, ids=None, groups=None, dataset="isic2017"):
    """Split a made set whose first ids are in the training subset, and so on."""
    subsets = ["train"] * train + ["val"] * val + ["test"] * test
    ids = ids or numbered(len(subsets))
    subsets = subsets or [""] * len(ids)
    return make_split(name, ids=ids, subsets=subsets, groups=groups or [""] * len(ids), dataset=dataset)


def sizes(split):
    return tuple(len(split.ids(part)) for part in ("train", "val", "test"))


EXAMPLES = {
    "official": "official",
    "wu-sorted": "wu-sorted",
    "wu-shuffled-<seed>": "wu-shuffled-7",
    "vmunet-7-3": "vmunet-7-3",
    "vmunet-7-3-<seed>": "vmunet-7-3-1",
    "kfold-<k>-<seed>-<fold>": "kfold-5-42-4",
    "counts-<train>-<val>-<test>-<seed>": "counts-2000-150-600-3",
    "ratio-<train%>-<val%>-<test%>-<seed>": "ratio-70-10-20-42",
    "all": "all",
}


def test_every_form_has_an_example():
    # these are for sets with other subsets, and have tests of their own
    others = {"file:PATH", "official-val-<val%>-<seed>", "multi-annotator"}
    assert {*EXAMPLES, *others} == set(list_splits())


@pytest.mark.parametrize("name", EXAMPLES.values())
def test_parts_keep_the_order_of_the_set_and_the_name(name):
    split = split_of(name, train=2000, val=150, test=600)
    assert split.name == name
    assert list(split.parts) == [i for i in numbered(2750) if i in split.parts]
    assert list(split.ids("train")) == sorted(split.ids("train"))


@pytest.mark.parametrize(
    ("name", "dataset", "subsets", "expected"),
    [
        ("official", "isic2017", (2000, 150, 600), (2000, 150, 600)),
        ("wu-sorted", "isic2017", (2000, 150, 600), (1250, 150, 600)),
        ("wu-shuffled-1", "isic2017", (2000, 0, 0), (1250, 150, 600)),
        ("wu-sorted", "isic2018", (2594, 100, 1000), (1815, 259, 520)),
        ("vmunet-7-3", "isic2017", (2000, 150, 600), (1500, 650, 650)),
        ("vmunet-7-3", "isic2018", (2594, 100, 0), (1886, 808, 808)),
        ("vmunet-7-3-5", "isic2017", (90, 11, 30), (71, 30, 30)),
        ("counts-3-2-5-0", "own", (10, 0, 0), (3, 2, 5)),
        ("ratio-70-10-20-42", "own", (10, 0, 0), (7, 1, 2)),
        ("ratio-50-50-0-42", "own", (5, 0, 0), (3, 2, 0)),
        ("ratio-62.5-12.5-25-42", "own", (8, 0, 0), (5, 1, 2)),
        ("kfold-5-42-0", "own", (11, 0, 0), (6, 2, 3)),
        ("all", "ph2", (0, 0, 200), (0, 0, 200)),
    ],
)
def test_counts(name, dataset, subsets, expected):
    train, val, test = subsets
    assert sizes(split_of(name, train=train, val=val, test=test, dataset=dataset)) == expected


def test_wu_sorted_takes_training_ids_in_ascending_order_whatever_their_order_in_the_set():
    ids = numbered(2000)[::-1] + numbered(150, first=5000)
    split = split_of("wu-sorted", train=2000, val=150, ids=ids)
    assert set(split.ids("train")) == set(numbered(1250))
    assert set(split.ids("test")) == set(numbered(600, first=1400))
    assert not set(split.parts) & set(numbered(150, first=5000))


def test_a_seeded_order_is_that_of_sha256():
    ids = numbered(30)
    by_hash = sorted(ids, key=lambda i: hashlib.sha256(f"9:{i}".encode()).hexdigest())
    assert seeded_order(ids, seed=9) == by_hash
    split = split_of("counts-10-5-15-9", ids=ids)
    assert split.ids("train") == tuple(sorted(by_hash[:10]))
    assert split.ids("val") == tuple(sorted(by_hash[10:15]))


def test_seeds_change_the_split_and_the_default_of_vmunet_is_42():
    assert split_of("wu-shuffled-1", train=2000).hash != split_of("wu-shuffled-2", train=2000).hash
    assert split_of("vmunet-7-3", train=100).parts == split_of("vmunet-7-3-42", train=100).parts
    assert split_of("vmunet-7-3", train=100).parts != split_of("vmunet-7-3-43", train=100).parts


def test_hash_depends_on_ids_and_parts_only():
    split = Split("x", {"b": "test", "a": "train"})
    assert split.hash == hashlib.sha256(b"a\ttrain\nb\ttest\n").hexdigest()
    assert Split("y", {"a": "train", "b": "test"}).hash == split.hash


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("official", "cc519b4e29aed6d8"),
        ("vmunet-7-3", "32869691699a7277"),
        ("ratio-70-10-20-42", "c80795f8445448dc"),
        ("kfold-5-42-2", "137c4165653145a0"),
        ("all", "ff83ee6158481bb9"),
    ],
)
def test_hashes_never_change(name, start):
    assert split_of(name, train=20, val=4, test=6).hash.startswith(start)


def test_validation_of_vmunet_is_its_test_part_and_said_so(caplog):
    with caplog.at_level(logging.WARNING):
        split = split_of("vmunet-7-3", train=8, val=2)
    assert split.ids("val") == split.ids("test")
    assert split.val_is_test
    assert Counter(split.parts.values()) == {"train": 7, "val+test": 3}
    assert "its validation images are its test images" in caplog.text
    assert not split_of("official", train=8, val=2).val_is_test


def test_folds_test_every_image_once_and_validate_on_the_next_fold():
    folds = [split_of(f"kfold-4-42-{fold}", ids=numbered(22)) for fold in range(4)]
    tested = [image_id for fold in folds for image_id in fold.ids("test")]
    assert sorted(tested) == numbered(22)
    assert {len(fold.ids("test")) for fold in folds} == {5, 6}
    for number, fold in enumerate(folds):
        assert fold.ids("val") == folds[(number + 1) % 4].ids("test")


@pytest.mark.parametrize(
    "name", ["kfold-5-42-1", "counts-1250-150-600-8", "ratio-70-10-20-8", "wu-shuffled-8", "vmunet-7-3-8"]
)
def test_groups_never_straddle_parts_and_counts_stay_close(name):
    largest = 7
    groups = [f"patient {row // largest}" if row < 1000 else "" for row in range(2000)]
    split = split_of(name, train=2000, groups=groups)
    alone = split_of(name, train=2000)
    parts_of_groups = {(group, split.parts[i]) for i, group in zip(numbered(2000), groups, strict=True) if group}
    assert len(parts_of_groups) == len(set(groups)) - 1
    assert set(split.parts) == set(numbered(2000))
    for grouped, plain in zip(sizes(split), sizes(alone), strict=True):
        assert abs(grouped - plain) < largest


def test_a_group_without_room_goes_where_most_room_is():
    split = split_of("counts-2-1-3-0", ids=list("abcdef"), groups=["g"] * 5 + [""])
    assert split.ids("test") == tuple("abcde")
    assert split.ids("train") == ("f",)


def test_a_group_may_be_named_like_an_id():
    split = split_of("counts-1-0-2-0", ids=["a", "b", "c"], groups=["", "a", "a"])
    assert sizes(split) == (1, 0, 2)
    assert split.parts["a"] == "train"


@pytest.mark.parametrize(
    ("name", "members", "message"),
    [
        (
            "wu",
            {"train": 3},
            r"unknown split 'wu'; known: official, wu-sorted, wu-shuffled-<seed>, vmunet-7-3",
        ),
        ("kfold-5-42", {"train": 9}, r"unknown split 'kfold-5-42'; .*kfold-<k>-<seed>-<fold>"),
        (
            "official",
            {"dataset": "ph2", "ids": ["IMD002", "IMD003"]},
            r"2 of 2 images of ph2 have none.*IMD002",
        ),
        (
            "wu-sorted",
            {"train": 9, "dataset": "ph2"},
            r"defined for isic2017 and isic2018, got ph2: use ratio-70-10-20-42",
        ),
        (
            "wu-shuffled-3",
            {"train": 1990},
            r"the 2000 images.*into 1250/150/600, and this set has 1990 of them",
        ),
        ("counts-1250-150-600-1", {"train": 1990}, r"needs 2000 images, isic2017 has 1990"),
        ("vmunet-7-3", {"test": 5, "dataset": "mine"}, r"mine has none: use ratio-70-10-20-42, or all"),
        ("ratio-70-20-20-1", {"train": 9}, r"add up to 100, got 70 \+ 20 \+ 20 = 110"),
        ("kfold-2-42-0", {"train": 9}, r"k >= 3.*got 2"),
        ("kfold-5-42-5", {"train": 9}, r"fold of kfold-5-42 is 0 to 4, got 5"),
        ("kfold-5-42-0", {"train": 4}, r"5 folds need 5 images or groups, isic2017 has 4: lower k"),
        ("all", {"ids": ["a", "b", "a"]}, r"ids are unique; repeated: a"),
        ("all", {"ids": ["a", "b"], "groups": ["x"]}, r"equally long, got 2, 2 and 1"),
    ],
)
def test_errors(name, members, message):
    with pytest.raises(ValueError, match=message):
        split_of(name, **members)


def test_an_unknown_part_is_an_error():
    with pytest.raises(ValueError, match="a part is one of train, val, test, got 'valid'"):
        split_of("all", ids=["a"]).ids("valid")


@pytest.mark.parametrize("name", ["official", "wu-sorted", "vmunet-7-3"])
def test_a_saved_split_comes_back(tmp_path, name):
    members = {"train": 2000, "val": 150, "test": 600}
    split = split_of(name, **members)
    path = tmp_path / "split.txt"
    split.save(path)
    assert path.read_text(encoding="utf-8").startswith(f"# mhsvm split, name: {name}, sha256: {split.hash}\nISIC_")
    assert Split.load(path) == split
    asked = split_of(f"file:{path}", **members)
    assert (asked.parts, asked.hash, asked.name) == (split.parts, split.hash, f"file:{path}")


def test_a_list_by_hand_may_use_tabs_commas_and_spaces(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes("\ufeff# by hand\r\na\ttrain\r\nb,val\r\n\r\nc  test\r\nd e, f , unused\r\n".encode())
    split = split_of(f"file:{path}", ids=["c", "d e, f", "b", "a"])
    assert list(split.parts.items()) == [("c", "test"), ("b", "val"), ("a", "train")]
    assert Split.load(path).name == f"file:{path}"


def test_all_problems_of_a_file_come_in_one_message(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("a train\nb valeur\na test\nlonely\nx test\n", encoding="utf-8")
    with pytest.raises(ValueError, match="split file") as caught:
        split_of(f"file:{path}", ids=list("abcd"))
    assert str(caught.value).splitlines()[1:] == [
        "  line 2: a part is one of train, val, test, val+test, unused, got 'valeur'",
        "  line 3: id 'a' is in two parts, train and test",
        "  line 4: expected 'id<TAB>part', got 'lonely'",
        "  1 ids are not in isic2017: x",
        "  3 ids of isic2017 have no part (write 'unused' to leave one out): b, c, d",
    ]


def test_a_changed_saved_file_is_noticed(tmp_path):
    path = tmp_path / "split.txt"
    split_of("official", train=2, test=1).save(path)
    path.write_text(path.read_text(encoding="utf-8").replace("train", "test"), encoding="utf-8")
    with pytest.raises(ValueError, match="it was changed after it was saved; if that is intended, delete"):
        Split.load(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="split file .*none.txt does not exist: check the path"):
        split_of(f"file:{tmp_path / 'none.txt'}", ids=["a"])
    (tmp_path / "image.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ValueError, match="image.jpg, line 1, is not UTF-8 text"):
        Split.load(tmp_path / "image.jpg")


def read_as(tmp_path, text, ids, name="mine.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode())
    return split_of(f"file:{path}", ids=ids).parts


@pytest.mark.parametrize(
    "text",
    [
        "# mine\n\n#a test\na.jpg\tTraining\nimages/b.png;valid\n  c  TEST  # unsure\n",
        "\ufeffimage,diagnosis,split\r\na,nevus,train\r\n\r\nb,melanoma,validation\r\nc,,testing\r\n",
        "Split;Image ID\ntrain;a.JPG\nval;b.JPG\ntest;c.JPG\n",
        ',filename,subset,note\n0,/data/set/a.tif,train,\n1,C:\\set\\b.tif,dev,"x, y"\n2,./c.tif,test,\n',
        '"a","train"\n"b","val"\n"c","test"\na,train\n',
    ],
)
def test_lists_are_read_as_people_write_them(tmp_path, text):
    assert read_as(tmp_path, text, list("abc")) == {"a": "train", "b": "val", "c": "test"}


def test_ids_that_look_like_comments_endings_and_paths_are_found_first(tmp_path):
    ids = ["#1", "x.png", "x", "train/1", "test/1"]
    text = "#1 train\n#2 train\nx.png val\nx test\ntrain/images/1.png train\ntest/1 test\n"
    assert read_as(tmp_path, text, ids) == {
        "#1": "train",
        "x.png": "val",
        "x": "test",
        "train/1": "train",
        "test/1": "test",
    }


def test_unknown_ids_are_counted_and_listed_with_the_most_similar_ones(tmp_path):
    with pytest.raises(ValueError, match="3 ids are not in") as caught:
        read_as(tmp_path, "ISIC_1.jpg train\n1 val\nzzz test\n", ["ISIC_01", "train/1", "test/1"])
    assert "ISIC_1.jpg (similar: ISIC_01), 1 (similar: train/1, test/1), zzz\n" in str(caught.value)
    assert "3 ids of isic2017 have no part" in str(caught.value)


def test_a_file_that_is_no_list_gives_a_short_message(tmp_path):
    with pytest.raises(ValueError, match="... and 3 more lines") as caught:
        read_as(tmp_path, "{\n" + '"train": ["a"],\n' * 12, ["a"])
    assert len(str(caught.value).splitlines()) == 13


@pytest.mark.parametrize("count", [3, 4, 5])
def test_ratios_of_few_images_give_each_part_one(count):
    assert sizes(split_of("ratio-70-10-20-42", ids=numbered(count))) == (count - 2, 1, 1)
    assert sizes(split_of("ratio-50-50-0-42", ids=numbered(2))) == (1, 1, 0)


@pytest.mark.parametrize("seed", range(4))
def test_ratios_of_few_groups_give_each_part_one(seed):
    groups = ["g"] * 5 + ["", ""]
    split = split_of(f"ratio-70-10-20-{seed}", ids=list("abcdefg"), groups=groups)
    assert min(sizes(split)) == 1
    assert len({split.parts[image_id] for image_id in "abcde"}) == 1


@pytest.mark.parametrize(
    ("name", "count", "dataset"),
    [
        (name, count, "mine")
        for name in ("official", "wu-sorted", "vmunet-7-3", "kfold-5-42-0", "counts-70-10-20-1", "ratio-70-10-20-42")
        for count in (1, 2, 3, 5)
    ],
)
def test_advice_works_for_that_very_set(name, count, dataset):
    ids = numbered(count)
    if name in ("kfold-5-42-0", "ratio-70-10-20-42") and count >= (5 if name.startswith("k") else 3):
        assert min(sizes(split_of(name, ids=ids, dataset=dataset))) >= 1
        return
    with pytest.raises(ValueError, match="use |lower k") as caught:
        split_of(name, ids=ids, dataset=dataset)
    advised = re.findall(r"use ([\w-]+)|, or (all)", str(caught.value).partition(": ")[2])
    for each in [one or other for one, other in advised] or [f"kfold-{count}-42-0"]:
        split_of(each, ids=ids, dataset=dataset)


def test_too_few_images_for_a_ratio_say_how_many_are_needed():
    with pytest.raises(ValueError, match="has 3 parts and needs at least 3 images or groups, and isic2017 has 2"):
        split_of("ratio-70-10-20-42", ids=["a", "b"])
    with pytest.raises(ValueError, match="has 2 parts and needs at least 2 images or groups, and isic2017 has 1"):
        split_of("ratio-50-50-0-42", ids=["a", "b"], groups=["g", "g"])


def test_lists_find_ids_with_accents_however_they_are_written(tmp_path):
    lines = "cafe\u0301.png,train\nn\u00e9,test\nx,val\n"
    assert read_as(tmp_path, lines, ["caf\u00e9", "n\u00e9", "x"]) == {
        "caf\u00e9": "train",
        "n\u00e9": "test",
        "x": "val",
    }


def test_a_saved_split_brings_back_ids_with_separators_at_their_ends(tmp_path):
    ids = (" sp ", "&amp;", "a\tb", "a\r", "a,", "plain")
    split = split_of("all", ids=ids)
    split.save(tmp_path / "split.txt")
    assert list(Split.load(tmp_path / "split.txt").parts) == sorted(ids) == sorted(split.parts)
    asked = split_of(f"file:{tmp_path / 'split.txt'}", ids=ids)
    assert (asked.parts, asked.hash) == (split.parts, split.hash)


def test_validation_images_from_the_official_training_subset():
    split = split_of("official-val-10-42", train=900, test=379, dataset="isic2016")
    assert sizes(split) == (810, 90, 379)
    assert split.ids("test") == tuple(numbered(379, first=900))
    assert split.ids("val") == tuple(sorted(seeded_order(numbered(900), seed=42)[810:]))
    groups = [f"lesion{row // 3}" for row in range(30)] + [""] * 5
    split = split_of("official-val-20-1", train=30, test=5, groups=groups, dataset="own")
    group_of = dict(zip(numbered(35), groups, strict=True))
    assert not {group_of[id_] for id_ in split.ids("train")} & {group_of[id_] for id_ in split.ids("val")}


@pytest.mark.parametrize(
    ("name", "subsets", "message"),
    [
        ("official-val-10-42", {"train": 5, "val": 1, "test": 2}, "isic2016 has validation images: use official"),
        ("official-val-100-42", {"train": 5, "test": 2}, "between 0 and 100, as in official-val-10-42"),
        ("official-val-10-42", {"train": 1, "test": 2}, "has 2 parts and needs at least 2 images or groups"),
    ],
)
def test_wrong_sets_for_validation_images(name, subsets, message):
    with pytest.raises(ValueError, match=message):
        split_of(name, **subsets, dataset="isic2016")


def test_a_set_without_validation_images_gets_the_advice():
    subsets = ["train"] * 9 + ["test"] * 3
    assert suggest_split([""] * 12, training=True, subsets=subsets).startswith("use official-val-10-42, which keeps")
    assert suggest_split([""] * 12, training=True, subsets=subsets[::-1][:4]) == "use ratio-70-10-20-42"
    assert suggest_split([""] * 12, training=True) == "use ratio-70-10-20-42"


def test_the_lists_of_imaplusplus():
    ids, subsets = numbered(14967), ["train"] * 1675 + ["val"] * 240 + ["test"] * 479
    arguments = {"ids": ids, "groups": [""] * len(ids), "dataset": "imaplusplus"}
    split = make_split("multi-annotator", subsets=subsets + [""] * 12573, **arguments)
    assert sizes(split) == (1675, 240, 479)
    with pytest.raises(ValueError, match=r"list 1675/240/479 images; imaplusplus has 1675/240/0: prepare the complete"):
        make_split("multi-annotator", subsets=subsets[:1915] + [""] * (len(ids) - 1915), **arguments)
    with pytest.raises(ValueError, match=r"is defined for imaplusplus, .* isic2017 has 2000/150/600"):
        split_of("multi-annotator", train=2000, val=150, test=600)
