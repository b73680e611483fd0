"""What a policy allows: the AWS rules, and what is refused when it is read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outcrop.api.auth import glob
from outcrop.api.auth.access import model_arns
from outcrop.api.auth.condition import PolicyError
from outcrop.api.auth.policy import ALLOW_ALL, Effect, Policy, key_policy, models_policy, read_policy
from outcrop.api.auth.principal import Principal
from outcrop.api.auth.quota import Quota
from outcrop.api.errors import ApiError
from outcrop.catalog.catalog import Catalog

from ..api.doubles import ScriptedEngine, served

INVOKE, STREAM = "bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"
SMALL = "arn:aws:bedrock:us-east-1::foundation-model/meta.llama3-8b-instruct-v1:0"
LARGE = "arn:aws:bedrock:us-east-1::foundation-model/meta.llama3-70b-instruct-v1:0"


def statement(effect: str = "Allow", action: Any = "*", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource} | more


def policy(*statements: Any) -> Policy:
    return Policy.parse({"Version": "2012-10-17", "Statement": list(statements)})


def principal(found: Policy, **context: str) -> Principal:
    return Principal(
        "k", "t", "arn:aws:iam::000000000000:user/me", found, Quota(None, None, lambda: 0), context
    )


DENY_LARGE = statement("Deny", "*", "arn:aws:bedrock:*::foundation-model/*70b*")
TRUTH = [
    # statements, action, resource, what comes of it
    ([statement()], INVOKE, SMALL, Effect.ALLOW),
    ([statement(action="bedrock:*")], INVOKE, SMALL, Effect.ALLOW),
    ([statement(action="bedrock:invokemodel")], INVOKE, SMALL, Effect.ALLOW),
    ([statement(action="bedrock:InvokeModel")], STREAM, SMALL, Effect.NEITHER),
    ([statement(action="bedrock:InvokeModel*")], STREAM, SMALL, Effect.ALLOW),
    ([statement(action="bedrock:InvokeMode?")], INVOKE, SMALL, Effect.ALLOW),
    ([statement(action="s3:*")], INVOKE, SMALL, Effect.NEITHER),
    ([statement(action=["s3:*", INVOKE])], INVOKE, SMALL, Effect.ALLOW),
    ([statement(), DENY_LARGE], INVOKE, SMALL, Effect.ALLOW),
    ([statement(), DENY_LARGE], INVOKE, LARGE, Effect.DENY),
    ([DENY_LARGE, statement()], INVOKE, LARGE, Effect.DENY),
    ([DENY_LARGE], INVOKE, SMALL, Effect.NEITHER),
    ([statement(resource=SMALL)], INVOKE, SMALL, Effect.ALLOW),
    ([statement(resource=SMALL)], INVOKE, LARGE, Effect.NEITHER),
    ([statement(resource=SMALL.replace("meta", "Meta"))], INVOKE, SMALL, Effect.NEITHER),
    ([statement(resource=[LARGE, SMALL])], INVOKE, SMALL, Effect.ALLOW),
    ([statement(resource="arn:aws:bedrock:*:*:*")], INVOKE, SMALL, Effect.ALLOW),
    ([statement(resource="arn:*:foundation-model/*:*:*:*")], INVOKE, SMALL, Effect.NEITHER),
    ([{"Effect": "Allow", "NotAction": STREAM, "Resource": "*"}], INVOKE, SMALL, Effect.ALLOW),
    ([{"Effect": "Allow", "NotAction": STREAM, "Resource": "*"}], STREAM, SMALL, Effect.NEITHER),
    ([{"Effect": "Deny", "NotAction": "bedrock:*", "Resource": "*"}], "outcrop:X", "*", Effect.DENY),
    ([{"Effect": "Allow", "Action": "*", "NotResource": LARGE}], INVOKE, SMALL, Effect.ALLOW),
    ([{"Effect": "Allow", "Action": "*", "NotResource": LARGE}], INVOKE, LARGE, Effect.NEITHER),
]


@pytest.mark.parametrize(("statements", "action", "resource", "effect"), TRUTH)
def test_truth(statements: list[Any], action: str, resource: str, effect: Effect) -> None:
    assert policy(*statements).evaluate(action, [resource], {}) is effect


def test_one_statement_needs_no_list() -> None:
    assert Policy.parse({"Statement": statement()}).evaluate(INVOKE, [SMALL], {}) is Effect.ALLOW


@given(st.lists(st.sampled_from([statement(), statement("Deny"), statement(resource=LARGE)]), min_size=1))
def test_a_deny_beats_every_allow(statements: list[Any]) -> None:
    effect = policy(*statements).evaluate(INVOKE, [SMALL], {})
    assert (effect is Effect.DENY) == any(each["Effect"] == "Deny" for each in statements)


@given(st.text(alphabet="ab:*?", max_size=8), st.text(alphabet="ab:", max_size=8))
def test_globs_are_those_of_a_regular_expression(pattern: str, text: str) -> None:
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    assert glob.matches(pattern, text) is (re.fullmatch(expression, text) is not None)


def test_a_glob_takes_no_exponential_time() -> None:
    assert not glob.matches("*a" * 200 + "b", "a" * 2000)


# -- conditions --------------------------------------------------------------------------------------

CONDITIONS = [
    ("StringEquals", "aws:username", "me", {"aws:username": "me"}, True),
    ("StringEquals", "AWS:UserName", ["you", "me"], {"aws:username": "me"}, True),
    ("StringEquals", "aws:username", "Me", {"aws:username": "me"}, False),
    ("StringEquals", "aws:username", "me", {}, False),
    ("StringEqualsIfExists", "aws:username", "me", {}, True),
    ("StringNotEquals", "aws:username", ["you", "me"], {"aws:username": "me"}, False),
    ("StringNotEquals", "aws:username", "you", {"aws:username": "me"}, True),
    ("StringNotEquals", "aws:username", "me", {}, True),
    ("StringEqualsIgnoreCase", "aws:username", "ME", {"aws:username": "me"}, True),
    ("StringNotEqualsIgnoreCase", "aws:username", "ME", {"aws:username": "me"}, False),
    ("StringLike", "aws:PrincipalTag/tenant", "team-*", {"aws:principaltag/tenant": "team-a"}, True),
    ("StringNotLike", "aws:PrincipalTag/tenant", "team-*", {"aws:principaltag/tenant": "team-a"}, False),
    ("ArnLike", "aws:PrincipalArn", "arn:aws:iam::*:user/m*", {"aws:principalarn": "arn:aws:iam::0:user/me"},
     True),
    ("ArnNotEquals", "aws:PrincipalArn", "arn:aws:iam::0:user/me",
     {"aws:principalarn": "arn:aws:iam::0:user/me"}, False),
    ("IpAddress", "aws:SourceIp", "192.0.2.0/24", {"aws:sourceip": "192.0.2.7"}, True),
    ("IpAddress", "aws:SourceIp", ["::1", "198.51.100.1"], {"aws:sourceip": "192.0.2.7"}, False),
    ("IpAddress", "aws:SourceIp", "192.0.2.0/24", {"aws:sourceip": "/run/socket"}, False),
    ("NotIpAddress", "aws:SourceIp", "192.0.2.0/24", {"aws:sourceip": "192.0.2.7"}, False),
    ("DateLessThan", "aws:CurrentTime", "2027-01-01", {"aws:currenttime": "2026-11-24T10:00:00+00:00"}, True),
    ("DateLessThanEquals", "aws:CurrentTime", "2026-11-24T10:00:00Z",
     {"aws:currenttime": "2026-11-24T10:00:00+00:00"}, True),
    ("DateGreaterThan", "aws:CurrentTime", "2026-11-24T10:00:00Z",
     {"aws:currenttime": "2026-11-24T10:00:00+00:00"}, False),
    ("DateGreaterThanEquals", "aws:CurrentTime", "2026-11-24T11:00:00+01:00",
     {"aws:currenttime": "2026-11-24T10:00:00+00:00"}, True),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "key", "values", "context", "holds"), CONDITIONS)
def test_conditions(operator: str, key: str, values: Any, context: dict[str, str], holds: bool) -> None:
    found = policy(statement(Condition={operator: {key: values}})).evaluate(INVOKE, [SMALL], context)
    assert (found is Effect.ALLOW) is holds


def test_all_conditions_must_hold() -> None:
    both = {"StringEquals": {"aws:username": "me", "aws:userid": "k"}, "StringLike": {"aws:username": "m*"}}
    found = policy(statement(Condition=both))
    assert found.evaluate(INVOKE, [SMALL], {"aws:username": "me", "aws:userid": "k"}) is Effect.ALLOW
    assert found.evaluate(INVOKE, [SMALL], {"aws:username": "me", "aws:userid": "x"}) is Effect.NEITHER


def test_the_inference_profile_is_known() -> None:
    profile = "arn:aws:bedrock:us-east-1:000000000000:inference-profile/us.meta.llama3-8b-instruct-v1:0"
    through = {"StringLike": {"bedrock:InferenceProfileArn": "arn:aws:bedrock:*:*:inference-profile/us.*"}}
    caller = principal(policy(statement(Condition=through)))
    caller.authorize(INVOKE, SMALL, profile)
    with pytest.raises(ApiError):
        caller.authorize(INVOKE, SMALL)


# -- what is refused when it is read ---------------------------------------------------------------

BROKEN = {
    "policy: this must be an object": [],
    "policy: there is no 'Statements' here": {"Statements": []},
    "Version: '2020-01-01' is not one of": {"Version": "2020-01-01", "Statement": statement()},
    "Statement: a policy needs a statement": {"Statement": []},
    "Statement[1]: this must be an object": {"Statement": [statement(), "x"]},
    "Statement[0]: there is no 'Principal' here": {"Statement": statement(Principal="*")},
    "Statement[0].Effect: 'allow' is neither": {"Statement": statement("allow")},
    "Statement[0]: exactly one of Action and NotAction": {"Statement": statement(NotAction="*")},
    "Statement[0]: exactly one of Resource": {"Statement": {"Effect": "Allow", "Action": "*"}},
    "Statement[0].Action: this must be a string": {"Statement": statement(action=[])},
    "Statement[0].Resource: this must be a string": {"Statement": statement(resource=[1])},
    "Statement[0]: 'InvokeModel' is not an action": {"Statement": statement(action="InvokeModel")},
    "Statement[0]: 'meta.*' is neither '*' nor an ARN": {"Statement": statement(resource="meta.*")},
    "Statement[0]: 'arn:aws:bedrock:*' is neither": {"Statement": statement(resource="arn:aws:bedrock:*")},
    "Statement[0].Resource: policy variables": {"Statement": statement(resource="arn:a:b:c:d:${aws:x}")},
    "Statement[0].Condition: this must be": {"Statement": statement(Condition=[])},
    "Statement[0].Condition.StringEquals: this must be": {"Statement": statement(
        Condition={"StringEquals": 1})},
    "Statement[0].Condition.Near: there is no such": {"Statement": statement(
        Condition={"Near": {"aws:username": "x"}})},
    "Statement[0].Condition.Bool: there is no such": {"Statement": statement(
        Condition={"Bool": {"aws:SecureTransport": "true"}})},
    "Statement[0].Condition.StringLike: the key 'aws:PrincipalOrgID' is not known": {"Statement": statement(
        Condition={"StringLike": {"aws:PrincipalOrgID": "o-*"}})},
    "Statement[0].Condition.StringLike.aws:userid: this must be": {"Statement": statement(
        Condition={"StringLike": {"aws:userid": []}})},
    "Statement[0].Condition.StringLike.aws:userid: policy variables": {"Statement": statement(
        Condition={"StringLike": {"aws:userid": "${aws:x}"}})},
    "Statement[0].Condition.IpAddress.aws:SourceIp: '999'": {"Statement": statement(
        Condition={"IpAddress": {"aws:SourceIp": "999"}})},
    "Statement[0].Condition.DateLessThan.aws:CurrentTime: ": {"Statement": statement(
        Condition={"DateLessThan": {"aws:CurrentTime": "soon"}})},
}  # fmt: skip


@pytest.mark.parametrize("message", BROKEN)
def test_broken_policies(message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Policy.parse(BROKEN[message])
    assert str(caught.value).startswith(message)


def test_policy_files(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    for text, message in [("{", "Expecting"), ("[]", "policy: this must"), (None, "No such file")]:
        if text is not None:
            path.write_text(text)
        with pytest.raises(PolicyError, match=message):
            read_policy(path if text is not None else tmp_path / "missing.json")
    document = {"Statement": [statement()]}
    path.write_text(json.dumps(document))
    assert key_policy(path, ()) == document
    with pytest.raises(PolicyError, match="not both"):
        key_policy(path, ["meta.*"])
    assert key_policy(None, ()) is None


# -- principals --------------------------------------------------------------------------------------


def test_the_words_of_a_refusal() -> None:
    me = "User: arn:aws:iam::000000000000:user/me is not authorized to perform: "
    caller = principal(policy(statement(action="s3:*"), DENY_LARGE))
    for resources, words in [
        (
            (SMALL,),
            f" on resource: {SMALL} because no identity-based policy allows the {INVOKE} action",
        ),
        ((LARGE,), f" on resource: {LARGE} with an explicit deny in an identity-based policy"),
        ((), f" because no identity-based policy allows the {INVOKE} action"),
    ]:
        with pytest.raises(ApiError) as caught:
            caller.authorize(INVOKE, *resources)
        assert caught.value.message == me + INVOKE + words
        assert caught.value.kind.code == "AccessDeniedException"


def test_the_shorthand_for_models() -> None:
    caller = principal(Policy.parse(models_policy(["meta.llama3-8b*", "outcrop.*"])))
    for action in (INVOKE, STREAM, "bedrock:CountTokens"):
        caller.authorize(action, SMALL)
        with pytest.raises(ApiError):
            caller.authorize(action, LARGE)
    caller.authorize("bedrock:ListFoundationModels")
    caller.authorize("bedrock:CallWithBearerToken")
    with pytest.raises(ApiError):
        caller.authorize("outcrop:ReadMetrics")
    assert principal(ALLOW_ALL).authorize("outcrop:ReadMetrics") is None


# -- the names of a model ----------------------------------------------------------------------------


def test_a_deny_holds_under_every_name() -> None:
    catalog = Catalog([served(ScriptedEngine(), "meta.llama3-70b-instruct-v1:0", aliases=("big", "x.y"))])
    caller = principal(policy(statement(), DENY_LARGE))
    for name in [
        "big", "us.x.y", "meta.llama3-70b-instruct-v1:0", "us.meta.llama3-70b-instruct-v1:0", LARGE,
        LARGE.replace("us-east-1", "eu-west-1"),
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.meta.llama3-70b-instruct-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/big",
    ]:  # fmt: skip
        assert catalog.resolve(name) is catalog.models[0]
        with pytest.raises(ApiError):
            caller.authorize(INVOKE, *model_arns(name, catalog))
        principal(policy(statement(resource=LARGE))).authorize(INVOKE, *model_arns(name, catalog))
        excepted = {"Effect": "Allow", "Action": "*", "NotResource": LARGE}
        with pytest.raises(ApiError):
            principal(policy(excepted)).authorize(INVOKE, *model_arns(name, catalog))
    assert model_arns("unknown", catalog) == ["arn:aws:bedrock:us-east-1::foundation-model/unknown"]


def test_the_names_in_demo_mode() -> None:
    catalog = Catalog([served(ScriptedEngine(), "outcrop.demo")], demo=True, region="eu-west-1")
    prefix = "arn:aws:bedrock:eu-west-1::foundation-model/"
    assert model_arns("us.meta.llama3-8b-instruct-v1:0", catalog) == [
        f"{prefix}meta.llama3-8b-instruct-v1:0",
        "arn:aws:bedrock:eu-west-1:000000000000:inference-profile/us.meta.llama3-8b-instruct-v1:0",
        f"{prefix}outcrop.demo",
    ]
