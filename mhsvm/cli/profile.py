"""`mhsvm profile --model NAME`: the cost of a network, counted and timed."""

from collections.abc import Sequence
from pathlib import Path

from mhsvm.cli.options import parse_with_settings, positive, size
from mhsvm.cli.parser import CommandParser, program


def main(argv: Sequence[str] | None = None) -> int:
    """Count parameters, multiply-accumulates, activations and memory of a network, and time its inference."""
    options = parser()
    arguments, settings = parse_with_settings(options, argv)
    if (arguments.model is None) == (arguments.config is None):
        raise ValueError(f"give either --model or --config; {options.format_usage().strip()}")
    from mhsvm.cli.network_cost import measure

    measure(arguments, settings)
    return 0


def parser() -> CommandParser:
    """The options of the command."""
    parser = CommandParser(
        prog=program("profile"),
        usage=("--model NAME | --config FILE [options] [KEY VALUE …]",),
        description=main.__doc__,
        examples=(
            "--model mhs_vm model.mhs_vm.patterns C,X,S",
            "--config configs/ultralight_isic2017.yaml --batch 8 --device cpu",
        ),
    )
    parser.add_argument("--model", metavar="NAME", help="a network, with the settings after it")
    parser.add_argument("--config", metavar="FILE", help="the network of a config")
    parser.add_argument("--size", default="256", type=size, metavar="S|HxW", help="of the images; default 256")
    parser.add_argument("--batch", default=1, type=positive, metavar="N", help="images at a time; default 1")
    parser.add_argument("--device", help="default: the CPU, and the GPU if there is one")
    parser.add_argument("--seconds", default=2.0, type=float, metavar="S", help="to time each for, about; default 2")
    parser.add_argument("--count-only", action="store_true", help="time nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there")
    return parser
