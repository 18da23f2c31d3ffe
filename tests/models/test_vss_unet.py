import pytest
import torch
from torch import nn

from mhsvm.layers import DropPath, LayerNorm, MultiHeadScan, RouteS6, ScanRouteAttention
from mhsvm.models import create_model


def num_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("patterns", "project", "expected"),
    [
        (("C", "X", "S"), True, 17_386_153),
        (("C", "X", "S", "Z"), True, 17_257_129),
        (("C", "X", "S"), False, 14_250_601),
        (("C", "X", "S", "Z"), False, 14_121_577),
    ],
)
def test_mhs_vm_has_the_published_number_of_parameters(patterns, project, expected):
    assert num_parameters(create_model("mhs_vm", patterns=patterns, project=project)) == expected


def test_vm_unet_has_the_published_number_of_parameters():
    assert num_parameters(create_model("vm_unet")) == 27_427_561


@pytest.mark.parametrize("name", ["mhs_vm", "vm_unet"])
def test_initial_values(name):
    torch.manual_seed(0)
    model = create_model(name, dims=(32, 64), depths=(1, 1), decoder_depths=(1, 1))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            assert module.bias is None
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert abs(module.weight.mean().item()) < 0.002
        elif isinstance(module, nn.LayerNorm):
            assert module.eps == 1e-5
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
        elif isinstance(module, nn.Conv2d):
            bound = (module.weight[0].numel()) ** -0.5
            assert bound * 0.7 < module.weight.abs().max() <= bound
            assert 0 < module.bias.abs().max() <= bound
        elif isinstance(module, RouteS6):
            # The truncated normal of the linear layers does not reach the stacked parameters.
            assert module.x_proj.abs().max().item() == pytest.approx(module.D.shape[-1] ** -0.5, rel=0.05)
            assert module.dt_bias.max() < 0


@pytest.mark.parametrize("name", ["mhs_vm", "vm_unet"])
def test_drop_path_rises_over_the_encoder_and_falls_over_the_decoder(name):
    model = create_model(name, dims=(8, 16, 32), depths=(2, 1, 2), decoder_depths=(1, 2, 1), drop_path_rate=0.2)
    layers = {key: module for key, module in model.named_modules() if isinstance(module, DropPath)}
    encoder = [module.rate for key, module in layers.items() if key.startswith("encoder")]
    decoder = [module.rate for key, module in layers.items() if key.startswith("decoder")]
    assert encoder == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert decoder == pytest.approx([0.2, 0.4 / 3, 0.2 / 3, 0])


@pytest.mark.parametrize("name", ["mhs_vm", "vm_unet"])
def test_drop_path_acts_in_training_only(name, small_model):
    model = small_model(name, drop_path_rate=0.9).train()
    image = torch.randn(1, 3, 8, 8)
    outputs = [model(image) for _ in range(8)]
    assert any(not torch.equal(outputs[0], output) for output in outputs[1:])
    model.eval()
    assert torch.equal(model(image), model(image))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
# torch's compiler reads the gradient of each input; pytest does not see how it silences the warning
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_blocks_of_one_width_share_what_is_compiled():
    compiled = []

    def count(graph, inputs):
        compiled.append(graph)
        return graph.forward

    torch.manual_seed(0)
    sizes = {"dims": (8, 16), "depths": (3, 3), "decoder_depths": (2, 3), "drop_path_rate": 0.4}
    model = create_model("vm_unet", backend="chunked", **sizes).eval()
    image = torch.rand(2, 3, 16, 16)
    expected = model(image)
    model.compile(backend=count, dynamic=False)
    assert torch.allclose(model(image), expected, atol=1e-5)
    # embedding, merging, expanding inside and before the head, two widths of blocks
    assert len(compiled) == 6
    model.train()(image)
    # blocks that drop branches, of either width; the first and the last, which never do
    assert len(compiled) == 6 + 2 + 1


def test_every_decoder_stage_but_the_first_adds_the_encoder_input_of_its_size():
    torch.manual_seed(0)
    model = create_model("vm_unet", dims=(8, 16, 32), depths=(1, 1, 1), decoder_depths=(1, 1, 1)).eval()
    inputs = {}
    for name, stages in (("encoder", model.encoder), ("decoder", model.decoder)):
        for i, stage in enumerate(stages):
            stage.register_forward_hook(lambda _, args, out, key=(name, i): inputs.update({key: (args[0], out)}))
    model(torch.randn(1, 3, 32, 32))
    assert torch.equal(inputs["decoder", 0][0], inputs["encoder", 2][1])
    for j in (1, 2):
        skip = inputs["encoder", 3 - j][0]
        assert torch.equal(inputs["decoder", j][0], inputs["decoder", j - 1][1] + skip)


@pytest.mark.parametrize("gate", ["relu", "sigmoid", "power", "exp", "none"])
def test_every_gate_is_an_argument_of_the_model(gate, small_model):
    image = torch.randn(1, 3, 8, 8)
    model = small_model("mhs_vm", gate=gate, gate_threshold=0.3, gate_power=3.0)
    attentions = [module for module in model.modules() if isinstance(module, ScanRouteAttention)]
    assert {(attention.gate, attention.threshold, attention.power) for attention in attentions} == {(gate, 0.3, 3.0)}
    assert not torch.allclose(model(image), small_model("mhs_vm", gate="relu", gate_threshold=10.0)(image))


def test_heads_of_the_model_are_those_asked_for():
    model = create_model("mhs_vm", dims=(12, 24), depths=(1, 1), decoder_depths=(1, 1), patterns=("Z", "C", "Z"))
    scans = [module for module in model.modules() if isinstance(module, MultiHeadScan)]
    assert len(scans) == 4
    assert {scan.s6.patterns for scan in scans} == {("Z", "C", "Z")}


@pytest.mark.parametrize("name", ["mhs_vm", "vm_unet"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dims": (8, 16)}, r"one number a stage; received dims=\(8, 16\), depths=\(2, 2, 2, 2\)"),
        ({"dims": (8, 16, 32, 60)}, r"twice the previous one; received \(8, 16, 32, 60\), expected \(8, 16, 32, 64\)"),
        ({"dims": (6, 12, 24, 48)}, "the first of dims must be a multiple of 4"),
        ({"depths": (2, 2, 0, 2)}, "at least one block; received depths="),
    ],
)
def test_stages_that_do_not_fit_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **arguments)


@pytest.mark.parametrize(("name", "wide_in_blocks"), [("mhs_vm", {"mixer.norm"}), ("vm_unet", set())])
def test_norms_that_feed_a_residual_stream_stay_in_float32_under_autocast(name, wide_in_blocks):
    model = create_model(name, dims=(8, 16), depths=(1, 1), decoder_depths=(1, 1))
    wide = {
        key for key, module in model.named_modules() if isinstance(module, LayerNorm) and not module.autocast_output
    }
    blocks = [key for key, module in model.named_modules() if type(module).__name__ == "VSSBlock"]
    assert len(blocks) == 4
    expected = {f"{block}.{norm}" for block in blocks for norm in wide_in_blocks}
    assert wide == expected | {"patch_embed.norm", "decoder.1.expand.norm"}
