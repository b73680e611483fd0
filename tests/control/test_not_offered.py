"""Paths of operations that this server refuses, some of which have several labels."""

from __future__ import annotations

import pytest

from outcrop.api.bedrock import not_offered

_POLICY = "/automated-reasoning-policies/arn:aws:bedrock:us-east-1:012345678901:automated-reasoning-policy/a"
_BUILD = f"{_POLICY}/build-workflows/b"


def operation(method: str, path: str) -> str | None:
    """The first whose route takes the path."""
    names = (
        route.name
        for route in not_offered.routes()
        if method in (route.methods or ()) and route.path_regex.match(path)
    )
    return next(names, None)


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", f"{_POLICY}/build-workflows", "ListAutomatedReasoningPolicyBuildWorkflows"),
        ("GET", _BUILD, "GetAutomatedReasoningPolicyBuildWorkflow"),
        ("POST", f"{_BUILD}/cancel", "CancelAutomatedReasoningPolicyBuildWorkflow"),
        ("POST", f"{_BUILD}/start", "StartAutomatedReasoningPolicyBuildWorkflow"),
        ("PATCH", f"{_BUILD}/annotations", "UpdateAutomatedReasoningPolicyAnnotations"),
        ("GET", f"{_BUILD}/test-cases/c/test-results", "GetAutomatedReasoningPolicyTestResult"),
        ("GET", f"{_BUILD}/d\n/test-cases//test-results", "GetAutomatedReasoningPolicyTestResult"),
        ("GET", f"{_BUILD}/test-cases/c/x", "GetAutomatedReasoningPolicyBuildWorkflow"),
        ("GET", f"{_POLICY}/test-cases/c/build-workflows", "GetAutomatedReasoningPolicyTestCase"),
        ("GET", f"{_POLICY}/test-cases/c", "GetAutomatedReasoningPolicyTestCase"),
        ("GET", f"{_POLICY}/build-workflows/build-workflows/test-cases/test-cases//test-results",
         "GetAutomatedReasoningPolicyTestResult"),
        ("POST", f"{_BUILD}/test-cases/c/test-results", None),
    ],
)  # fmt: skip
def test_which_operation_a_path_is(method: str, path: str, name: str | None) -> None:
    assert operation(method, path) == name


@pytest.mark.timeout(60)
def test_a_long_path_is_known_at_once() -> None:
    """A route that tries every way to cut it would hold up the whole server."""
    path = f"{_POLICY}{'/build-workflows/test-cases' * 2000}/x"
    assert operation("GET", path) == "GetAutomatedReasoningPolicyBuildWorkflow"
