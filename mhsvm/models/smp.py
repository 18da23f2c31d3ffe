"""U-Net and its relatives with an encoder of timm, built by segmentation_models.pytorch: the baselines of the field.

Source: Iakubovskii 2019, https://github.com/qubvel-org/segmentation_models.pytorch; Ronneberger et al. 2015,
arXiv 1505.04597.
"""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from mhsvm.models.image import check_image
from mhsvm.models.registry import register_model
from mhsvm.models.weight_format import KeyMark
from mhsvm.nearest import did_you_mean
from mhsvm.system import name_user
from mhsvm.text_file import first_line

# Architectures that take images of any size; DPT is left out, because its encoders are of a fixed one.
ARCHITECTURES = (
    *("unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "deeplabv3", "deeplabv3plus", "pan", "upernet"),
    "segformer",
)
# Before the name of an encoder that segmentation_models.pytorch takes from timm as it is.
_TIMM = "tu-"


@register_model(
    "smp",
    mark=KeyMark(r"^segmentation_head\.0\.", absent=r"^classification_head\."),
    small={"architecture": "linknet", "encoder": "tu-test_efficientnet"},
)
class SMP(nn.Module):
    """A network of segmentation_models.pytorch, extra `smp`. Its state dict has that package's keys.

    Args:
        num_classes: Channels of the output.
        in_channels: Channels of the image.
        architecture: unet, unetplusplus, manet, linknet, fpn, pspnet, deeplabv3, deeplabv3plus, pan, upernet or
            segformer.
        encoder: An encoder of segmentation_models.pytorch, such as resnet34, or one of timm after "tu-", such as
            tu-convnext_tiny.
        encoder_weights: Name of trained weights of the encoder, such as imagenet; empty for random ones. An encoder of
            timm has a single set, which its name can choose (tu-convnext_tiny.fb_in1k), and takes imagenet only. They
            are read from the cache of Hugging Face on this machine, and never downloaded.
    Raises:
        ValueError: The extra is not installed, a name is unknown, the architecture does not take the encoder, the
            weights are not on this machine, or an image has another shape.
    """

    stride = 32

    def __init__(
        self,
        *,
        num_classes: int = 1,
        in_channels: int = 3,
        architecture: str = "unet",
        encoder: str = "resnet34",
        encoder_weights: str = "",
    ) -> None:
        super().__init__()
        package = _import_package()
        if architecture not in ARCHITECTURES:
            hint = did_you_mean(architecture, ARCHITECTURES)
            raise ValueError(f"architecture is one of {', '.join(ARCHITECTURES)}; received {architecture!r}{hint}")
        _check_encoder(package, encoder)
        weights = _find_weights(package, encoder, encoder_weights) if encoder_weights else {"encoder_weights": None}
        try:
            network = package.create_model(
                architecture, encoder_name=encoder, in_channels=in_channels, classes=num_classes, **weights
            )
        except (AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            # each of timm's families refuses in its own way
            raise ValueError(
                f"segmentation_models.pytorch builds no {architecture} with the encoder {encoder}: "
                f"{first_line(str(error))}. Take another encoder, such as resnet34"
            ) from error
        self.in_channels = in_channels
        self.encoder = network.encoder
        self.decoder = network.decoder
        self.segmentation_head = network.segmentation_head

    def forward(self, image: Tensor) -> Tensor:
        """Image (b, in_channels, H, W) -> logits (b, num_classes, H, W); H and W are multiples of 32."""
        x = check_image(image, in_channels=self.in_channels, stride=self.stride)
        return self.segmentation_head(self.decoder(self.encoder(x)))


def _import_package() -> ModuleType:
    # torch asks for the user's name when parts of it are imported first
    name_user()
    try:
        return importlib.import_module("segmentation_models_pytorch")
    except ImportError as error:
        raise ValueError(
            "the model smp needs segmentation_models.pytorch, the extra smp: pip install 'mhsvm[smp]'"
        ) from error


def _check_encoder(package: ModuleType, encoder: str) -> None:
    if encoder.startswith(_TIMM):
        timm = importlib.import_module("timm")
        name = encoder.removeprefix(_TIMM)
        if not timm.is_model(name):
            hint = did_you_mean(name.partition(".")[0], timm.list_models())
            raise ValueError(f"timm has no model {name!r}, of the encoder {encoder!r}{hint}")
        if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
            raise ValueError(
                f"the encoder {encoder!r} takes images of a fixed size only. Take another one, such as tu-convnext_tiny"
            )
        return
    known = [name for name in package.encoders.encoders if not name.startswith("timm-")]
    if encoder not in known:
        timm = importlib.import_module("timm")
        in_timm = encoder.removeprefix("timm-")
        hint = f". timm has it: take {_TIMM + in_timm!r}." if timm.is_model(in_timm) else did_you_mean(encoder, known)
        listed = ", ".join(known)
        raise ValueError(
            f"unknown encoder {encoder!r}{hint or '.'} Encoders are the models of timm after {_TIMM!r}, and {listed}"
        )


def _find_weights(package: ModuleType, encoder: str, weights: str) -> dict[str, Any]:
    """Arguments of the package for trained weights of the encoder, which are on this machine."""
    if encoder.startswith(_TIMM):
        if weights != "imagenet":
            raise ValueError(
                f"encoder_weights of an encoder of timm is imagenet or empty; received {weights!r}. A name with a tag "
                f"chooses between several sets, such as {_TIMM}convnext_tiny.fb_in1k"
            )
        name = encoder.removeprefix(_TIMM)
        repository = importlib.import_module("timm").get_pretrained_cfg(name).hf_hub_id
        if not repository:
            raise ValueError(f"timm has no trained weights of {name!r}: leave encoder_weights empty")
        file = _find_cached(repository, "main", encoder, ["model.safetensors"])
        # timm reads this file, and looks for no newer one
        return {"encoder_weights": True, "pretrained_cfg_overlay": {"file": str(file)}}
    settings = package.encoders.encoders[encoder]["pretrained_settings"]
    if weights not in settings:
        known = ", ".join(settings) or "none"
        raise ValueError(f"encoder_weights of {encoder} is one of {known}, or empty; received {weights!r}")
    place = settings[weights]
    # with a fixed revision and both files in the cache, the package asks no server
    _find_cached(place["repo_id"], place["revision"], encoder, ["config.json", "model.safetensors"])
    return {"encoder_weights": weights}


def _find_cached(repository: str, revision: str, encoder: str, names: list[str]) -> Path:
    """The last of these files in the cache of Hugging Face, all of which are there."""
    hub = importlib.import_module("huggingface_hub")
    found = [hub.try_to_load_from_cache(repository, name, revision=revision) for name in names]
    missing = [name for name, file in zip(names, found, strict=True) if not isinstance(file, str)]
    if missing:
        raise ValueError(
            f"the weights of the encoder {encoder} are not in the cache of Hugging Face on this machine, and are not "
            f"downloaded here: hf download {repository} {' '.join(names)} --revision {revision}"
        )
    return Path(found[-1])
