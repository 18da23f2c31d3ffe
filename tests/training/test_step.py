"""The training step: the flag of what is not finite, learning rates, accumulation, averaging, and CUDA graphs."""

import copy

import pytest
import torch
from torch import nn

from mhsvm.defaults import DEFAULTS
from mhsvm.ops import dispatch
from mhsvm.training.ema import ModelAverage
from mhsvm.training.optimizers import create_optimizer, list_optimizers, load_optimizer_state
from mhsvm.training.step import TrainStep

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def make_model(device="cpu", dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1)).to(device)


def batches(num, size=6, device="cpu"):
    generator = torch.Generator().manual_seed(1)
    draws = [torch.randn(2, size, 4, generator=generator) for _ in range(num)]
    return [(x.to(device), y[:, :1].to(device)) for x, y in draws]


def make_step(device="cpu", optimizer="AdamW", mode="eager", dropout=0.0, **settings):
    model = make_model(device, dropout)
    return TrainStep(
        model, create_optimizer(optimizer, model, **DEFAULTS.optimizer[optimizer]), nn.MSELoss(), mode=mode, **settings
    )


def state_of(step):
    """Copies of the weights and the optimizer's state."""
    return copy.deepcopy([step.model.state_dict(), step.optimizer.state_dict()["state"]])


def assert_same(first, second):
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def poison(batch):
    inputs, targets = batch
    return inputs, torch.full_like(targets, float("inf"))


@pytest.mark.parametrize("name", list_optimizers())
def test_an_eager_step_on_a_cpu_is_torch_s_own(name):
    step, model = make_step(optimizer=name, clip_norm=0.1), make_model()
    optimizer = create_optimizer(name, model, **DEFAULTS.optimizer[name])
    for inputs, targets in batches(5):
        loss, found_inf = step(inputs, targets).tolist()
        optimizer.zero_grad()
        expected = nn.functional.mse_loss(model(inputs), targets)
        expected.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        assert (loss, found_inf) == (expected.item(), 0)
    assert_same(step.model.state_dict(), model.state_dict())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("first_bad", [0, 2])
@pytest.mark.parametrize("name", list_optimizers())
def test_nothing_changes_from_the_first_step_that_is_not_finite(name, first_bad, device):
    step = make_step(device, name, clip_norm=1.0)
    data = batches(5, device=device)
    for batch in data[:first_bad]:
        assert step(*batch)[1].item() == 0
    before = state_of(step)
    assert step(*poison(data[first_bad])).tolist() == [float("inf"), 1]
    for batch in data[first_bad + 1 :]:
        loss, found_inf = step(*batch).tolist()
        assert loss < 100
        assert found_inf == 1
    assert step.found_inf()
    weights, states = state_of(step)
    assert_same(weights, before[0])
    if first_bad:
        # Adagrad counts on the CPU, where no flag of the device is asked
        for state in (*states.values(), *before[1].values()):
            state.pop("step" if name == "Adagrad" and device == "cuda" else "", None)
        assert_same(states, before[1])


def test_a_gradient_that_is_not_finite_stops_too():
    step = make_step()
    before = state_of(step)
    inputs, targets = batches(1)[0]
    # the root has an infinite slope where all is right
    step.loss = lambda logits, targets: (logits - logits.detach()).abs().sum().sqrt()
    loss, found_inf = step(inputs, targets).tolist()
    assert (loss, found_inf) == (0, 1)
    assert_same(state_of(step)[0], before[0])


def test_one_bad_batch_of_a_window_stops_its_step():
    step = make_step()
    before = state_of(step)
    good, bad, other = batches(3)
    assert step(*poison(bad), weight=0.5, last=False).tolist() == [float("inf"), 0]
    assert step(*good, weight=0.5, first=False)[1] == 1
    assert_same(state_of(step), before)
    assert step(*other)[1] == 1


@pytest.mark.parametrize("device", DEVICES)
def test_a_window_of_batches_steps_like_one(device):
    (inputs, targets), *_ = batches(1, size=6, device=device)
    whole, parts = make_step(device, clip_norm=0.1), make_step(device, clip_norm=0.1)
    for _ in range(3):
        expected = whole(inputs, targets)[0].item()
        found = 0.0
        for start, end in ((0, 4), (4, 6)):
            weight = (end - start) / 6
            found += parts(inputs[start:end], targets[start:end], weight=weight, first=start == 0, last=end == 6)[
                0
            ].item()
        assert found == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(whole.model.state_dict(), parts.model.state_dict(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("device", DEVICES)
def test_the_average_follows_the_weights(device):
    model = make_model(device)
    average = ModelAverage(model, decay=0.75)
    step = TrainStep(model, create_optimizer("AdamW", model), nn.MSELoss(), mode="eager", average=average)
    expected = copy.deepcopy(model.state_dict())
    for batch in batches(4, device=device):
        step(*batch)
        for name, weight in model.state_dict().items():
            expected[name] = 0.75 * expected[name] + 0.25 * weight
    torch.testing.assert_close(average.model.state_dict(), expected, rtol=1e-6, atol=1e-7)
    assert not any(weight.requires_grad for weight in average.model.parameters())
    assert not average.model.training


@pytest.mark.parametrize("decay", [-0.1, 0.0, 1.0])
def test_a_decay_lies_between_0_and_1(decay):
    with pytest.raises(ValueError, match="is between 0 and 1, such as 0.999; received"):
        ModelAverage(make_model(), decay=decay)


def test_modes_are_checked():
    with pytest.raises(ValueError, match="train.step is one of auto, eager, graph, compile, not 'fast'"):
        make_step(mode="fast")
    with pytest.raises(ValueError, match="train.step graph needs a GPU, and this training runs on cpu: take auto"):
        make_step(mode="graph")
    assert make_step(mode="auto").describe() == "eager"


# torch 2.11 imports what it has deprecated when it compiles
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_network_trains_alike():
    compiled, eager = make_step(mode="compile"), make_step()
    assert compiled.describe() == "compiled network, eager"
    for batch in batches(2):
        assert compiled(*batch)[0].item() == pytest.approx(eager(*batch)[0].item(), rel=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_nothing_is_compiled_for_a_smaller_last_batch():
    compiled, eager = make_step(mode="compile"), make_step()
    (batch,) = batches(1)
    counts = []
    for part in (batch, [x[:1] for x in batch], batch):
        assert compiled(*part)[0].item() == pytest.approx(eager(*part)[0].item(), rel=1e-5)
        counts.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert counts[0] == counts[1] == counts[2]


def test_a_state_from_a_gpu_goes_on_on_a_cpu():
    step = make_step()
    for batch in batches(2):
        step(*batch)
    state = copy.deepcopy(step.optimizer.state_dict())
    for group in state["param_groups"]:
        group |= {"capturable": True, "fused": True}
    other = make_step()
    other.model.load_state_dict(step.model.state_dict())
    load_optimizer_state(other.optimizer, state)
    assert other.optimizer.param_groups[0]["capturable"] is False
    batch = batches(3)[-1]
    assert torch.equal(other(*batch), step(*batch))
    assert_same(state_of(other), state_of(step))


def run_steps(step, data, *, rates=()):
    losses = []
    for i, batch in enumerate(data):
        for group in step.optimizer.param_groups:
            group["lr"] = dict(rates).get(i, group["lr"])
        losses.append(step(*batch)[0].item())
    return losses


@pytest.mark.gpu
@pytest.mark.parametrize("name", list_optimizers())
def test_a_graph_trains_like_eager_steps(name):
    data, rates = batches(20, device="cuda"), [(7, 1e-4), (12, 5e-3)]
    eager, graph = (make_step("cuda", name, mode, clip_norm=0.1) for mode in ("eager", "graph"))
    assert run_steps(graph, data, rates=rates) == pytest.approx(run_steps(eager, data, rates=rates), rel=1e-5)
    torch.testing.assert_close(graph.model.state_dict(), eager.model.state_dict(), rtol=1e-5, atol=1e-7)
    assert ("cannot be captured" in graph.describe()) == (name in ("Adagrad", "SGD"))


@pytest.mark.gpu
def test_graphs_of_several_shapes_and_windows_train_like_eager_steps():
    def train(mode):
        step = make_step("cuda", "AdamW", mode, clip_norm=0.1, average=None)
        losses = []
        for inputs, targets in batches(8, size=16, device="cuda"):
            # windows of 6 + 6 and of the 4 that are left
            for start, end, place in (
                (0, 6, {"weight": 0.5, "last": False}),
                (6, 12, {"weight": 0.5, "first": False}),
                (12, 16, {}),
            ):
                losses.append(step(inputs[start:end], targets[start:end], **place)[0].item())
        return losses, step.model.state_dict()

    (eager_losses, eager), (graph_losses, graph) = train("eager"), train("graph")
    assert graph_losses == pytest.approx(eager_losses, rel=1e-5)
    torch.testing.assert_close(graph, eager, rtol=1e-5, atol=1e-7)


@pytest.mark.gpu
def test_a_graph_draws_the_random_numbers_of_eager_steps():
    losses = {}
    for mode in ("eager", "graph"):
        torch.cuda.manual_seed(5)
        losses[mode] = run_steps(make_step("cuda", mode=mode, dropout=0.5), batches(12, device="cuda"))
    assert losses["graph"] == pytest.approx(losses["eager"], rel=1e-6)
    assert len(set(losses["graph"])) == 12


@pytest.mark.gpu
@pytest.mark.parametrize("name", list_optimizers())
def test_a_graph_halts_too(name):
    step = make_step("cuda", name, "graph")
    data = batches(10, device="cuda")
    for batch in data[:6]:
        step(*batch)
    before = state_of(step)
    assert step(*poison(data[6]))[1].item() == 1
    assert step(*data[7])[1].item() == 1
    assert_same(state_of(step)[0], before[0])


@pytest.mark.gpu
def test_a_graph_averages():
    averages = {}
    for mode in ("eager", "graph"):
        model = make_model("cuda")
        average = ModelAverage(model, decay=0.9)
        step = TrainStep(model, create_optimizer("AdamW", model), nn.MSELoss(), mode=mode, average=average)
        run_steps(step, batches(10, device="cuda"))
        averages[mode] = average.model.state_dict()
    torch.testing.assert_close(averages["graph"], averages["eager"], rtol=1e-5, atol=1e-7)


def test_a_rehearsal_comes_once_for_each_shape_and_changes_nothing(monkeypatch):
    def rehearse(run, module, *, device, num_processes):
        assert module is rehearsed.model
        assert num_processes >= 1
        shapes.append(device.type)
        with torch.random.fork_rng(devices=[]):
            assert run() is None

    shapes = []
    plain, rehearsed = make_step(dropout=0.5), make_step(dropout=0.5)
    steps = [*batches(2), *batches(2, size=3)]
    torch.manual_seed(5)
    expected = [plain(*batch).clone() for batch in steps]
    monkeypatch.setattr("mhsvm.training.step.compile_ahead", rehearse)
    torch.manual_seed(5)
    found = [rehearsed(*batch).clone() for batch in steps]
    assert shapes == ["cpu"] * 2
    assert_same(found, expected)
    assert_same(state_of(rehearsed), state_of(plain))
    assert_same([p.grad for p in rehearsed.model.parameters()], [p.grad for p in plain.model.parameters()])


def test_a_rehearsal_leaves_the_statistics_of_a_batch_norm():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    step = TrainStep(model, create_optimizer("SGD", model, **DEFAULTS.optimizer.SGD), nn.MSELoss(), mode="eager")
    first = model[0](batches(1)[0][0]).mean(0).detach()
    step(*batches(1)[0])
    norm = model[1]
    assert norm.num_batches_tracked == 1
    torch.testing.assert_close(norm.running_mean, 0.1 * first)


class Attentive(nn.Module):
    """Notes who is at work."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.seen = []

    def forward(self, x):
        self.seen.append((torch.compiler.is_compiling(), dispatch._left_to_compiler.get()))
        return self.layer(x)


def test_a_rehearsal_leaves_to_the_compiler_what_it_will_join_and_compiles_nothing(monkeypatch):
    class Rehearsed(Exception):
        pass

    def rehearse(run, module, *, device, num_processes):
        with torch.compiler.set_stance("force_eager"):
            run()
        raise Rehearsed

    monkeypatch.setattr("mhsvm.training.step.compile_ahead", rehearse)
    model = Attentive()
    step = TrainStep(model, create_optimizer("AdamW", model), nn.MSELoss(), mode="compile")
    for batch in (*batches(1), *batches(1, size=3)):
        with pytest.raises(Rehearsed):
            step(*batch)
        step._largest = 6
    # smaller batches run eagerly
    assert model.seen == [(False, True), (False, False)]
