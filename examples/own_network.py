"""Use the layers of this package inside a network and a training loop of your own.

    python examples/own_network.py [--device cuda]

Shows `mhsvm.PVMLayer` and `mhsvm.MultiHeadScan` in a small encoder and decoder, trained on synthetic images with plain
PyTorch. Both layers take maps (b, c, h, w) of any size, so they replace convolutions.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

import mhsvm
from mhsvm.losses import BCEDiceLoss
from mhsvm.synthetic import generate_sample


class SmallNetwork(nn.Module):
    """Logits (b, 1, h, w) of images (b, 3, h, w) with values 0..1; h and w are multiples of 4.

    Args:
        channels: Channels at a quarter of the size, a multiple of 4.
    """

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, kernel_size=4, stride=4)
        # four branches of the channels share one Mamba block
        self.encoder = mhsvm.PVMLayer(channels, channels, branches=4)
        # two heads scan the map along two kinds of routes
        self.middle = mhsvm.MultiHeadScan(channels, patterns=("C", "S"))
        self.head = nn.ConvTranspose2d(2 * channels, 1, kernel_size=4, stride=4)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)  # (b, c, h/4, w/4)
        skip = self.encoder(x)
        return self.head(torch.cat([skip, skip + self.middle(skip)], dim=1))


def main(argv: Sequence[str] | None = None) -> list[float]:
    """Train the network on one batch, print the loss, and return the loss of each step."""
    arguments = parse(argv)
    torch.manual_seed(0)
    images, targets = (batch.to(arguments.device) for batch in synthetic_batch(8, arguments.size))
    network, criterion = SmallNetwork().to(arguments.device), BCEDiceLoss()
    print(f"{sum(parameter.numel() for parameter in network.parameters()):,} parameters")
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses = []
    for step in range(arguments.steps):
        loss = criterion(network(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 10 == 0 or step == arguments.steps - 1:
            print(f"step {step}: loss {losses[-1]:.3f}")
    return losses


def synthetic_batch(num: int, size: int) -> tuple[Tensor, Tensor]:
    """Generate images (b, 3, h, w) and targets (b, 1, h, w), both with values 0..1."""
    samples = [generate_sample(seed=0, index=index, size=(size, size)) for index in range(num)]
    images, masks = (torch.from_numpy(np.stack(arrays)).float() / 255 for arrays in zip(*samples, strict=True))
    return images.permute(0, 3, 1, 2), masks[:, None]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Train a network with PVM and multi-head scan layers.")
    parser.add_argument("--steps", type=int, default=50, help="default 50")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels; default 64")
    parser.add_argument("--device", default="cpu", help="default cpu")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
