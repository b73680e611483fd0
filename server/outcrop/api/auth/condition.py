"""Conditions of policy statements: operators on what is known of a request."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from outcrop.api.auth import glob


class PolicyError(ValueError):
    """A policy that cannot be used; the message says where and why."""


KEYS = {
    key.lower(): key
    for key in (
        "aws:CurrentTime",
        "aws:PrincipalArn",
        "aws:PrincipalTag/tenant",
        "aws:RequestedRegion",
        "aws:SourceIp",
        "aws:userid",
        "aws:username",
        "bedrock:bearerTokenType",
        "bedrock:InferenceProfileArn",
    )
}
"""What conditions may ask about, by its name in lower case: AWS does not mind the case either."""

Test = Callable[[str, str], bool]
"""Whether what is known of a request fits one value of the policy."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator on one key. negated: it holds where no value fits. if_exists: it holds where the key is
    not known, as negated ones do."""

    key: str
    values: tuple[str, ...]
    test: Test
    negated: bool = False
    if_exists: bool = False

    def holds(self, context: Mapping[str, str]) -> bool:
        known = context.get(self.key)
        if known is None:
            return self.negated or self.if_exists
        return any(self.test(known, value) for value in self.values) is not self.negated


def _equal(known: str, value: str) -> bool:
    return known == value


def _equal_ignoring_case(known: str, value: str) -> bool:
    return known.casefold() == value.casefold()


def _like(known: str, value: str) -> bool:
    return glob.matches(value, known)


def _arn_like(known: str, value: str) -> bool:
    return glob.matches_arn(value, known)


def _in_network(known: str, value: str) -> bool:
    try:
        address = ipaddress.ip_address(known)
    except ValueError:
        return False  # a caller without an IP address, such as one on a Unix socket
    return address in ipaddress.ip_network(value, strict=False)


def _before(known: str, value: str) -> bool:
    return _date(known) < _date(value)


def _at_or_before(known: str, value: str) -> bool:
    return _date(known) <= _date(value)


def _after(known: str, value: str) -> bool:
    return _date(known) > _date(value)


def _at_or_after(known: str, value: str) -> bool:
    return _date(known) >= _date(value)


def _date(text: str) -> datetime:
    """An ISO 8601 time; UTC where it says nothing else."""
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


_OPERATORS: dict[str, tuple[Test, bool]] = {
    "StringEquals": (_equal, False),
    "StringNotEquals": (_equal, True),
    "StringEqualsIgnoreCase": (_equal_ignoring_case, False),
    "StringNotEqualsIgnoreCase": (_equal_ignoring_case, True),
    "StringLike": (_like, False),
    "StringNotLike": (_like, True),
    "ArnEquals": (_arn_like, False),
    "ArnLike": (_arn_like, False),
    "ArnNotEquals": (_arn_like, True),
    "ArnNotLike": (_arn_like, True),
    "IpAddress": (_in_network, False),
    "NotIpAddress": (_in_network, True),
    "DateLessThan": (_before, False),
    "DateLessThanEquals": (_at_or_before, False),
    "DateGreaterThan": (_after, False),
    "DateGreaterThanEquals": (_at_or_after, False),
}
"""Operator to its test and whether it is the negation of it."""

_CHECKS: dict[Test, Callable[[str], object]] = {
    _in_network: lambda value: ipaddress.ip_network(value, strict=False),
    _before: _date,
    _at_or_before: _date,
    _after: _date,
    _at_or_after: _date,
}
"""What a value must survive to be of use to a test."""


def parse_conditions(block: object, where: str) -> tuple[Condition, ...]:
    """The Condition member of a statement. Raises PolicyError for every operator, key or value that is not
    known here: a condition that could not be asked would be one that does not protect."""
    if not isinstance(block, dict):
        raise PolicyError(f"{where}: this must be an object")
    return tuple(
        _condition(operator, key, values, f"{where}.{operator}")
        for operator, keys in block.items()
        for key, values in _keys(keys, f"{where}.{operator}")
    )


def _keys(keys: object, where: str) -> list[tuple[str, object]]:
    if not isinstance(keys, dict):
        raise PolicyError(f"{where}: this must be an object")
    return list(keys.items())


def _condition(operator: str, key: str, values: object, where: str) -> Condition:
    name = operator.removesuffix("IfExists")
    if name not in _OPERATORS:
        raise PolicyError(f"{where}: there is no such operator; known are {', '.join(_OPERATORS)}")
    if key.lower() not in KEYS:
        raise PolicyError(f"{where}: the key {key!r} is not known; known are {', '.join(KEYS.values())}")
    test, negated = _OPERATORS[name]
    listed = [values] if isinstance(values, str) else values
    if not isinstance(listed, list) or not listed or not all(isinstance(each, str) for each in listed):
        raise PolicyError(f"{where}.{key}: this must be a string or a list of strings")
    for value in listed:
        if "${" in value:
            raise PolicyError(f"{where}.{key}: policy variables are not supported")
        try:
            _CHECKS.get(test, str)(value)
        except ValueError as error:
            raise PolicyError(f"{where}.{key}: {error}") from None
    return Condition(key.lower(), tuple(listed), test, negated, name != operator)
