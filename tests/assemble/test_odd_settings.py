"""Odd values of every setting: a training is refused with a message or can be built, and none ends in a traceback."""

import pytest

from mhsvm.assemble import plan_run, read_config
from mhsvm.bounds import LARGEST
from mhsvm.config import find_keys
from mhsvm.defaults import DEFAULTS

BASE = ("data.set", "lesions", "data.split", "official", "run.device", "cpu", "train.epochs", "1")
TINY = {"channels": "8,8,8,8,8,8", "branches": "2", "dims": "8,16", "depths": "1,1", "decoder_depths": "1,1"}
ODD = ("", "0", "-1", "nan", "1,2", "../x", "9" * 20, str(LARGEST))


def keys(group):
    return [key for last in leaves(DEFAULTS[group]) for key in find_keys(f"{group}.{last}")]


def leaves(node, prefix=""):
    for key, value in node.items():
        yield from leaves(value, f"{prefix}{key}.") if hasattr(value, "items") else [f"{prefix}{key}"]


@pytest.mark.parametrize("group", [group for group in DEFAULTS if DEFAULTS[group]])
def test_odd_values_are_refused_or_taken(group, make_set):
    make_set(num=6)
    small = [
        word
        for name, node in DEFAULTS.model.items()
        if hasattr(node, "items")
        for key, value in TINY.items()
        if key in node
        for word in (f"model.{name}.{key}", value)
    ]
    messages = []
    for key in keys(group):
        _, *names = key.split(".")
        chosen = [f"{group}.name", names[0]] if len(names) == 2 else []
        for value in ODD:
            try:
                plan_run(read_config(None, [*BASE, *small, *chosen, key, value]), None)
            except (ValueError, OSError) as error:
                messages.append(str(error))
    assert len(messages) > len(keys(group))
    assert all(messages)
