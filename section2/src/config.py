"""Every setting of a training run, with the reason beside its value."""

import argparse
import dataclasses
import json
from pathlib import Path


def setting(default, reason: str):
    """A field whose reason is also its help text on the command line."""
    return dataclasses.field(default=default, metadata={"help": reason})


NETWORK = {"dims", "context", "plane", "filters", "depth", "kernel_size", "norm"}  # what weights fit into


@dataclasses.dataclass
class Config:
    """Settings of one run; each is also a command-line option, all are saved in the run's folder as config.json."""

    # network
    dims: int = setting(2, "2: slices with their neighbours as channels; 3: whole volumes")
    context: int = setting(
        5, "neighbouring coronal slices seen at once (odd); more shows the third dimension at no cost"
    )
    plane: str = setting("coronal", "of the slices: coronal, sagittal or axial")
    filters: int = setting(16, "channels of the first level, doubled at each; 64 is the classic 31 M parameter network")
    depth: int = setting(4, "poolings; 4 let the bottom see the whole crop")
    kernel_size: int = setting(3, "of all convolutions")
    norm: str = setting("batch", "batch, instance or none")

    # training
    epochs: int = setting(10, "of a schedule that ends at 0; validation Dice stops rising after 8 to 15")
    batch_size: int = setting(64, "slices a step (with dims 3: volumes; 2 is a good number)")
    learning_rate: float = setting(2e-3, "peak of a one-cycle schedule, AdamW")
    weight_decay: float = setting(1e-4, "small: augmentation does most of the regularising")
    ema_decay: float = setting(0.99, "the model kept is the moving average of the weights; smooths the last steps")
    dice_weight: float = setting(1.0, "loss = cross entropy + this times soft Dice; 0 leaves cross entropy alone")
    augment: bool = setting(True, "volumes drawn anew each epoch, as the settings of augmentation say")
    amp: bool = setting(True, "mixed precision: float16 on CUDA, bfloat16 on CPUs that compute in it")
    draw: int = setting(0, "another number: other random weights and augmentation on the same split, to average with")
    background: float = setting(
        1.25, "factor on the background's odds once trained: without it volumes come out 1 to 2 %% too large"
    )
    device: str = setting("auto", "auto, cpu or cuda")
    seed: int = setting(0, "of the split, and with `draw` of the weights and the augmentation")

    # augmentation
    rotation: float = setting(15.0, "degrees about each axis, at most; crops are turned against each other")
    scale: float = setting(0.15, "of each axis, at most; with `shift` the augmentation that matters most")
    shift: float = setting(3.0, "voxels along each axis, at most; a crop may be cut elsewhere")
    elastic: float = setting(1.2, "standard deviation of the control points' displacement, voxels; persons differ")
    elastic_spacing: int = setting(12, "voxels between control points: shapes bend, borders stay smooth")
    window: float = setting(
        0.5, "quantile of the volumes' sizes through which all are seen in training; what is larger is cut"
    )
    unresampled: float = setting(
        0.25, "share of volumes moved by whole voxels only: interpolation blurs, and no test volume is blurred"
    )
    atrophy: float = setting(
        0.0, "share of the resampled volumes whose hippocampus is shrunk; patients' are smaller than any in the set"
    )
    gamma: float = setting(0.4, "of the exponent's logarithm, at most; scanners differ in contrast")
    contrast: float = setting(0.2, "share of the image's own, at most; normalising leaves some difference")
    brightness: float = setting(0.2, "of the image's standard deviation, at most; normalising leaves some difference")
    noise: float = setting(0.15, "largest standard deviation of what is added; the image's own is 1")

    # data
    test_share: float = setting(0.2, "of the persons, held out for the test")
    validation_share: float = setting(0.1, "of the persons, to choose the epoch; 0 keeps the last one")
    folds: int = setting(
        0, "cross-validation by person with so many folds, then a model trained on everybody; 0: one split"
    )
    only_fold: int = setting(0, "train and test this fold alone, of so many as `folds` says; 0: all of them")
    name: str = setting("hippovolume", "of the model, in its card")
    version: str = setting("1.3.0", "of the model, in its card")
    teachers: list[str] = dataclasses.field(default_factory=list)  # runs to distil; have an option of their own
    fine_tune: str = ""  # the model whose weights were the start; has an option of its own

    def __post_init__(self):
        """Raises ValueError, naming the field, where a value makes no sense."""
        allowed = {
            "dims": self.dims in (2, 3),
            "context": self.context > 0 and self.context % 2 == 1,
            "plane": self.plane in ("coronal", "sagittal", "axial"),
            "filters": self.filters > 0,
            "depth": self.depth > 0,
            "kernel_size": self.kernel_size > 0 and self.kernel_size % 2 == 1,
            "norm": self.norm in ("batch", "instance", "none"),
            "epochs": self.epochs > 0,
            "batch_size": self.batch_size > 0,
            "learning_rate": self.learning_rate > 0,
            "background": self.background > 0,
            "ema_decay": 0 <= self.ema_decay < 1,
            "rotation": 0 <= self.rotation <= 180,
            "scale": 0 <= self.scale < 1,
            "shift": self.shift >= 0,
            "elastic": self.elastic >= 0,
            "elastic_spacing": self.elastic_spacing > 0,
            "window": 0 <= self.window <= 1,
            "unresampled": 0 <= self.unresampled <= 1,
            "atrophy": 0 <= self.atrophy <= 1,
            "gamma": self.gamma >= 0,
            "contrast": 0 <= self.contrast < 1,
            "brightness": self.brightness >= 0,
            "noise": self.noise >= 0,
            "device": self.device in ("auto", "cpu", "cuda"),
            "test_share": 0 <= self.test_share < 1,
            "folds": self.folds == 0 or self.folds >= 2,
            "teachers": not self.teachers or (self.dims == 3 and not self.fine_tune),
            "only_fold": 0 <= self.only_fold <= self.folds,
            "validation_share": 0 <= self.validation_share < 1 - self.test_share,
        }
        for name, ok in allowed.items():
            if not ok:
                raise ValueError(f"setting {name} cannot be {getattr(self, name)!r}")

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path, **changes) -> "Config":
        """Reads a JSON file of settings; those it lacks keep their default, `changes` win over both.

        Raises ValueError where the file is no JSON object or names a setting that does not exist.
        """
        try:
            values = json.loads(path.read_text())
            return cls(**{**values, **changes})
        except (TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a file of settings: {error}") from error


def add_options(parser: argparse.ArgumentParser) -> None:
    """One option for each setting; what is not given stays out of the namespace."""
    for field in (field for field in dataclasses.fields(Config) if "help" in field.metadata):
        kind = {"action": argparse.BooleanOptionalAction} if field.type is bool else {"type": field.type}
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            help=f"{field.metadata['help']} (default: {field.default})",
            **kind,
        )


def given_settings(args: argparse.Namespace) -> dict:
    """The settings among the options that were given."""
    names = {field.name for field in dataclasses.fields(Config)} - {"fine_tune", "teachers"}
    return {name: value for name, value in vars(args).items() if name in names}
