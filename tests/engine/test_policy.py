"""What each policy chooses."""

from __future__ import annotations

from outcrop.engine.policy import Interleave, Paced, QueueView, policy_for
from outcrop_compile.bucket import StepKind


def view(prefillable: int = 1, decodable: int = 1, prefilled: int = 0) -> QueueView:
    return QueueView(prefillable, decodable, 0, 0, prefilled)


def test_paced_prefills_until_so_many_tokens_were_computed() -> None:
    policy = Paced(tokens=512)
    assert policy.choose(view(prefilled=0)) is StepKind.PREFILL
    assert policy.choose(view(prefilled=511)) is StepKind.PREFILL
    assert policy.choose(view(prefilled=512)) is StepKind.DECODE
    assert policy.choose(view(prefillable=0)) is StepKind.DECODE
    # Nobody waits for a token: there is no reason to pause.
    assert policy.choose(view(decodable=0, prefilled=9999)) is StepKind.PREFILL


def test_auto_is_what_suits_the_backend() -> None:
    assert isinstance(policy_for("auto", "neuron"), Paced)
    assert isinstance(policy_for("auto", "cpu"), Interleave)
    assert isinstance(policy_for("interleave", "neuron"), Interleave)
