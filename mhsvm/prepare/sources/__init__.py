"""Sources: the data sets that can be prepared, with one file each."""

from mhsvm.prepare.sources import folder, isic2017, isic2018, ph2  # noqa: F401  registers them
from mhsvm.prepare.sources.registry import SOURCES, GroupTable, Source, list_sources, register_source

__all__ = ["SOURCES", "GroupTable", "Source", "list_sources", "register_source"]
