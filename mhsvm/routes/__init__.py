"""Scan routes: orders of the cells of a map."""

from mhsvm.plugins import import_folder
from mhsvm.routes.patterns import list_patterns, register_pattern
from mhsvm.routes.table import published_tables, route_table, scan_routes

__all__ = ["list_patterns", "published_tables", "register_pattern", "route_table", "scan_routes"]

# an entry in a new file of this folder registers itself
import_folder(__name__)
