"""Every layer with parameters is called, or replaced only while nothing from outside is attached to it."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, parametrize, prune

from mhsvm.layers import GatedScan, LayerNorm, PVMLayer, SkipBridge
from mhsvm.layers.plain import is_plain
from mhsvm.models import create_model
from mhsvm.models.registry import MODELS
from tests.fixtures.networks import OWN_NETWORKS

WRAPPABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.LayerNorm, nn.GroupNorm)
each_network = pytest.mark.parametrize("name", OWN_NETWORKS)


def build(name, backend="cpu"):
    torch.manual_seed(0)
    model = create_model(name, **MODELS[name].small, backend=backend)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(10)
    return model.eval(), torch.randn(2, 3, model.stride, 2 * model.stride)


def layers_of(model):
    return {path: layer for path, layer in model.named_modules() if isinstance(layer, WRAPPABLE)}


def set_layer(model, path, layer):
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


class Adapter(nn.Module):
    """A layer with something trainable beside it, as peft's: weight and bias stay reachable."""

    def __init__(self, base):
        super().__init__()
        self.base, self.beside = base, deepcopy(base)

    @property
    def weight(self):
        return self.base.weight

    @property
    def bias(self):
        return self.base.bias

    def forward(self, *args, **kwargs):
        return self.base(*args, **kwargs) + self.beside(*args, **kwargs)


class Half(nn.Module):
    def forward(self, weight):
        return weight / 2


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@each_network
def test_hooks_of_every_module_with_parameters_run(name, backend):
    model, image = build(name, backend)
    expected, ran, paths = model(image), set(), set()
    for path, module in model.named_modules():
        if next(module.parameters(), None) is not None and not isinstance(module, nn.ModuleList):
            paths.add(path)
            module.register_forward_hook(lambda *_, path=path: ran.add(path))
    torch.testing.assert_close(model(image), expected, rtol=1e-4, atol=1e-5)
    assert ran == paths


@pytest.mark.parametrize("split_att", ["fc", "conv"])
def test_hooks_of_the_bridge_run_and_change_nothing(split_att):
    bridge = SkipBridge((4, 6), split_att=split_att)
    skips, ran = [torch.randn(2, 4, 8, 6), torch.randn(2, 6, 4, 3)], []
    expected = bridge(skips)
    for layer in layers_of(bridge).values():
        layer.register_forward_hook(lambda module, *_: ran.append(module))
    torch.testing.assert_close(bridge(skips), expected)
    assert ran == [bridge.spatial, bridge.spatial, bridge.mix, *bridge.gates]


@each_network
def test_global_hooks_run(name):
    model, image = build(name)
    called = set()
    handle = register_module_forward_hook(lambda module, *_: called.add(module))
    try:
        model(image)
    finally:
        handle.remove()
    assert called >= set(layers_of(model).values())


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@each_network
def test_adapters_around_any_layer_learn(name, backend):
    model, image = build(name, backend)
    for path, layer in layers_of(model).items():
        set_layer(model, path, Adapter(layer))
    output = model.train()(image)
    # with deep supervision there are several outputs
    torch.stack([output] if torch.is_tensor(output) else output).square().sum().backward()
    gradients = {key: value.grad for key, value in model.named_parameters() if ".beside." in key}
    assert gradients
    for key, gradient in gradients.items():
        assert gradient is not None, key
        # beside the layer they begin as copies of, so with its gradient
        torch.testing.assert_close(gradient, model.get_parameter(key.replace(".beside.", ".base.")).grad)


@each_network
def test_parametrized_weights_are_used(name):
    model, image = build(name)
    halved, _ = build(name)
    for path, layer in layers_of(model).items():
        parametrize.register_parametrization(layer, "weight", Half())
        with torch.no_grad():
            halved.get_submodule(path).weight.mul_(0.5)
    torch.testing.assert_close(model(image), halved(image), rtol=1e-4, atol=1e-5)


@each_network
def test_pruned_and_normalized_weights_learn(name):
    model, image = build(name)
    before = model(image)
    for layer in layers_of(model).values():
        if isinstance(layer, nn.Linear):
            prune.l1_unstructured(layer, "weight", amount=0.5)
        elif isinstance(layer, (nn.Conv1d, nn.Conv2d)):
            parametrizations.weight_norm(layer)
    assert not torch.allclose(model(image), before)
    for _ in range(2):
        model(image).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key


@pytest.mark.parametrize(
    ("block", "shape"),
    [
        (lambda: PVMLayer(8, 4, branches=2), (2, 8, 3, 2)),
        (lambda: GatedScan(4, scan=nn.Identity(), inner_channels=4, out_proj=True), (2, 3, 2, 4)),
        (lambda: Bridge((4,)), (2, 4, 6, 3)),
    ],
    ids=["pvm", "gated_scan", "bridge"],
)
def test_adapters_compile_into_one_graph(block, shape):
    torch.manual_seed(0)
    block, x = block(), torch.randn(shape)
    for path, layer in layers_of(block).items():
        set_layer(block, path, Adapter(layer))
    compiled = torch.compile(block, backend="eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(x), block(x))


class Bridge(SkipBridge):
    def forward(self, skip):
        return super().forward([skip])[0]


def test_only_untouched_layers_are_plain():
    assert is_plain(nn.Linear(2, 2))
    assert is_plain(LayerNorm(2))
    assert is_plain(nn.Linear(2, 2, bias=False), bias=False)
    # another layer in the place of one without a bias: its bias is not lost
    assert not is_plain(nn.Linear(2, 2), bias=False)
    assert not is_plain(nn.Conv1d(2, 2, 1, bias=False))
    replaced, backward = nn.Linear(2, 2), nn.Linear(2, 2)
    replaced.forward = lambda x: x
    backward.register_full_backward_hook(lambda *_: None)
    assert not is_plain(replaced)
    assert not is_plain(backward)
