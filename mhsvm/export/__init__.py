"""Files with a trained model that need no Python: written, run, and compared with the model in float64."""

from mhsvm.export.comparison import Comparison
from mhsvm.export.facts import Facts
from mhsvm.export.formats import FORMATS, Export, Format
from mhsvm.plugins import import_folder

__all__ = ["FORMATS", "Comparison", "Export", "Facts", "Format"]

# a format in a new file of this folder registers itself
import_folder(__name__)
