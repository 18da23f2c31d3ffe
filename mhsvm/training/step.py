"""One step of the optimizer, over one or several batches: eager, or as CUDA graphs.

Nothing here synchronizes with a GPU. The loss stays on the device, and so does a flag that is set by the first step
whose loss or gradient is not finite. From then on, steps change neither the weights nor the state of the optimizer.

Shape letters: b batch.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mhsvm.ops.compiling.ahead import compile_ahead
from mhsvm.ops.dispatch import left_to_compiler
from mhsvm.runtime.graphs import WARM_UP_CALLS, CapturedCall, warm_up
from mhsvm.system import num_cores
from mhsvm.training.ema import ModelAverage
from mhsvm.training.image_parts import forward_in_parts

STEP_MODES = ("auto", "eager", "graph", "compile")
_MOST_VARIANTS = 64

Prepare = Callable[..., tuple[Tensor, Tensor]]


class TrainStep:
    """Takes the steps of a training: forward, loss, backward, clipping, optimizer, moving average.

    Batches of each shape are captured as a CUDA graph after a few warm-up steps; the learning rate may change between
    steps. Weights, gradients and the state of the optimizer keep their addresses from then on: load states in place,
    and leave `zero_grad` to the step.

    Args:
        model: Returns logits; in training mode when a step is taken.
        optimizer: Steps its parameters; a graph requires one from `mhsvm.training.optimizers.create_optimizer`.
        loss: (logits, targets) -> mean over the batch.
        prepare: Turns a batch into inputs and targets, on the device; by default the batch is (inputs, targets).
        mode: "eager"; "graph", which needs a GPU; "compile", torch.compile for the network, on a GPU inside the graph,
            except for batches that are smaller than earlier ones; "auto" is "graph" on a GPU and "eager" elsewhere. A
            network is compiled in place, by its method `compile`.
        clip_norm: Largest norm of all gradients together; 0 does not clip.
        precision: The network's type: float32, or a 16-bit type under autocast. The loss is float32.
        average: Moving average of the weights, updated after each step.
        sum_up: Replaces tensors by their sums over the processes that train together, see
            `mhsvm.runtime.distributed.World.sum`; None for a single process.
    Attributes:
        compiled: The network goes through torch.compile.
        captures: Batches are run as CUDA graphs.
        pool: Memory of these graphs, for other graphs that never run at the same time; None without graphs.
    Raises:
        ValueError: The mode is unknown or needs another device.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss: nn.Module,
        *,
        prepare: Prepare | None = None,
        mode: str = "auto",
        clip_norm: float = 0.0,
        precision: torch.dtype = torch.float32,
        average: ModelAverage | None = None,
        sum_up: Callable[[Sequence[Tensor]], None] | None = None,
    ) -> None:
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.device = self._parameters[0].device
        on_gpu = self.device.type == "cuda"
        if mode not in STEP_MODES:
            raise ValueError(f"train.step is one of {', '.join(STEP_MODES)}, not {mode!r}")
        if mode == "graph" and not on_gpu:
            raise ValueError(f"train.step graph needs a GPU, and this training runs on {self.device}: take auto")
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self.clip_norm = clip_norm
        self.precision = precision
        self.average = average
        self._sum_up = sum_up
        self._prepare = prepare
        self.compiled = mode == "compile"
        if self.compiled:
            _compile(model)
        self.captures = on_gpu and mode != "eager"
        self._capturable = all(group.get("capturable", False) for group in optimizer.param_groups)
        # An optimizer that can be captured steps eagerly too, at least before the capture: torch would warn of that.
        optimizer._warned_capturable_if_run_uncaptured = True

        self._report = torch.zeros(2, device=self.device)
        self._total = torch.zeros((), device=self.device)
        self._weight = torch.ones((), device=self.device)
        self._weight_value = 1.0
        self._found_inf = torch.zeros((), device=self.device)
        # a learning rate that a graph reads
        self._rates = [torch.zeros((), device=self.device) for _ in optimizer.param_groups]
        self._rate_values: list[float | None] = [None] * len(self._rates)
        self._fused = all(group.get("fused") or False for group in optimizer.param_groups)
        if self._fused:
            # fused kernels ask this flag whether to leave everything as it is; torch's GradScaler sets it too
            optimizer.found_inf = self._found_inf  # type: ignore[attr-defined]  # no optimizer declares it

        self._largest = 0
        self._rehearsed: set[tuple] = set()
        self._uses: Counter[tuple] = Counter()
        self._calls: dict[tuple, CapturedCall] = {}
        self.pool = torch.cuda.graph_pool_handle() if self.captures else None

    def describe(self) -> str:
        """Describe how steps are computed, for the log."""
        network = "compiled network, " if self.compiled else ""
        if not self.captures:
            return f"{network}eager"
        if self._capturable:
            return f"{network}CUDA graphs of the whole step"
        name = type(self.optimizer).__name__
        return f"{network}CUDA graphs of forward and backward; {name} cannot be captured and steps eagerly"

    def __call__(self, *batch: Tensor, weight: float = 1.0, first: bool = True, last: bool = True) -> Tensor:
        """Add the gradient of a batch, and step if it is the last of its window.

        Args:
            batch: The arguments of `prepare`, on the device; each tensor has b entries.
            weight: Weight of the batch in its window: its fraction of the images of all processes.
            first: Discard earlier gradients.
            last: Take the optimizer step.
        Returns:
            float32 (2,), on the device, overwritten by the next call: the loss times its weight, summed over the
            processes, and 1 if this step or an earlier one was not finite, so that later ones changed nothing.
        """
        self._set_inputs(weight)
        shapes = tuple(tuple(x.shape) for x in batch)
        if shapes not in self._rehearsed:
            self._rehearsed.add(shapes)
            rehearsal = partial(warm_up, self._rehearse, batch) if self.captures else partial(self._rehearse, *batch)
            compile_ahead(rehearsal, self.model, device=self.device, num_processes=num_cores())
        if not self.captures:
            return self._run(*batch, first=first, last=last)
        key = (first, last, *shapes)
        body = partial(self._run, first=first, last=last and self._capturable)
        if key in self._calls:
            report = self._calls[key](*batch)
        elif self._uses[key] < WARM_UP_CALLS:
            self._uses[key] += 1
            report = warm_up(body, batch)
        else:
            self._calls[key] = CapturedCall(body, batch, pool=self.pool)
            report = self._calls[key](*batch)
        if last and not self._capturable:
            self._step()
            report[1].copy_(self._found_inf)
        return report

    def found_inf(self) -> bool:
        """Whether a step was not finite; synchronizes with the device."""
        return bool(self._found_inf)

    def _set_inputs(self, weight: float) -> None:
        """Write the inputs that graphs read besides the batch, where they have changed."""
        if weight != self._weight_value:
            self._weight.fill_(weight)
            self._weight_value = weight
        for i, group in enumerate(self.optimizer.param_groups):
            if group["lr"] != self._rate_values[i]:
                self._rates[i].fill_(group["lr"])
                self._rate_values[i] = group["lr"]

    def _run(self, *batch: Tensor, first: bool, last: bool) -> Tensor:
        if first:
            self._forget_gradients()
        loss = self.compute_loss(*batch)
        loss.backward(self._weight)
        with torch.no_grad():
            value = loss.detach() * self._weight
            if self._sum_up is not None:
                self._sum_up([value])
            self._total.copy_(value) if first else self._total.add_(value)
            if last:
                self._step()
            torch.stack([value, self._found_inf], out=self._report)
        return self._report

    def compute_loss(self, *batch: Tensor) -> Tensor:
        """The mean loss of a batch, with its graph of gradients."""
        self._largest = max(self._largest, len(batch[0]))
        stance = partial(torch.compiler.set_stance, "default" if self._compiles(batch) else "force_eager")
        return self._compute_loss(batch, stance if self.compiled else nullcontext)

    def _compiles(self, batch: Sequence[Tensor]) -> bool:
        """Whether the network is compiled for the batch; the smaller last batch of an epoch is too rare."""
        return self.compiled and len(batch[0]) >= self._largest

    def _compute_loss(self, batch: Sequence[Tensor], around: Callable[[], AbstractContextManager]) -> Tensor:
        inputs, targets = batch if self._prepare is None else self._prepare(*batch)
        autocast = torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision != torch.float32)
        with autocast, around():
            logits = self.model(inputs) if self.compiled else forward_in_parts(self.model, inputs)
        return self.loss(logits, targets)

    def _rehearse(self, *batch: Tensor) -> None:
        """Compute a step up to the gradients and discard them; without torch's compiler."""
        # a batch norm keeps statistics of each batch that it is given
        kept = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        loss = self._compute_loss(batch, left_to_compiler if self._compiles(batch) else nullcontext)
        trained = [p for p in self._parameters if p.requires_grad]
        torch.autograd.grad(loss, trained, self._weight, allow_unused=True)
        for buffer, before in kept:
            buffer.copy_(before)

    def _forget_gradients(self) -> None:
        if self._calls:
            # graphs add to these very tensors
            torch._foreach_zero_([p.grad for p in self._parameters if p.grad is not None])
        else:
            self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _step(self) -> None:
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if self._sum_up is not None:
            self._sum_up(gradients)
        norm = nn.utils.get_total_norm(gradients)
        # a difference is 0, or NaN, which counts as true, where one of the two is not finite
        both = norm + self._total
        self._found_inf.logical_or_(both - both)
        if self.clip_norm > 0:
            nn.utils.clip_grads_with_norm_(self._parameters, self.clip_norm, norm)
        self._step_unless_found_inf()
        if self.average is not None:
            self.average.update(self.model)

    def _step_unless_found_inf(self) -> None:
        if self._fused:
            with self._rates_on_device():
                self.optimizer.step()
        elif self.device.type != "cuda" or not self.optimizer.state:
            # on a GPU the first step only: it makes the state, eagerly
            if not self._found_inf:
                with self._rates_on_device():
                    self.optimizer.step()
        else:
            self._step_or_undo()

    def _step_or_undo(self) -> None:
        """Step, and restore everything if the flag is set; Adagrad's counters, which are on the CPU, go on."""
        states = [x for state in self.optimizer.state.values() for x in state.values() if torch.is_tensor(x)]
        tensors = [x for x in (*self._parameters, *states) if x.device == self.device]
        before = [x.clone() for x in tensors]
        with self._rates_on_device():
            self.optimizer.step()
        found_inf = self._found_inf > 0
        for x, old in zip(tensors, before, strict=True):
            x.copy_(torch.where(found_inf, old, x))

    @contextmanager
    def _rates_on_device(self) -> Iterator[None]:
        """Let the optimizer read its learning rates where a graph can; the schedule keeps its numbers."""
        if not self._capturable:
            yield
            return
        groups = self.optimizer.param_groups
        numbers = [group["lr"] for group in groups]
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate
        try:
            yield
        finally:
            for group, number in zip(groups, numbers, strict=True):
                group["lr"] = number


def _compile(model: nn.Module) -> None:
    # each function is compiled once per width and map size; beyond the limit the rest would stay eager
    limits = torch._dynamo.config
    # torch 2.7 calls it recompile_limit and keeps this name
    limits.cache_size_limit = max(limits.cache_size_limit, _MOST_VARIANTS)
    model.compile(dynamic=False)
