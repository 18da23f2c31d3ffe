"""Sources: the data sets that can be prepared, with one file each."""

from mhsvm.plugins import import_folder
from mhsvm.prepare.sources.registry import SOURCES, GroupTable, Source, list_sources, register_source

__all__ = ["SOURCES", "GroupTable", "Source", "list_sources", "register_source"]

# a source in a new file of this folder registers itself
import_folder(__name__)
