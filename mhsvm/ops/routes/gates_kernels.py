"""Gates in Triton, by the names of `mhsvm.ops.routes.gates`: (variation, threshold, power) -> weight and derivative.

The derivative is with respect to the variation. A gate with a threshold depends on variation - threshold, so the
derivative with respect to the threshold is its negative.
"""

import triton
import triton.language as tl

from mhsvm.ops.common_kernels import LOG2_E, sigmoid


@triton.jit
def relu_gate(b_cv, threshold, power):
    b_x = b_cv - threshold
    return tl.where(b_x > 0.0, b_x, 0.0), tl.where(b_x > 0.0, 1.0, 0.0)


@triton.jit
def sigmoid_gate(b_cv, threshold, power):
    b_weight = sigmoid(b_cv - threshold)
    return b_weight, b_weight * (1.0 - b_weight)


@triton.jit
def power_gate(b_cv, threshold, power):
    b_log = tl.log2(tl.where(b_cv > 0.0, b_cv, 1.0))
    b_weight = tl.where(b_cv > 0.0, tl.exp2(power * b_log), 0.0)
    return b_weight, tl.where(b_cv > 0.0, power * tl.exp2((power - 1.0) * b_log), 0.0)


@triton.jit
def exp_gate(b_cv, threshold, power):
    b_weight = tl.exp2((b_cv - threshold) * LOG2_E)
    return b_weight, b_weight


FUSED_GATES = {"relu": relu_gate, "sigmoid": sigmoid_gate, "power": power_gate, "exp": exp_gate}
