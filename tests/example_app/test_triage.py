"""The application's tests: a real model answers, and everything that can go wrong on Bedrock does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from triage import FOR_A_PERSON, PRIORITIES, TEAMS, SummaryInterrupted, Triage

TICKET = "Since this morning I cannot log in. I have reset my password twice, and nobody can work."


@pytest.fixture
def triage(bedrock_env: Any) -> Iterator[Triage]:
    """bedrock_env redirects the client that the application makes for itself."""
    triage = Triage()
    yield triage
    triage.close()


def test_a_ticket_gets_a_team_and_a_priority(triage: Triage) -> None:
    route = triage.route(TICKET)
    assert route.team in TEAMS
    assert route.priority in PRIORITIES


def test_the_same_ticket_goes_the_same_way(triage: Triage) -> None:
    assert triage.route(TICKET) == triage.route(TICKET)


@pytest.mark.bedrock_fault("ThrottlingException", first=2)
def test_throttling_is_ridden_out(triage: Triage) -> None:
    assert triage.route(TICKET).team in TEAMS


@pytest.mark.bedrock_fault("connection", first=1)
def test_a_lost_connection_is_ridden_out(triage: Triage) -> None:
    assert triage.route(TICKET).team in TEAMS


@pytest.mark.parametrize(
    "lasting",
    [
        pytest.param(error, marks=pytest.mark.bedrock_fault(error))
        for error in ("ThrottlingException", "ModelTimeoutException", "ModelErrorException", "connection")
    ],
)
def test_while_there_is_no_model_a_person_decides(triage: Triage, lasting: str) -> None:
    assert triage.route(TICKET) == FOR_A_PERSON


@pytest.mark.bedrock_fault("latency=30s")
def test_a_model_that_takes_too_long_is_not_waited_for(bedrock_env: Any) -> None:
    triage = Triage(Config(read_timeout=0.5, retries={"total_max_attempts": 1}))
    assert triage.route(TICKET) == FOR_A_PERSON
    triage.close()


@pytest.mark.bedrock_fault("AccessDeniedException")
def test_a_lack_of_rights_is_for_the_operator(triage: Triage) -> None:
    with pytest.raises(ClientError, match="AccessDeniedException"):
        triage.route(TICKET)


def test_a_summary_comes_in_pieces(triage: Triage) -> None:
    pieces = list(triage.summary(TICKET))
    assert len(pieces) > 3
    assert "".join(triage.summary(TICKET)) == "".join(pieces)


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(how, marks=pytest.mark.bedrock_fault(f"break-after=3:{how}"))
        for how in ("ThrottlingException", "ModelStreamErrorException", "connection")
    ],
)
def test_of_a_broken_summary_the_beginning_is_kept(triage: Triage, ending: str) -> None:
    pieces = []
    with pytest.raises(SummaryInterrupted) as interrupted:
        pieces.extend(triage.summary(TICKET))
    assert interrupted.value.partial
    assert interrupted.value.partial == "".join(pieces)
