"""Every numeric setting has the values that a training can use."""

import math
import re

import pytest

from mhsvm.bounds import BOUNDS, LENGTHS, Interval, bound_of, check_value
from mhsvm.config import get_value, load_config
from mhsvm.defaults import DEFAULTS
from mhsvm.registry import Registry


def leaves(node, prefix=""):
    for key, value in node.items():
        if hasattr(value, "items"):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def is_numeric(value):
    first = value[0] if isinstance(value, tuple) and value else value
    return first is None or (isinstance(first, (int, float)) and not isinstance(first, bool))


NUMERIC = {key: value for key, value in leaves(DEFAULTS) if is_numeric(value)}


def test_every_numeric_setting_has_bounds_that_hold_its_default():
    for key, value in NUMERIC.items():
        assert bound_of(key) is not None, key
        if value is not None:
            check_value(key, value)


def test_the_tables_name_no_other_setting():
    for key in [*BOUNDS, *LENGTHS]:
        group, star, rest = key.partition(".*.")
        assert key in NUMERIC or (
            star and any(name.startswith(f"{group}.") and name.endswith(f".{rest}") for name in NUMERIC)
        )


@pytest.mark.parametrize("key", NUMERIC)
def test_numbers_outside_of_the_bounds_are_refused(key):
    default, interval = NUMERIC[key], bound_of(key)
    length = len(default) if isinstance(default, tuple) else 1
    whole = isinstance(default[0] if isinstance(default, tuple) else default, int)
    bad = ["nan", "inf", "-inf"]
    bad.append(str(interval.low if interval.low_is_open else interval.low - max(1, abs(interval.low))))
    bad.append(str(interval.high if interval.high_is_open else interval.high + max(1, abs(interval.high))))
    for text in bad:
        with pytest.raises(ValueError, match=re.escape(key)):
            load_config(None, [key, ",".join([text] * length)])
    # the ends that belong to an interval are taken
    for end, is_open in ((interval.low, interval.low_is_open), (interval.high, interval.high_is_open)):
        if not is_open:
            given = [end if whole else float(end)] * length
            expected = tuple(given) if isinstance(default, tuple) else given[0]
            assert get_value(load_config(None, [key, ",".join(map(str, given))]), key) == expected


def test_a_rule_says_the_end_that_is_broken():
    interval = Interval.parse("[0, 1)")
    assert [interval.rule(value) for value in (-1, 1, math.nan)] == ["at least 0", "less than 1", "a finite number"]
    assert 0 in interval
    assert 1 not in interval
    assert math.nan not in Interval.parse("(-inf, inf)")


def test_settings_of_plugins_are_finite(registered):
    from mhsvm.assemble import read_config
    from mhsvm.training.schedules import SCHEDULES

    assert isinstance(SCHEDULES, Registry)
    registered(SCHEDULES, "Flat", lambda optimizer, scale=1.0: optimizer)
    assert read_config(None, ["schedule.Flat.scale", "-3"]).schedule.Flat.scale == -3
    with pytest.raises(ValueError, match=r"schedule\.Flat\.scale takes float"):
        read_config(None, ["schedule.Flat.scale", "inf"])
