"""Make demo_head.nii.gz: a T1-weighted image of a head, painted by a program from a label map, so that it is nobody's.

    python make_demo_head.py LABEL_MAP [--out FILE]

LABEL_MAP is one of SynthSeg's training label maps (Apache 2.0); ours was made from training_seg_10.nii.gz. Each
structure gets the grey of its tissue in T1, then come blur, texture and noise. It tries the program out; it measures
nothing.
"""

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

# Grey by FreeSurfer label; from 500 on what lies around the brain.
GREY = {
    110: (2, 41, 85),
    105: (7, 46, 16, 28, 60),
    76: (3, 42, 8, 47, 26, 58),
    74: (17, 53, 18, 54),
    95: (10, 49, 13, 52),
    86: (11, 50, 12, 51, 25, 57),
    28: (4, 43, 5, 44, 14, 15, 24, 72),
    35: (30, 62, 508, 511, 512),
    60: (136, 137, 163, 164, 507, 509, 530),
    85: (506, 514, 515),
    125: (516,),
}
BLUR, TEXTURE, NOISE = 0.6, 0.035, 2.0
MARGIN = 4  # voxels


def painted(labels: np.ndarray) -> np.ndarray:
    """uint8 [X, Y, Z] from labels [X, Y, Z]; the same each time."""
    rng = np.random.default_rng(0)
    grey = np.zeros(labels.max() + 1)
    for value, names in GREY.items():
        grey[[name for name in names if name < len(grey)]] = value
    image = gaussian_filter(grey[labels], BLUR)
    texture = gaussian_filter(rng.normal(0, 1, labels.shape), 1.0)
    image *= 1 + TEXTURE * texture / texture.std()
    image += rng.normal(0, NOISE, labels.shape) * (image > 3)
    return np.round(np.clip(image, 0, 255)).astype(np.uint8)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Paint a T1-weighted image of a head from a label map.")
    parser.add_argument("label_map", type=Path, metavar="LABEL_MAP", help="of a whole head, NIfTI")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("demo_head.nii.gz"), metavar="FILE")
    args = parser.parse_args(argv)
    image = nib.as_closest_canonical(nib.load(args.label_map))
    labels = np.asarray(image.dataobj).astype(np.int16)
    head = np.argwhere(labels > 0)
    low = np.maximum(head.min(0) - MARGIN, 0)
    box = tuple(slice(a, b + MARGIN) for a, b in zip(low, head.max(0), strict=True))
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    for label, name in ((17, "left"), (53, "right")):
        index = np.argwhere(labels[box] == label)
        middle = affine[:3, :3] @ index.mean(0) + affine[:3, 3]
        print(f"{name} hippocampus: {len(index)} voxels of 1 mm3, their middle at {middle.round(1).tolist()} mm")
    painted_head = nib.Nifti1Image(painted(labels)[box], affine)
    painted_head.header.set_xyzt_units("mm")
    nib.save(painted_head, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
