"""Draw phantoms with the contours of their labels, one a column: python phantom_figure.py [--out phantoms.png]"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import environment  # noqa: F401  # isort: skip

import matplotlib
import numpy as np

from phantom import ANTERIOR, POSTERIOR, Phantom, make_phantom

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # after the choice of a backend that needs no display

PLANES = ("sagittal", "coronal", "axial")


def draw_plane(axes: plt.Axes, phantom: Phantom, axis: int) -> None:
    """The slice through the middle of the structure, across X, Y or Z."""
    middle = round(np.argwhere(phantom.labels)[:, axis].mean())
    image, labels = (volume.take(middle, axis).T for volume in (phantom.image, phantom.labels))
    low, high = np.percentile(phantom.image, (0.5, 99.5))
    axes.imshow(image, cmap="gray", origin="lower", vmin=low, vmax=high)
    axes.invert_xaxis()  # anterior and x are on the left, as on the clinic's page
    for label, colour in ((ANTERIOR, "tab:orange"), (POSTERIOR, "tab:cyan")):
        axes.contour(labels == label, [0.5], colors=colour, linewidths=1)
    axes.set(xticks=[], yticks=[])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Draw phantoms with the contours of their labels.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().with_name("phantoms.png"))
    parser.add_argument("--count", type=int, choices=range(1, 13), default=5, metavar="1-12")
    args = parser.parse_args(argv)
    figure, grid = plt.subplots(3, args.count, figsize=(2 * args.count, 5.2), squeeze=False, layout="constrained")
    for seed in range(args.count):
        phantom = make_phantom(seed)
        anterior, posterior = ((phantom.labels == k).sum() for k in (ANTERIOR, POSTERIOR))
        grid[0, seed].set_title(f"seed {seed}\n{anterior} + {posterior} mm³", fontsize=9)
        for axis in range(3):
            draw_plane(grid[axis, seed], phantom, axis)
    for axes, plane in zip(grid[:, 0], PLANES, strict=True):
        axes.set_ylabel(plane, fontsize=9)
    try:
        figure.savefig(args.out, dpi=80)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
