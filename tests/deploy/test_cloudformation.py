"""The CloudFormation template: by cfn-lint, and true of Outcrop and of
deploy/ec2."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
import yaml

from outcrop.api.auth.middleware import PUBLIC_PATHS
from outcrop.settings import Settings
from outcrop_compile.instances import INSTANCES

from .manifests import DEPLOY, require, strings

TEMPLATE = DEPLOY / "cloudformation" / "outcrop.yaml"
REGION = "us-east-1"


class Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms of its functions."""


def _function(loader: Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {suffix: value}


Loader.add_multi_constructor("!", _function)


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    return dict(yaml.load(TEMPLATE.read_text(), Loader))  # a subclass of SafeLoader


@pytest.fixture(scope="module")
def resources(template: dict[str, Any]) -> dict[str, Any]:
    return {name: each["Properties"] for name, each in template["Resources"].items()}


def test_cfn_lint() -> None:
    done = subprocess.run(
        [require("cfn-lint", "cfn-lint"), "--regions", REGION, "--", str(TEMPLATE)],
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.returncode) == ("", 0)


def test_cloudformation_has_no_anchors() -> None:
    """YAML's aliases, which it does not take."""
    assert not re.search(r"(^|[\s\[])[&*]\w+|<<:", re.sub(r'"[^"]*"', "", TEMPLATE.read_text()))


def test_calls_and_checks_go_where_the_server_answers(resources: dict[str, Any]) -> None:
    port = Settings.model_fields["port"].default
    targets = resources["Targets"]
    assert targets["Port"] == port
    assert targets["HealthCheckPath"] in PUBLIC_PATHS
    assert resources["InstanceSecurityGroup"]["SecurityGroupIngress"][0]["FromPort"] == port
    attributes = {each["Key"]: each["Value"] for each in resources["Balancer"]["LoadBalancerAttributes"]}
    assert attributes["routing.http2.enabled"] == "true"


def test_a_balancer_notices_before_calls_are_refused(resources: dict[str, Any]) -> None:
    """And Auto Scaling waits for those in progress."""
    config = (DEPLOY / "ec2" / "outcrop.toml").read_text()
    notice, drain = (
        float(re.findall(rf"^{name} = (\d+)", config, re.M)[0])
        for name in ("notice_seconds", "drain_seconds")
    )
    targets = resources["Targets"]
    assert notice > targets["HealthCheckIntervalSeconds"] * targets["UnhealthyThresholdCount"]
    for group in ("BaseGroup", "BurstGroup"):
        hooks = {
            each["LifecycleHookName"]: each for each in resources[group]["LifecycleHookSpecificationList"]
        }
        assert hooks["outcrop-terminate"]["HeartbeatTimeout"] > notice + drain
    attributes = {each["Key"]: each["Value"] for each in targets["TargetGroupAttributes"]}
    assert int(attributes["deregistration_delay.timeout_seconds"]) > notice + drain


def test_hooks_are_those_that_the_agent_completes(resources: dict[str, Any]) -> None:
    agent = (DEPLOY / "ec2" / "outcrop-lifecycle").read_text()
    completed = set(re.findall(r"^ *complete (\S+)$", agent, re.M))
    for group in ("BaseGroup", "BurstGroup"):
        assert {
            each["LifecycleHookName"] for each in resources[group]["LifecycleHookSpecificationList"]
        } == completed
    data = resources["LaunchTemplate"]["LaunchTemplateData"]
    assert data["MetadataOptions"] == {
        "HttpTokens": "required", "HttpPutResponseHopLimit": 1, "InstanceMetadataTags": "enabled"
    }  # fmt: skip


def test_user_data_calls_the_bootstrap_script_as_it_is(
    template: dict[str, Any], resources: dict[str, Any]
) -> None:
    text, variables = resources["LaunchTemplate"]["LaunchTemplateData"]["UserData"]["Fn::Base64"]["Sub"]
    options = set(re.findall(r"--[a-z-]+", text.partition("bootstrap.sh")[2]))
    options |= set(re.findall(r"--[a-z-]+", " ".join(strings(variables))))
    usage = (DEPLOY / "ec2" / "bootstrap.sh").read_text().partition("USAGE")[2].partition("\nUSAGE")[0]
    assert options <= set(re.findall(r"--[a-z-]+", usage))
    assert {"--wheel", "--store", "--artifact", "--model-id", "--state"} <= options
    known = set(template["Parameters"]) | set(variables) | {"AWS::Region"}
    assert set(re.findall(r"\${([\w:]+)}", text)) <= known
    assert len(text) < 16_000


def test_instances_may_read_one_bucket_and_no_more(resources: dict[str, Any]) -> None:
    role = resources["InstanceRole"]
    statements = [each for policy in role["Policies"] for each in policy["PolicyDocument"]["Statement"]]
    allowed = {(each["Action"], each["Resource"]["Sub"]) for each in statements}
    assert all(each["Effect"] == "Allow" for each in statements)
    assert {action for action, _ in allowed} == {
        "s3:GetObject", "s3:ListBucket", "autoscaling:CompleteLifecycleAction"
    }  # fmt: skip
    for action, resource in allowed:
        assert "${Bucket}" in resource if action.startswith("s3:") else "${AWS::StackName}" in resource
    (managed,) = role["ManagedPolicyArns"]
    assert managed["Sub"].endswith("/AmazonSSMManagedInstanceCore")


def test_spot_is_where_warm_pools_are_not(template: dict[str, Any], resources: dict[str, Any]) -> None:
    """EC2 Auto Scaling refuses a warm pool for a group with a mixed instances policy."""
    assert resources["WarmPool"]["AutoScalingGroupName"] == {"Ref": "BaseGroup"}
    assert "MixedInstancesPolicy" not in resources["BaseGroup"]
    policy = resources["BurstGroup"]["MixedInstancesPolicy"]
    assert policy["InstancesDistribution"]["OnDemandPercentageAboveBaseCapacity"] == {
        "Ref": "OnDemandPercentage"
    }
    parameters = template["Parameters"]
    types = [
        *parameters["InstanceType"]["AllowedValues"],
        *parameters["OtherInstanceTypes"]["Default"].split(","),
    ]
    assert set(types) <= set(INSTANCES)


def test_an_update_can_always_go_forward(template: dict[str, Any], resources: dict[str, Any]) -> None:
    """Of the largest size that parameters allow a group to have, CloudFormation wants more than it keeps in
    service meanwhile. Something serves at any time: the base group."""
    kept = {
        name: template["Resources"][name]["UpdatePolicy"]["AutoScalingRollingUpdate"]["MinInstancesInService"]
        for name in ("BaseGroup", "BurstGroup")
    }
    parameters = template["Parameters"]
    assert resources["BaseGroup"]["MaxSize"] == {"Ref": "MaxBaseInstances"}
    assert 1 <= kept["BaseGroup"] < parameters["MaxBaseInstances"]["MinValue"]
    assert kept["BaseGroup"] <= parameters["BaseInstances"]["MinValue"]
    assert resources["BurstGroup"]["MaxSize"] == {"Ref": "MaxBurstInstances"}
    assert kept["BurstGroup"] < 1
    for name in ("BurstGroup", "BurstScaling"):
        assert template["Resources"][name]["Condition"] == "HasBurst"
    assert template["Conditions"]["HasBurst"] == {"Not": [{"Equals": [{"Ref": "MaxBurstInstances"}, "0"]}]}
