"""The networks: built by name, loaded from our checkpoints or published ones."""

from mhsvm.models.create import create_model
from mhsvm.models.loading import LoadReport, load_weights
from mhsvm.models.malunet import MALUNet
from mhsvm.models.mhs_vm import MHSVM
from mhsvm.models.pretrained import list_pretrained
from mhsvm.models.registry import list_models, register_model
from mhsvm.models.ultralight_vm_unet import UltraLightVMUNet
from mhsvm.models.vm_unet import VMUNet
from mhsvm.plugins import import_folder

__all__ = [
    "MALUNet",
    "MHSVM",
    "LoadReport",
    "UltraLightVMUNet",
    "VMUNet",
    "create_model",
    "list_models",
    "list_pretrained",
    "load_weights",
    "register_model",
]

# an entry in a new file of this folder registers itself
import_folder(__name__)
