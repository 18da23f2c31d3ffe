"""Options that several commands share."""

import argparse
import re


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """How a checkpoint's network is run."""
    parser.add_argument("--device", default="auto", help="auto (the GPU if there is one), cpu, cuda, cuda:1, …")
    parser.add_argument("--batch-size", type=positive, metavar="N", help="images at a time; default: the checkpoint's")
    parser.add_argument("--backend", metavar="NAME", help="of the scans; default: MHSVM_BACKEND's, or the checkpoint's")
    parser.add_argument("--gate-threshold", type=float, metavar="T", help="of MHS-VM's gate; default: the checkpoint's")


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"takes a whole number from 1 on, not {text!r}")
    return int(text)


def size(text: str) -> tuple[int, int]:
    """Height and width from "256" or "192x256"."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.lower())
    if not match:
        raise argparse.ArgumentTypeError(f"a size is written 256 or 192x256 (height x width); got {text!r}")
    return int(match[1]), int(match[2] or match[1])
