"""The network as nodes of ONNX computes the probabilities of the network in float64, for all arguments and sizes."""

import numpy as np
import onnxruntime
import pytest
import torch

from mhsvm.export import Export, Facts
from mhsvm.export.onnx_file import onnx_model
from mhsvm.export.onnx_scan import choose_blocks
from mhsvm.models import create_model
from mhsvm.ops.fused.prepare_batch import minmax

SMALL = {"channels": (4, 4, 8, 8, 12, 16), "branches": 2, "d_state": 3}
ARGUMENTS = {
    "small": SMALL,
    "one branch": SMALL | {"branches": 1, "d_state": 1, "expand": 1},
    "branches of one channel": SMALL | {"channels": (4, 8, 4, 4, 4, 4), "branches": 4},
    "short convolution": SMALL | {"d_conv": 1, "expand": 3},
    "long convolution": SMALL | {"d_conv": 6, "bridge": False},
    "classes": SMALL | {"num_classes": 3, "split_att": "conv"},
    "wide": {"channels": (4, 4, 8, 40, 72, 16), "branches": 2, "d_state": 2},
}
# the deepest maps of (h, w) are h/32 x w/32: one cell, a prime number of cells, and others
SIZES = [(32, 32), (32, 224), (96, 160)]


def trained(seed=0, **arguments):
    """A network in float32 and float64, whose layers all matter and whose probabilities vary."""
    torch.manual_seed(seed)
    model = create_model("ultralight_vm_unet", **arguments, backend="reference").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("A_log"):
                parameter += torch.randn_like(parameter) * 0.3
        model.head.bias -= model(255 * torch.rand(4, 3, 64, 64)).mean((0, 2, 3))
    exact = create_model("ultralight_vm_unet", **arguments, backend="reference").eval()
    exact.load_state_dict(model.state_dict())
    return model, exact.double()


def export(model, size, **options):
    facts = Facts("small", "0", "ultralight_vm_unet", model.head.out_channels, size, "minmax", 0.5)
    return Export(model, facts, **options)


def run(exported, images):
    session = onnxruntime.InferenceSession(onnx_model(exported).SerializeToString())
    return session.run(None, {"image": images})[0]


def probabilities(exact, images):
    with torch.inference_mode():
        logits = exact(minmax(torch.from_numpy(images).permute(0, 3, 1, 2).float()).double())
    return (logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)).numpy()


def noise(number, size, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (number, *size, 3), np.uint8)
    # each image has its own extremes
    return images // np.arange(1, number + 1, dtype=np.uint8)[:, None, None, None]


@pytest.mark.parametrize("scan", [False, True], ids=["nodes", "loops"])
@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments(arguments, scan):
    model, exact = trained(**arguments)
    images = noise(2, (64, 64))
    expected = probabilities(exact, images)
    assert expected.std() > 0.05
    np.testing.assert_allclose(run(export(model, (64, 64), scan=scan), images), expected, atol=2e-5)


@pytest.mark.parametrize("scan", [False, True], ids=["nodes", "loops"])
@pytest.mark.parametrize("size", SIZES)
def test_sizes_and_batches(size, scan):
    model, exact = trained(**SMALL)
    images = noise(3, size)
    found = run(export(model, size, scan=scan), images)
    np.testing.assert_allclose(found, probabilities(exact, images), atol=2e-5)
    alone = np.concatenate([run(export(model, size, scan=scan), image[None]) for image in images])
    np.testing.assert_allclose(found, alone, atol=1e-6)


@pytest.mark.parametrize("scan", [False, True], ids=["nodes", "loops"])
def test_extreme_decays(scan):
    model, exact = trained(**SMALL)
    # delta * A from -50 on
    for network in (model, exact):
        for name, parameter in network.named_parameters():
            if name.endswith("dt_proj.bias"):
                parameter.data = torch.linspace(-60, 60, len(parameter)).to(parameter)
    images = noise(1, (64, 64))
    np.testing.assert_allclose(run(export(model, (64, 64), scan=scan), images), probabilities(exact, images), atol=2e-5)


@pytest.mark.parametrize("name", ["black", "white pixel", "black and white"])
def test_extreme_images(name):
    model, exact = trained(**SMALL)
    images = np.zeros((1, 64, 64, 3), np.uint8)
    if name == "white pixel":
        images[0, 20, 30] = 255
    if name == "black and white":
        images[:] = 255 * np.random.default_rng(1).integers(0, 2, images.shape, np.uint8)
    np.testing.assert_allclose(run(export(model, (64, 64)), images), probabilities(exact, images), atol=2e-5)


def test_weights_in_16_bits():
    model, exact = trained(**SMALL)
    images = noise(2, (64, 64))
    whole, half = (onnx_model(export(model, (64, 64), half=half)).ByteSize() for half in (False, True))
    assert half < whole
    difference = np.abs(run(export(model, (64, 64), half=True), images) - probabilities(exact, images)).max()
    assert 1e-6 < difference < 1e-2


def nodes(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes(attribute.g)


def test_nodes_are_those_that_runtimes_have():
    model, _ = trained(**SMALL)
    found = onnx_model(export(model, (64, 64)))
    assert [(each.domain, each.version) for each in found.opset_import] == [("", 18)]
    # WebGPU binds ten buffers
    assert max(max(len(node.input), len(node.output)) for node in nodes(found.graph)) == 8
    kinds = {node.op_type for node in nodes(found.graph)}
    assert not kinds & {"Scan", "Loop", "If", "Gelu", "CumSum"}
    assert not any(node.name or node.doc_string or node.metadata_props for node in nodes(found.graph))
    by_loops = onnx_model(export(model, (64, 64), scan=True))
    assert sum(node.op_type == "Scan" for node in nodes(by_loops.graph)) == 12
    assert by_loops.ByteSize() < found.ByteSize()


@pytest.mark.parametrize(
    ("num_cells", "least", "expected"),
    [
        (1, 3, (1, 1)),
        (2, 3, (2, 1)),
        (7, 3, (7, 1)),
        (64, 3, (8, 8)),
        (1024, 3, (32, 32)),
        (15, 3, (3, 5)),
        (9, 5, (9, 1)),
    ],
)
def test_blocks_divide_the_sequence(num_cells, least, expected):
    blocks = choose_blocks(num_cells, branches=2, least=least)
    assert (blocks.length, blocks.number) == expected
