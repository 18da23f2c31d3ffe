"""Operations: selective scans of sequences and along the routes of a map, and operations that kernels fuse.

Letters of dimensions in all files: b batch, l steps of a sequence or cells of a map, d channels (of a head in a route
scan), g groups of channels that share B and C, e channels of a group, n state size, m heads, k routes of a head, r rank
of the projection of delta. Time or cells come before channels, (b, l, d); only `selective_scan` takes (b, d, l).
"""

from mhsvm.ops.backends import list_backends
from mhsvm.ops.routes.route_attention import route_attention
from mhsvm.ops.routes.route_scan import route_scan
from mhsvm.ops.routes.route_statistics import route_statistics
from mhsvm.ops.scan.selective_scan import selective_scan

__all__ = ["list_backends", "route_attention", "route_scan", "route_statistics", "selective_scan"]
