import pytest
import torch

from mhsvm.models import create_model, load_weights
from mhsvm.models.checkpoint_file import read_checkpoint
from tests.fixtures.networks import OWN_NETWORKS


@pytest.fixture
def filled(small_model, published_state):
    """A small network and a published file that fits it."""

    def make(name, **changes):
        model = small_model(name, **changes)
        return model, published_state(name, model)

    return make


@pytest.mark.parametrize("name", OWN_NETWORKS)
def test_our_checkpoints_come_back(name, small_model, tmp_path):
    model, other = small_model(name), small_model(name)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_()
    path = tmp_path / "best.pt"
    torch.save({"format": "mhsvm-checkpoint", "config": {}, "model": model.state_dict()}, path)
    report = load_weights(other, path)
    assert set(report.filled) == set(model.state_dict())
    assert not report.unfilled
    assert not report.unused
    for key, value in other.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
    load_weights(small_model(name), str(path))
    load_weights(small_model(name), read_checkpoint(path))
    load_weights(small_model(name), model.state_dict())


@pytest.mark.parametrize("name", OWN_NETWORKS)
@pytest.mark.parametrize("form", ["plain", "training", "parallel", "profiled"])
def test_every_form_of_a_published_file(name, form, filled, small_model):
    model, state = filled(name)
    load_weights(model, state)
    content = {
        "plain": state,
        "training": {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {}},
        "parallel": {f"module.{key}": value for key, value in state.items()},
        "profiled": {**state, "total_ops": torch.zeros(1), "vmunet.final_conv.total_params": torch.zeros(1)},
    }[form]
    other = small_model(name)
    report = load_weights(other, content)
    assert set(report.filled) == set(model.state_dict())
    image = torch.randn(1, 3, model.stride, model.stride)
    assert torch.equal(other(image), model(image))


@pytest.mark.parametrize("published", [False, True], ids=["ours", "published"])
@pytest.mark.parametrize("prefix", ["model.", "net.", "network.", "module.model._orig_mod.", "self.backbone.", "x."])
@pytest.mark.parametrize("name", OWN_NETWORKS)
def test_a_network_that_is_an_attribute_of_another_module(name, prefix, published, filled, small_model):
    model, state = filled(name)
    load_weights(model, state)
    if not published:
        state = model.state_dict()
    other = small_model(name)
    load_weights(other, {"state_dict": {prefix + key: value for key, value in state.items()}, "epoch": 3})
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in other.state_dict().items())


@pytest.mark.parametrize("name", OWN_NETWORKS)
def test_what_was_saved_beside_the_network_is_reported(name, small_model):
    model, other = small_model(name), small_model(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    report = load_weights(other, {"state_dict": {**state, "criterion.pos_weight": torch.ones(1)}})
    assert report.unused == ("criterion.pos_weight",)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in other.state_dict().items())
    twice = {**state, **{key.replace("model.", "ema."): value + 1 for key, value in state.items()}}
    with pytest.raises(ValueError, match=rf"holds several networks: {name} under model\., {name} under ema\."):
        load_weights(other, twice)
    del state["model.head.bias"]
    with pytest.raises(ValueError, match="missing, 1: head.bias"):
        load_weights(other, state)


def test_a_network_without_a_mark_is_found_under_a_prefix():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    state = {f"model.net.{key}": torch.ones_like(value) for key, value in model.state_dict().items()}
    load_weights(model, state)
    assert torch.equal(model[0].weight, torch.ones(2, 3))


def test_the_heads_of_a_published_file_are_stacked(filled):
    model, state = filled("mhs_vm")
    load_weights(model, state)
    scan = model.decoder[1].blocks[0].mixer.scan.s6
    head = "vmunet.layers_up.1.blocks.0.self_attention.mhs.scanhead_{}.mambaeng."
    for index, pattern in enumerate("CXS"):
        prefix = head.format(pattern)
        assert torch.equal(scan.x_proj[index], state[prefix + "x_proj_weight"])
        assert torch.equal(scan.dt_bias[index], state[prefix + "dt_projs_bias"])
        assert torch.equal(scan.A_log[index].flatten(0, 1), state[prefix + "A_logs"])
        assert torch.equal(scan.D[index].flatten(), state[prefix + "Ds"])


def test_the_routes_of_a_published_vm_unet_are_reordered(filled):
    model, state = filled("vm_unet")
    load_weights(model, state)
    scan = model.encoder[0].blocks[0].mixer.scan.s6
    row, column, row_back, column_back = state["vmunet.layers.0.blocks.0.self_attention.dt_projs_bias"]
    for ours, theirs in zip(scan.dt_bias[0], (row, row_back, column, column_back), strict=True):
        assert torch.equal(ours, theirs)


def test_all_that_does_not_fit_is_in_one_message_and_nothing_is_loaded(filled):
    model, state = filled("vm_unet")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    del state["vmunet.layers.1.blocks.1.ln_1.bias"]
    state["vmunet.layers.1.blocks.2.ln_1.bias"] = torch.zeros(16)
    state["vmunet.layers.0.blocks.0.self_attention.A_logs"] = torch.zeros(64, 8)
    with pytest.raises(ValueError, match="the weights do not fit this VMUNet") as error:
        load_weights(model, state)
    message = str(error.value)
    assert "missing, 1: layers.1.blocks.1.ln_1.bias" in message
    assert "unexpected, 1: layers.1.blocks.2.ln_1.bias" in message
    assert "layers.0.blocks.0.self_attention.A_logs (file (64, 8), model (64, 4))" in message
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_our_own_state_dict_must_fit_too(small_model):
    model = small_model("ultralight_vm_unet")
    state = dict(model.state_dict())
    state["head.extra"] = torch.zeros(1)
    state["head.bias"] = torch.zeros(2)
    del state["head.weight"]
    with pytest.raises(ValueError, match="do not fit this UltraLightVMUNet") as error:
        load_weights(model, state)
    assert "missing, 1: head.weight" in str(error.value)
    assert "unexpected, 1: head.extra" in str(error.value)
    assert "head.bias (file (2,), model (1,))" in str(error.value)


def test_a_network_of_somebody_else_is_loaded_strictly(small_model, published_state):
    model = torch.nn.Linear(3, 2)
    report = load_weights(model, {"module.weight": torch.ones(2, 3), "module.bias": torch.zeros(2)})
    assert report.filled == ("weight", "bias")
    assert torch.equal(model.weight, torch.ones(2, 3))
    with pytest.raises(ValueError, match="do not fit this Linear:\n  missing, 1: bias"):
        load_weights(model, {"weight": torch.ones(2, 3)})
    with pytest.raises(
        ValueError, match="holds weights of vm_unet, under the names of its authors; the model is a Linear"
    ):
        load_weights(model, published_state("vm_unet", small_model("vm_unet")))


@pytest.mark.parametrize("name", OWN_NETWORKS)
def test_a_file_of_another_network_says_which(name, filled, small_model):
    _, state = filled(name)
    other = small_model("vm_unet" if name != "vm_unet" else "mhs_vm")
    with pytest.raises(ValueError, match=f"holds weights of {name}, under the names of its authors; the model is a "):
        load_weights(other, state)
    with pytest.raises(ValueError, match=f"holds weights of {name}, under the names of this package"):
        load_weights(other, small_model(name).state_dict())


def test_doubles_must_be_equal(filled):
    model, state = filled("mhs_vm")
    twin = "vmunet.layers.0.blocks.0.self_attention.mhs.scanhead_C.scanning.seq2seq_engine.Ds"
    state[twin] = state[twin] + 1
    with pytest.raises(ValueError, match="two names, with different values: layers.0.*scanhead_C.mambaeng.Ds"):
        load_weights(model, state)
    del state[twin]
    load_weights(model, state)


def test_heads_of_another_network_are_refused(filled, small_model):
    _, state = filled("mhs_vm")
    with pytest.raises(ValueError, match=r"heads scan along C, X, S, in this order; the model's along X, C, S"):
        load_weights(small_model("mhs_vm", patterns=("X", "C", "S")), state)
    with pytest.raises(ValueError, match=r"Build it with patterns=\('C', 'X', 'S'\)"):
        load_weights(small_model("mhs_vm", patterns=("C", "X", "S", "Z")), state)
    with pytest.raises(ValueError, match="Build it with gate_learnable=False"):
        load_weights(small_model("mhs_vm", gate_learnable=True), state)


def test_a_file_with_projections_does_not_fit_a_network_without(filled, small_model):
    _, state = filled("mhs_vm", dims=(12, 24))
    with pytest.raises(ValueError, match=r"unexpected, .*layers\.0\.blocks\.0\.self_attention\.mhs\.cat_norm\.weight"):
        load_weights(small_model("mhs_vm", dims=(12, 24), project=False), state)


@pytest.fixture
def vmamba(published_state):
    """The content of a file of VMamba's encoder with a classifier, and one block more than VM-UNet in stage 1."""
    torch.manual_seed(0)
    encoder = create_model("vm_unet", dims=(8, 16), depths=(1, 3), decoder_depths=(1, 1), d_state=4)
    state = {
        key.removeprefix("vmunet."): value
        for key, value in published_state("vm_unet", encoder).items()
        if not key.startswith(("vmunet.layers_up.", "vmunet.final_"))
    }
    return {"model": {**state, "classifier.head.weight": torch.zeros(10, 16)}}


def test_vmamba_fills_the_encoder_and_the_decoder_stage_of_its_size(vmamba, small_model):
    model = small_model("vm_unet")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = load_weights(model, vmamba)
    after, state = model.state_dict(), vmamba["model"]
    norm = "blocks.0.norm.weight"
    assert torch.equal(after[f"encoder.0.{norm}"], state["layers.0.blocks.0.ln_1.weight"])
    assert torch.equal(after[f"decoder.1.{norm}"], state["layers.0.blocks.0.ln_1.weight"])
    assert torch.equal(after["encoder.1.blocks.1.norm.weight"], state["layers.1.blocks.1.ln_1.weight"])
    assert torch.equal(after["decoder.0.blocks.1.norm.weight"], state["layers.1.blocks.1.ln_1.weight"])
    assert torch.equal(after["patch_embed.proj.weight"], state["patch_embed.proj.weight"])
    assert set(report.unfilled) == {
        "decoder.1.expand.linear.weight",
        "decoder.1.expand.norm.weight",
        "decoder.1.expand.norm.bias",
        "head_expand.linear.weight",
        "head_expand.norm.weight",
        "head_expand.norm.bias",
        "head.weight",
        "head.bias",
    }
    assert all(torch.equal(after[key], before[key]) for key in report.unfilled)
    assert set(report.filled) | set(report.unfilled) == set(after)
    unused = {key for key in state if key.startswith("layers.1.blocks.2.")} | {"classifier.head.weight"}
    assert set(report.unused) == unused
    assert f"filled {len(report.filled)} tensors" in str(report)
    assert "not filled, 8: " in str(report)
    assert f"not used of the file, {len(unused)}: " in str(report)


def test_vmamba_of_another_width_is_refused(vmamba, small_model):
    model = small_model("vm_unet", dims=(16, 32))
    with pytest.raises(ValueError, match="the weights of VMamba do not fit this VMUNet") as error:
        load_weights(model, vmamba)
    assert "patch_embed.proj.weight (file (8, 3, 4, 4), model (16, 3, 4, 4))" in str(error.value)
    with pytest.raises(ValueError, match="holds weights of vm_unet, under the names of VMamba; the model is a MHSVM"):
        load_weights(small_model("mhs_vm"), vmamba)
