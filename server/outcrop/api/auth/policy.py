"""IAM's identity-based policies: what a key may do.

Statements with Effect, Action or NotAction, Resource or NotResource, and Condition, as in the AWS policy
grammar of 2012-10-17. A deny beats every allow and nothing is allowed that no statement allows. What this
evaluator does not know it refuses when the policy is read, never when a request comes.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outcrop.api.auth import glob
from outcrop.api.auth.condition import Condition, PolicyError, parse_conditions

_VERSIONS = ("2012-10-17", "2008-10-17")
_POLICY_MEMBERS = {"Version", "Id", "Statement"}
_STATEMENT_MEMBERS = {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}
_ACTION = re.compile(r"\*|[a-z0-9-]+:[A-Za-z0-9*?]+")


class Effect(enum.Enum):
    """What a policy says of a request. NEITHER: no statement speaks of it, which is a no."""

    ALLOW = "Allow"
    DENY = "Deny"
    NEITHER = "Neither"


@dataclass(frozen=True, slots=True)
class Statement:
    """actions: patterns in lower case. except_actions, except_resources: the patterns name what the statement
    is not about."""

    effect: Effect
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    except_actions: bool = False
    except_resources: bool = False
    conditions: tuple[Condition, ...] = ()

    def applies(self, action: str, resources: Sequence[str], context: Mapping[str, str]) -> bool:
        """resources: the names of one thing, which the statement is about if it names one of them."""
        lowered = action.lower()
        acted = any(glob.matches(pattern, lowered) for pattern in self.actions)
        if acted is self.except_actions:
            return False
        found = any(
            glob.matches_arn(pattern, resource) for pattern in self.resources for resource in resources
        )
        if found is self.except_resources:
            return False
        return all(condition.holds(context) for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class Policy:
    statements: tuple[Statement, ...]

    def evaluate(self, action: str, resources: Sequence[str], context: Mapping[str, str]) -> Effect:
        """What the policy says of `action` on one thing. resources: its ARNs, for a model may have several
        names."""
        applying = {
            statement.effect for statement in self.statements if statement.applies(action, resources, context)
        }
        if Effect.DENY in applying:
            return Effect.DENY
        return Effect.ALLOW if Effect.ALLOW in applying else Effect.NEITHER

    @classmethod
    def parse(cls, document: object) -> Policy:
        """A policy document, decoded from JSON. Raises PolicyError."""
        members = _members(document, "policy", _POLICY_MEMBERS)
        version = members.get("Version", _VERSIONS[0])
        if version not in _VERSIONS:
            raise PolicyError(f"Version: {version!r} is not one of {', '.join(_VERSIONS)}")
        statements = members.get("Statement")
        if isinstance(statements, dict):
            statements = [statements]
        if not isinstance(statements, list) or not statements:
            raise PolicyError("Statement: a policy needs a statement or a list of them")
        return cls(tuple(_statement(each, f"Statement[{index}]") for index, each in enumerate(statements)))


ALLOW_ALL = Policy((Statement(Effect.ALLOW, ("*",), ("*",)),))


def read_policy(path: Path) -> dict[str, Any]:
    """The policy document in a file, checked. Raises PolicyError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        Policy.parse(document)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PolicyError(f"{path}: {reason}") from None
    assert isinstance(document, dict)
    return document


def key_policy(path: Path | None, models: Sequence[str]) -> dict[str, Any] | None:
    """The document of a key that is given a policy file, patterns of model ids, or neither: None, which is
    everything. Raises PolicyError."""
    if path is not None and models:
        raise PolicyError("a key has a policy or a list of models, not both")
    if path is not None:
        return read_policy(path)
    return models_policy(models) if models else None


def models_policy(patterns: Sequence[str]) -> dict[str, Any]:
    """The document that lets a key list models, and use those whose ids fit one of the patterns."""
    return {
        "Version": _VERSIONS[0],
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [
                    "bedrock:InvokeModel",
                    "bedrock:InvokeModelWithResponseStream",
                    "bedrock:CountTokens",
                ],
                "Resource": [f"arn:aws:bedrock:*::foundation-model/{pattern}" for pattern in patterns],
            },
            {
                "Effect": "Allow",
                "Action": [
                    "bedrock:CallWithBearerToken",
                    "bedrock:GetFoundationModel",
                    "bedrock:ListFoundationModels",
                ],
                "Resource": "*",
            },
        ],
    }


def _statement(value: object, where: str) -> Statement:
    members = _members(value, where, _STATEMENT_MEMBERS)
    effect = members.get("Effect")
    if effect not in ("Allow", "Deny"):
        raise PolicyError(f"{where}.Effect: {effect!r} is neither 'Allow' nor 'Deny'")
    actions, except_actions = _either(members, "Action", where)
    resources, except_resources = _either(members, "Resource", where)
    for action in actions:
        if not _ACTION.fullmatch(action):
            raise PolicyError(f"{where}: {action!r} is not an action such as 'bedrock:InvokeModel'")
    for resource in resources:
        if resource != "*" and not (resource.startswith("arn:") and resource.count(":") >= 5):
            raise PolicyError(
                f"{where}: {resource!r} is neither '*' nor an ARN such as "
                "'arn:aws:bedrock:*::foundation-model/meta.*'"
            )
    return Statement(
        Effect(effect),
        tuple(action.lower() for action in actions),
        tuple(resources),
        except_actions,
        except_resources,
        parse_conditions(members.get("Condition", {}), f"{where}.Condition"),
    )


def _members(value: object, where: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PolicyError(f"{where}: this must be an object")
    if unknown := sorted(set(value) - known):
        raise PolicyError(f"{where}: there is no {unknown[0]!r} here; known are {', '.join(sorted(known))}")
    return value


def _either(members: Mapping[str, Any], name: str, where: str) -> tuple[list[str], bool]:
    """The patterns of `name` or `Not` + name, and whether it is the latter."""
    given = [each for each in (name, f"Not{name}") if each in members]
    if len(given) != 1:
        raise PolicyError(f"{where}: exactly one of {name} and Not{name} is needed")
    patterns = members[given[0]]
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if (
        not isinstance(patterns, list)
        or not patterns
        or not all(isinstance(each, str) and each for each in patterns)
    ):
        raise PolicyError(f"{where}.{given[0]}: this must be a string or a list of strings")
    if any("${" in each for each in patterns):
        raise PolicyError(f"{where}.{given[0]}: policy variables are not supported")
    return patterns, given[0] != name
