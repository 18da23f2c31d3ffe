"""A vector of floats as a numba type, so that compiled kernels always use the processor's vector unit.

LLVM vectorizes loops by heuristics that change between versions. It keeps explicit vectors, and splits them if the
processor's are shorter.
"""

import math
import operator

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model
from numpy.polynomial import Chebyshev, Polynomial

from mhsvm.ops.scan.cpu.layout import LANES

# Only compiled functions call a helper: without the entries from Python it compiles in half the time.
helper = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)
_MANTISSA_BITS = 23


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


_lanes = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, data_model_manager, type_) -> None:
        super().__init__(data_model_manager, type_, _FLOATS)


def _pointer(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _FLOATS.as_pointer())


@intrinsic
def load(typing_context, array, index):
    """LANES numbers of a flat array from `index` on."""

    def generate(context, builder, signature, arguments):
        array, index = arguments
        return builder.load(_pointer(context, builder, signature.args[0], array, index), align=4)

    return _lanes(array, types.intp), generate


@intrinsic
def store(typing_context, array, index, value):
    """Write LANES numbers into a flat array from `index` on."""

    def generate(context, builder, signature, arguments):
        array, index, value = arguments
        builder.store(value, _pointer(context, builder, signature.args[0], array, index), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _lanes), generate


@intrinsic
def take(typing_context, counter):
    """The number in a flat int64 array's first place, which grows by one: each thread gets another."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", data, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), generate


@intrinsic
def splat(typing_context, number):
    """One number in every lane."""

    def generate(context, builder, signature, arguments):
        undefined = ir.Constant(_FLOATS, ir.Undefined)
        first = builder.insert_element(undefined, arguments[0], ir.Constant(_INT, 0))
        return builder.shuffle_vector(first, undefined, ir.Constant(_INTS, [0] * LANES))

    return _lanes(types.float32), generate


@intrinsic
def fused(typing_context, x, y, z):
    """x * y + z, rounded once where the processor has an instruction for it.

    LLVM may not choose which products it fuses: two copies of a function could then round differently, and numba calls
    one copy in the process that compiles a kernel, and another in those that find it on disk.
    """

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
        fmuladd = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")
        return builder.call(fmuladd, arguments)

    return _lanes(_lanes, _lanes, _lanes), generate


@intrinsic
def total(typing_context, value):
    """The sum over the lanes."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(_FLOAT, [_FLOAT, _FLOATS])
        reduce = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{LANES}f32")
        return builder.call(reduce, [ir.Constant(_FLOAT, -0.0), arguments[0]], fastmath=("reassoc",))

    return types.float32(_lanes), generate


@intrinsic
def smaller(typing_context, x, bound):
    """The smaller of both; of a NaN in `x`, the NaN."""

    def generate(context, builder, signature, arguments):
        x, bound = arguments
        return builder.select(builder.fcmp_ordered(">", x, bound), bound, x)

    return _lanes(_lanes, _lanes), generate


@intrinsic
def larger(typing_context, x, bound):
    """The larger of both; of a NaN in `x`, the NaN."""

    def generate(context, builder, signature, arguments):
        x, bound = arguments
        return builder.select(builder.fcmp_ordered("<", x, bound), bound, x)

    return _lanes(_lanes, _lanes), generate


@intrinsic
def where_equal(typing_context, x, y, value):
    """`value` where x and y are equal, elsewhere 0."""

    def generate(context, builder, signature, arguments):
        x, y, value = arguments
        return builder.select(builder.fcmp_ordered("==", x, y), value, ir.Constant(_FLOATS, [0.0] * LANES))

    return _lanes(_lanes, _lanes, _lanes), generate


@intrinsic
def square_root(typing_context, x):
    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(_FLOATS, [_FLOATS])
        sqrt = cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{LANES}f32")
        return builder.call(sqrt, arguments)

    return _lanes(_lanes), generate


@intrinsic
def _low_bits_as_exponent(typing_context, x):
    def generate(context, builder, signature, arguments):
        bits = builder.bitcast(arguments[0], _INTS)
        return builder.bitcast(builder.shl(bits, ir.Constant(_INTS, [_MANTISSA_BITS] * LANES)), _FLOATS)

    return _lanes(_lanes), generate


def _overload_operator(symbol, instruction: str) -> None:
    @intrinsic
    def combine(typing_context, x, y):
        def generate(context, builder, signature, arguments):
            return getattr(builder, instruction)(*arguments)

        return _lanes(_lanes, _lanes), generate

    @overload(symbol)
    def of_lanes(x, y):
        if isinstance(x, _Lanes) and isinstance(y, _Lanes):
            return lambda x, y: combine(x, y)
        return None


_overload_operator(operator.add, "fadd")
_overload_operator(operator.sub, "fsub")
_overload_operator(operator.mul, "fmul")
_overload_operator(operator.truediv, "fdiv")


ZERO, ONE, TWO = np.float32(0), np.float32(1), np.float32(2)
LN2, LOG2E = np.float32(math.log(2)), np.float32(1 / math.log(2))

# A float of this size has no bits below one: adding it rounds, and leaves the integer and the exponent's bias in the
# lowest bits.
_ROUND = np.float32(3 * 2 ** (_MANTISSA_BITS - 1) + 127)
_MIN_EXPONENT, _MAX_EXPONENT = np.float32(-126), np.float32(127)
# (2^r - 1) / r for |r| <= 1/2, interpolated at Chebyshev's points: within 2e-9.
_E1, _E2, _E3, _E4, _E5, _E6 = (
    Chebyshev.interpolate(lambda r: np.expm1(r * math.log(2)) / r, deg=5, domain=[-0.5, 0.5])
    .convert(kind=Polynomial)
    .coef.astype(np.float32)
)
# artanh(s) / s in powers of s^2, for s <= 1/3: the first term left out is below 2e-8.
_L1, _L2, _L3, _L4, _L5, _L6 = (np.float32(1 / (2 * i + 1)) for i in range(1, 7))


@helper
def exp2_parts(x):
    """2^i and 2^x - 2^i, the integer i being next to x: each exact relative to itself. x is kept within -126..127."""
    x = smaller(larger(x, splat(_MIN_EXPONENT)), splat(_MAX_EXPONENT))
    shifted = x + splat(_ROUND)
    r = x - (shifted - splat(_ROUND))
    scale = _low_bits_as_exponent(shifted)
    series = fused(splat(_E6), r, splat(_E5))
    series = fused(series, r, splat(_E4))
    series = fused(series, r, splat(_E3))
    series = fused(series, r, splat(_E2))
    series = fused(series, r, splat(_E1))
    return scale, scale * (series * r)


@helper
def exp2(x):
    """2^x, to about one unit in the last place."""
    scale, rest = exp2_parts(x)
    return scale + rest


@helper
def exp2m1(x):
    """2^x - 1, to about one unit in the last place of the larger of itself and 2^x: exact where x is near 0."""
    scale, rest = exp2_parts(x)
    return rest + (scale - splat(ONE))


@helper
def softplus(x):
    """log(1 + e^x), to a few units in the last place; below -16 the rounding of x / ln 2 shows."""
    positive = larger(x, splat(ZERO))
    magnitude = positive + positive - x
    w = exp2(splat(-LOG2E) * magnitude)
    s = w / (splat(TWO) + w)
    square = s * s
    series = fused(splat(_L6), square, splat(_L5))
    series = fused(series, square, splat(_L4))
    series = fused(series, square, splat(_L3))
    series = fused(series, square, splat(_L2))
    series = fused(series, square, splat(_L1))
    series = fused(series, square, splat(ONE))
    return fused(s + s, series, positive)


@helper
def sigmoid(x):
    return splat(ONE) / (splat(ONE) + exp2(splat(-LOG2E) * x))
