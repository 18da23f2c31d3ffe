import math

import pytest
import torch

from mhsvm.ops.routes.route_scan import route_scan_reference
from mhsvm.ops.scan import chunked, reference
from mhsvm.ops.verify import (
    LIMITS,
    ScanShape,
    expected_route_scan,
    expected_scan,
    make_route_scan_inputs,
    make_scan_inputs,
    relative_error,
    worst,
)

CPU = torch.device("cpu")
SHAPE = ScanShape(3, 6, 20, 2, n=4)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("gate", [False, True])
def test_a_right_scan_is_within_the_limits(dtype, gate):
    inputs = make_scan_inputs(SHAPE, dtype=dtype, device=CPU, gate=gate)
    expected = expected_scan(inputs)
    errors = expected.errors_of(lambda **tensors: chunked.selective_scan(**tensors, delta_softplus=True), inputs)
    assert set(errors) == {"y", *(f"gradient of {name}" for name in inputs)}
    assert ("z" in inputs) == gate
    assert 0 < worst(errors)[1] < LIMITS[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_right_scan_along_routes_is_within_the_limits(dtype):
    inputs, routes = make_route_scan_inputs(dtype=dtype, device=CPU)
    expected = expected_route_scan(inputs, routes)
    errors = expected.errors_of(
        lambda **tensors: route_scan_reference(**tensors, **routes, scan=chunked.selective_scan), inputs
    )
    assert set(errors) == {"y", *(f"gradient of {name}" for name in inputs)}
    assert 0 < worst(errors)[1] < LIMITS[dtype]


def test_routes_are_permutations():
    _, routes = make_route_scan_inputs(dtype=torch.float32, device=CPU)
    cells = torch.arange(routes["order"].shape[-1])
    assert torch.equal(routes["order"].gather(2, routes["inverse"]), cells.expand_as(routes["order"]))
    assert not torch.equal(routes["order"][0, 0], routes["order"][1, 0])


@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C", "D", "delta_bias"])
def test_each_wrong_gradient_is_found(name):
    inputs = make_scan_inputs(SHAPE, dtype=torch.float32, device=CPU)

    def scan(**tensors):
        tensors[name] = 2 * tensors[name] - tensors[name].detach()
        return reference.selective_scan(**tensors, delta_softplus=True)

    errors = expected_scan(inputs).errors_of(scan, inputs)
    assert worst(errors) == (f"gradient of {name}", pytest.approx(1.0, abs=1e-3))
    assert errors["y"] < 1e-6


@pytest.mark.parametrize(("sample", "found"), [(0, True), (1, False), (2, True)])
def test_the_first_and_the_last_sample_are_looked_at(sample, found):
    inputs = make_scan_inputs(SHAPE, dtype=torch.float32, device=CPU)
    off = torch.zeros(3, 1, 1)
    off[sample] = 1.0
    errors = expected_scan(inputs).errors_of(
        lambda **tensors: reference.selective_scan(**tensors, delta_softplus=True) + off, inputs
    )
    assert (errors["y"] > 1e-2) == found


def test_the_worst_of_errors_is_not_a_number_if_one_is():
    assert worst({"a": 1.0, "b": 2.0, "c": 0.0}) == ("b", 2.0)
    name, error = worst({"a": math.inf, "b": math.nan, "c": 3.0})
    assert name == "b"
    assert math.isnan(error)


def test_relative_error_of_zeros_is_the_error_itself():
    assert relative_error(torch.tensor([3.0, 4.0]), torch.zeros(2)) == 5.0
    assert relative_error(torch.tensor([3.0, 4.4]), torch.tensor([3.0, 4.0])) == pytest.approx(0.08)


@pytest.mark.parametrize(("sizes", "shown"), [((0, 6, 20, 2), "0,6,20,2"), ((3, 6, 20, 4), "3,6,20,4")])
def test_sizes_that_make_no_scan(sizes, shown):
    with pytest.raises(ValueError, match=f"b,d,l,g of a scan are at least 1 and g divides d, got {shown}"):
        ScanShape(*sizes)
