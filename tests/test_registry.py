import pytest

from mhsvm.registry import Registry


@pytest.fixture
def shapes() -> Registry:
    registry: Registry = Registry("shape")
    registry.add("Disk", 1)
    registry.add("ring", 2)
    return registry


def test_an_entry_is_registered_by_decorator(shapes):
    @shapes.register("square")
    def square() -> int:
        return 4

    assert shapes["square"] is square


def test_an_entry_is_registered_by_call(shapes):
    assert shapes.add("line", 3) == 3 == shapes["line"]


def test_names_keep_the_order_of_registration(shapes):
    assert shapes.names() == tuple(shapes) == ("Disk", "ring")
    assert dict(shapes.items()) == {"Disk": 1, "ring": 2}
    assert len(shapes) == 2
    assert "ring" in shapes
    assert "cube" not in shapes


def test_a_taken_name_is_an_error_that_names_both_entries(shapes):
    @shapes.register("square")
    def old() -> int:
        return 4

    def new() -> int:
        return 4

    with pytest.raises(ValueError, match=r"shape 'square' is registered already, as .*\.old; .*\.new needs another"):
        shapes.register("square")(new)
    assert shapes["square"] is old


def test_a_taken_name_of_a_value_names_the_modules_that_registered_it(shapes):
    with pytest.raises(
        ValueError, match=rf"'ring' is registered already, as int of {__name__}; str of {__name__} needs"
    ):
        shapes.add("ring", "another")


def test_an_unknown_name_lists_the_known_ones_and_the_nearest(shapes):
    with pytest.raises(ValueError, match=r"unknown shape 'disc'; known: Disk, ring\. Did you mean 'Disk'\?"):
        shapes["disc"]
    with pytest.raises(ValueError, match="unknown shape 'x'; known: Disk, ring$"):
        shapes["x"]
    with pytest.raises(ValueError, match="unknown thing 'x'; known: none$"):
        Registry("thing")["x"]


def test_a_removed_name_is_free_again(shapes):
    shapes.remove("ring")
    assert shapes.names() == ("Disk",)
    shapes.add("ring", 5)
    with pytest.raises(ValueError, match="unknown shape 'cube'"):
        shapes.remove("cube")
