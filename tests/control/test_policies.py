"""What a policy denies stays denied, whatever name or detour leads to it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import pytest

from ..conformance.causes import keyed
from ..conformance.surface import ASYNC, JOB, MODEL, PROFILE

NOT_THIS_MODEL = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {
            "Effect": "Deny",
            "Action": "bedrock:InvokeModel",
            "Resource": f"arn:aws:bedrock:*::foundation-model/{MODEL}",
        },
    ],
}
CONVERSATION = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/model/{profile}/converse", CONVERSATION),
        ("/model/{profile}/invoke", {"prompt": "Hi"}),
        ("/model-invocation-job", JOB),
        ("/model-invocation-job", JOB | {"modelId": "{profile}"}),
        ("/async-invoke", ASYNC),
        ("/async-invoke", ASYNC | {"modelId": "{profile}"}),
    ],
)
def test_no_way_around_a_deny(path: str, body: dict[str, Any]) -> None:
    with keyed(policy=NOT_THIS_MODEL) as (http, headers):
        made = http.post("/inference-profiles", json=PROFILE, headers=headers).raise_for_status()
        profile = made.json()["inferenceProfileArn"]
        named = {name: profile if value == "{profile}" else value for name, value in body.items()}
        response = http.post(path.format(profile=quote(profile, safe="")), json=named, headers=headers)
        assert_denied(response)


def assert_denied(response: httpx.Response) -> None:
    assert response.status_code == 403
    assert "explicit deny" in response.json()["message"]
