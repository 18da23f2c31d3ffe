"""Operations of the networks: selective scans, operations on routes, and operations that kernels fuse.

Every operation has a plain reference by torch's operations and is dispatched by `mhsvm.ops.dispatch`. A letter has one
meaning as the size of a dimension in all files; the docstring of a file names sizes of its own:

    b batch             h, w height and width of a map
    l steps of a sequence, cells of a map, or rows of a matrix       t steps of a chunk or tile
    s chunks or tiles whose partial results are added
    c channels of a map                    d channels of a sequence, or of a head in a route scan
    g groups of channels                   e channels of a group     n state size
    m heads             k routes of a head                           r rank of delta's projection
    p branches          v channels of a branch                       f taps of a filter

A scan has B and C for each of g groups of e channels, d = g * e; in a route scan a group is a route of a head,
g = m * k. Time or cells come before channels, (b, l, d); only `selective_scan` and `causal_conv1d` take (b, d, l).

In kernels, an upper-case letter is the size of a tile along that dimension, a compile-time constant. Names begin with
`p_` for pointers, `o_` offsets, `m_` masks, `i_` ids, `s_` strides and `b_` values in registers.
"""

from mhsvm.ops.backends import list_backends
from mhsvm.ops.routes.route_attention import route_attention
from mhsvm.ops.routes.route_scan import route_scan
from mhsvm.ops.routes.route_statistics import route_statistics
from mhsvm.ops.scan.selective_scan import selective_scan

__all__ = ["list_backends", "route_attention", "route_scan", "route_statistics", "selective_scan"]
