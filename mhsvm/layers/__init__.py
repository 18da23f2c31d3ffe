"""Building blocks of the networks: plain modules, independent of configs, devices and files."""

from mhsvm.layers.bidirectional import BidirectionalMamba
from mhsvm.layers.bridge import SkipBridge
from mhsvm.layers.drop_path import DropPath
from mhsvm.layers.gated_scan import GatedScan
from mhsvm.layers.group_norm import GroupNormGELU
from mhsvm.layers.layer_norm import LayerNorm
from mhsvm.layers.mamba import Mamba
from mhsvm.layers.mamba2 import Mamba2
from mhsvm.layers.multi_head_scan import MultiHeadScan
from mhsvm.layers.patch import PatchEmbed, PatchExpand, PatchMerge
from mhsvm.layers.pvm import PVMLayer
from mhsvm.layers.replacement import Replacement, replace_convs
from mhsvm.layers.s6 import RouteS6
from mhsvm.layers.scan_route_attention import ScanRouteAttention
from mhsvm.layers.ss2d import SS2D
from mhsvm.plugins import import_folder

__all__ = [
    "SS2D",
    "BidirectionalMamba",
    "DropPath",
    "GatedScan",
    "GroupNormGELU",
    "LayerNorm",
    "Mamba",
    "Mamba2",
    "MultiHeadScan",
    "PVMLayer",
    "PatchEmbed",
    "PatchExpand",
    "PatchMerge",
    "Replacement",
    "RouteS6",
    "ScanRouteAttention",
    "SkipBridge",
    "replace_convs",
]

# an entry in a new file of this folder registers itself
import_folder(__name__)
