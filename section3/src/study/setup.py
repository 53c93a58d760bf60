"""What a study is measured with: loaded once, frozen, handed on whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from checks.quality_limits import Limits
from choosing.series_rules import Condition, rules_sha256
from common.shipped import DEFAULT_LOCALISER, HEAD_REVISION
from measuring.hippocrop import Localiser
from measuring.unet_inference_agent import UNetInferenceAgent
from objects.provenance import REVISION


@dataclass(frozen=True)
class SetupFiles:
    """What a setup is loaded from; small enough to be sent to another process.

    model_path: the model, with its limits beside it. rules: which series is a crop. pseudonymous: pages do not say
    whose study it is. head_rules: which series is a head, where there is no crop; without any, none is looked for.
    probability_map: write one more object.
    """

    model_path: Path
    rules: tuple[Condition, ...]
    pseudonymous: bool = False
    head_rules: tuple[Condition, ...] = ()
    probability_map: bool = False

    def load(self, threads: int = 1) -> Setup:
        """Read model and limits, once. Raises Failure: bad-model."""
        agent = UNetInferenceAgent(self.model_path, threads)
        localiser = Localiser(DEFAULT_LOCALISER, threads) if self.head_rules else None
        limits = Limits.load(self.model_path.parent)
        return Setup(agent, limits, self.rules, self.pseudonymous, self.head_rules, localiser, self.probability_map)


@dataclass(frozen=True, eq=False)
class Setup:
    """The loaded models, their limits (None where there are none), the rules for the input, and what pages may say."""

    agent: UNetInferenceAgent
    limits: Limits | None
    rules: tuple[Condition, ...]
    pseudonymous: bool = False
    head_rules: tuple[Condition, ...] = ()
    localiser: Localiser | None = None
    probability_map: bool = False

    @property
    def digest(self) -> str:
        """What tells this setup from any that may give another result."""
        heads = (HEAD_REVISION, self.localiser.sha256, rules_sha256(self.head_rules)) if self.localiser else ()
        parts = (REVISION, self.agent.identity["sha256"], self.limits_sha256, rules_sha256(self.rules), *heads)
        more = ("probability map",) if self.probability_map else ()
        return hashlib.sha256(repr((*parts, self.pseudonymous, *more)).encode()).hexdigest()

    @property
    def limits_sha256(self) -> str | None:
        return self.limits.sha256 if self.limits else None
