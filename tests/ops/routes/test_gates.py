import pytest

from mhsvm.ops.routes.gates import GATES, find_gate


def test_gates_said_to_be_fused_are_those_of_the_kernels():
    pytest.importorskip("triton")
    from mhsvm.ops.routes.gates_kernels import FUSED_GATES

    assert set(FUSED_GATES) == {name for name, gate in GATES.items() if gate.fused}


def test_bad_gates_are_refused():
    with pytest.raises(ValueError, match="unknown gate 'tanh'; known: relu, sigmoid, power, exp, none"):
        find_gate("tanh", power=2.0)
    with pytest.raises(ValueError, match="the power of a gate is at least 1; received 0.5"):
        find_gate("power", power=0.5)
