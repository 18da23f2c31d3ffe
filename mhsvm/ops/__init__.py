"""The selective scan, on plain sequences and along the routes of a map."""

from mhsvm.ops.backends import list_backends
from mhsvm.ops.routes.route_attention import route_attention
from mhsvm.ops.routes.route_scan import route_scan
from mhsvm.ops.routes.route_statistics import route_statistics
from mhsvm.ops.scan.selective_scan import selective_scan

__all__ = ["list_backends", "route_attention", "route_scan", "route_statistics", "selective_scan"]
