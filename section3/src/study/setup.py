"""What a study is measured with: loaded once, frozen, handed on whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from measuring.quality_limits import Limits
from measuring.unet_inference_agent import UNetInferenceAgent
from objects.provenance import REVISION
from reading.series_rules import Condition, rules_sha256

DEFAULT_MODEL = Path(__file__).resolve().parents[2] / "model" / "model.onnx"


@dataclass(frozen=True)
class SetupFiles:
    """What a setup is loaded from; small enough to be sent to another process.

    model_path: the model, with its limits beside it. rules: which series is the input. pseudonymous: pages do not say
    whose study it is.
    """

    model_path: Path
    rules: tuple[Condition, ...]
    pseudonymous: bool = False

    def load(self, threads: int = 1) -> Setup:
        """Read model and limits, once. Raises Failure: bad-model."""
        agent = UNetInferenceAgent(self.model_path, threads)
        return Setup(agent, Limits.load(self.model_path.parent), self.rules, self.pseudonymous)


@dataclass(frozen=True, eq=False)
class Setup:
    """The loaded model, its limits (None where it has none), the rules for the input, and what pages may say."""

    agent: UNetInferenceAgent
    limits: Limits | None
    rules: tuple[Condition, ...]
    pseudonymous: bool = False

    @property
    def digest(self) -> str:
        """What tells this setup from any that may give another result."""
        parts = (REVISION, self.agent.identity["sha256"], self.limits_sha256, rules_sha256(self.rules))
        return hashlib.sha256(repr((*parts, self.pseudonymous)).encode()).hexdigest()

    @property
    def limits_sha256(self) -> str | None:
        return self.limits.sha256 if self.limits else None
