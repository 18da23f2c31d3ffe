"""A trained UltraLight VM-UNet as one file of ONNX, written node by node: an exporter takes minutes, and more bytes."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mhsvm.export.comparison import Exported
from mhsvm.export.engine import check_range
from mhsvm.export.facts import Facts
from mhsvm.export.formats import FORMATS, Export, Format
from mhsvm.export.onnx_graph import Graph
from mhsvm.export.onnx_model import FACTS, SUFFIX, OnnxModel, RuntimeMissing, checksum_entry
from mhsvm.export.onnx_network import IMAGE, PROBABILITY, can_normalize, network_graph
from mhsvm.files import replace_when_complete
from mhsvm.models import UltraLightVMUNet
from mhsvm.models.ultralight_native import changed_layer

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

# The oldest with all operators of the graph, and the version of the file format that came with it.
_OPSET, _IR_VERSION = 18, 8


def unsupported_reason(export: Export) -> str | None:
    """Why ONNX cannot hold a model, or None if it can."""
    if importlib.util.find_spec("onnx") is None:
        return "the package onnx is not installed: pip install 'mhsvm[onnx]'"
    model, facts = export.model, export.facts
    if not isinstance(model, UltraLightVMUNet):
        return f"our writer knows ultralight_vm_unet, not {facts.model}; mhsvm.export_program takes any network"
    if model.in_channels != 3:
        return f"its input are RGB images, and the network has {model.in_channels} channels"
    if not can_normalize(facts.normalization):
        return f"it can normalize by minmax or by statistics of channels, not by {facts.normalization}"
    changed = changed_layer(model)
    if changed is not None:
        return f"our writer knows the published network, and a {changed} differs or has hooks"
    return None


def write_onnx(export: Export, path: Path) -> tuple[Path, ...]:
    """Write the file; it holds no path."""
    from onnx import checker

    assert isinstance(export.model, UltraLightVMUNet)
    if path.suffix.lower() != SUFFIX:
        raise ValueError(f"mhsvm predict knows a file of ONNX by its ending: name it {path.stem}{SUFFIX}")
    weights = torch.cat([weight.detach().flatten() for weight in export.model.parameters()])
    check_range(float(weights.abs().max()), half=export.half)
    model = onnx_model(export)
    checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    with replace_when_complete(path) as partial:
        partial.write_bytes(content + checksum_entry(content))
    return (path,)


def onnx_model(export: Export) -> "ModelProto":
    """The model, without the checksum of its file."""
    from onnx import TensorProto, helper

    assert isinstance(export.model, UltraLightVMUNet)
    facts = export.facts
    graph = network_graph(
        export.model, size=facts.size, normalization=facts.normalization, half=export.half, loops=export.scan
    )
    image = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["N", *facts.size, 3])
    probability = helper.make_tensor_value_info(PROBABILITY, TensorProto.FLOAT, ["N", facts.num_classes, *facts.size])
    model = helper.make_model(
        _graph(graph, facts.model, [image], [probability]),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="mhsvm",
    )
    helper.set_model_props(model, {**facts.lines(), FACTS: facts.to_json()})
    return model


def _graph(graph: Graph, name: str, inputs: list, outputs: list) -> "GraphProto":
    from onnx import helper, numpy_helper

    nodes = [
        helper.make_node(
            node.kind, node.inputs, node.outputs, **{key: _attribute(value) for key, value in node.attributes.items()}
        )
        for node in graph.nodes
    ]
    constants = [numpy_helper.from_array(array, key) for key, array in graph.constants.items()]
    return helper.make_graph(nodes, name, inputs, outputs, constants)


def _attribute(value: Any) -> Any:
    """A body as a graph, whose values have shapes that are not declared; any other attribute as it is."""
    from onnx import TensorProto, helper

    if not isinstance(value, Graph):
        return value
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
        for names in (value.inputs, value.outputs)
    )
    return _graph(value, "step", inputs, outputs)


def open_onnx(files: tuple[Path, ...], facts: Facts) -> Exported | str:
    """Load the file into ONNX Runtime."""
    try:
        model = OnnxModel(files[0])
    except RuntimeMissing as error:
        return str(error)
    return lambda image: model(image[None])[0]


FORMATS.add(
    "onnx",
    Format(
        "one file for ONNX Runtime, browsers, OpenVINO and others",
        write_onnx,
        unsupported_reason,
        open_onnx,
        takes_scan=True,
    ),
)
