"""The README tells the truth."""

import re
from pathlib import Path

import torch

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_unet_with_pvm_layers_has_the_parameters_that_are_printed():
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "BasicUNet" in block]
    start, replacement = code.split("print(", 1)
    scope: dict = {}
    exec(start, scope)
    assert f"{num_parameters(scope['net']):,} parameters" in start
    exec("print(" + replacement, scope)
    assert f"# {num_parameters(scope['net']):,} parameters" in replacement
    assert scope["net"](torch.rand(1, 3, 32, 32)).shape == (1, 1, 32, 32)


def test_the_files_that_are_named_exist():
    root = Path(__file__).parents[1]
    named = re.findall(r"\]\(([\w./]+)\)", README) + re.findall(r"(?:configs|scripts)/\w+\.\w+", README)
    assert len(named) > 5
    assert [name for name in named if not (root / name).exists()] == []


def num_parameters(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())
