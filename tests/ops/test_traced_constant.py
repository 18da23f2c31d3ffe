"""Functions that torch.compile takes as constants."""

import torch

from mhsvm.ops.traced_constant import traced_constant


def test_it_marks_a_function_as_torch_does():
    def theirs():
        return 1

    def ours():
        return 1

    torch.compiler.assume_constant_result(theirs)
    assert traced_constant(ours) is ours
    assert vars(ours) == vars(theirs) != {}


def test_the_function_is_called_and_not_traced():
    calls = []

    @traced_constant
    def weight():
        calls.append(torch.compiler.is_compiling())
        return 2.0

    @torch.compile(backend="eager", fullgraph=True)
    def scaled(x):
        return x * weight()

    for _ in range(3):
        torch.testing.assert_close(scaled(torch.ones(2)), torch.full((2,), 2.0))
    assert len(calls) == 1
