"""The rule for the sizes of an operation's arguments: a batch may be empty, and nothing else."""

from torch import Tensor


def refuse_empty(name: str, tensor: Tensor, dimensions: str, *, batch: bool = True) -> None:
    """Raise ValueError if a size is 0.

    Args:
        name: The argument, for the message.
        tensor: Its value.
        dimensions: Letters of its sizes, for the message.
        batch: The first size is that of the batch, which may be 0.
    """
    if 0 in tensor.shape[batch:]:
        rule = "all but b" if batch else "all"
        raise ValueError(f"{name} is ({dimensions}), {rule} at least 1; received {tuple(tensor.shape)}")
