"""The Helm chart, by what it renders for five files of values (golden/, which `test_helm` holds to the
chart): valid for Kubernetes, and true of Outcrop."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest

from outcrop.api.auth.middleware import PUBLIC_PATHS
from outcrop.api.caller import SESSION
from outcrop.settings import Settings
from outcrop.telemetry.metrics import Metrics
from outcrop_compile.instances import INSTANCES

from .manifests import DEPLOY, check_command, check_variables, documents, extras, settings_of, strings
from .render import GOLDEN, VALUES

OLDEST, NEWEST = "1.30", "1.34"
"""Of Kubernetes: Chart.yaml asks for the first."""

CHART = DEPLOY / "helm" / "outcrop"
SHARED = "postgresql://user@host/outcrop"
"""What the chart takes from a Secret."""
CUSTOM = {"NodePool", "EC2NodeClass", "ScaledObject", "ServiceMonitor"}
NAMES = [path.name for path in VALUES]
ROUTER = "outcrop-router"
"""The label app.kubernetes.io/name of what the router is made of."""


class Rendered:
    """One golden file. documents: the pods' and the router's. of, has: of the pods'."""

    def __init__(self, name: str) -> None:
        self.documents = documents(GOLDEN / name)
        self._parts = [each for each in self.documents if part(each) != ROUTER]

    def of(self, kind: str) -> dict[str, Any]:
        (found,) = (each for each in self._parts if each["kind"] == kind)
        return found

    def has(self, kind: str) -> bool:
        return any(each["kind"] == kind for each in self._parts)

    def of_router(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.documents if part(each) == ROUTER and each["kind"] == kind]

    @property
    def pod(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.of("Deployment")["spec"]["template"]["spec"]
        return spec

    @property
    def container(self) -> dict[str, Any]:
        (found,) = self.pod["containers"]
        return dict(found)

    def settings(self, folder: Path) -> Settings:
        variables = {each["name"]: each.get("value", SHARED) for each in self.container["env"]}
        given = {name: value for name, value in variables.items() if name.startswith("OUTCROP_")}
        return settings_of(self.of("ConfigMap")["data"]["outcrop.toml"], folder, **given)


def part(document: dict[str, Any]) -> str:
    return str(document["metadata"]["labels"]["app.kubernetes.io/name"])


def router_config(name: str) -> str:
    (found,) = Rendered(name).of_router("ConfigMap")
    text: str = found["data"]["haproxy.cfg"]
    return text


@pytest.fixture(params=NAMES)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return Rendered(request.param)


def test_there_are_five() -> None:
    assert len(NAMES) == 5
    assert {path.name for path in GOLDEN.glob("*.yaml")} == set(NAMES)


@pytest.mark.parametrize(
    ("name", "version"), [*((name, NEWEST) for name in NAMES), ("spot-fleet.yaml", OLDEST)]
)
def test_kubernetes_takes_them(name: str, version: str) -> None:
    checked = [each for each in Rendered(name).documents if each["kind"] not in CUSTOM]
    assert len(checked) >= 5
    for each in checked:
        kubernetes_validate.validate(each, version, strict=True)


def test_a_mistake_would_be_found() -> None:
    deployment = Rendered("cpu-demo.yaml").of("Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, NEWEST, strict=True)


def test_settings_options_and_variables_are_outcrops(rendered: Rendered, tmp_path: Path) -> None:
    settings = rendered.settings(tmp_path)
    assert settings.authenticated
    assert settings.models[0].backend == ("neuron" if rendered.pod.get("initContainers") else "cpu")
    containers = [*rendered.pod.get("initContainers", ()), rendered.container]
    for container in containers:
        check_command(container["args"])
        check_variables([each["name"] for each in container["env"]])


def test_ports_and_paths_are_the_servers(rendered: Rendered, tmp_path: Path) -> None:
    container, settings = rendered.container, rendered.settings(tmp_path)
    (port,) = container["ports"]
    assert (port["name"], port["containerPort"]) == ("http", settings.port)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["path"] in PUBLIC_PATHS, probe
        assert asked["port"] == "http"
    (served,) = rendered.of("Service")["spec"]["ports"]
    assert served["targetPort"] == "http"
    if settings.state == SHARED:
        assert settings.auth.keys is None, "keys are where all pods have them, too"
    else:
        assert settings.state == "/var/lib/outcrop/state.db"
        assert settings.auth.keys == Path("/etc/outcrop/keys/keys.json")


def test_every_file_that_is_written_is_on_a_volume(rendered: Rendered) -> None:
    """The root is read-only: state, caches and what is pulled have places of their own."""
    pod, container = rendered.pod, rendered.container
    volumes = {each["name"] for each in pod["volumes"]}
    for each in [*pod.get("initContainers", ()), container]:
        assert each["securityContext"]["readOnlyRootFilesystem"] is True
        mounts = {mount["mountPath"]: mount for mount in each["volumeMounts"]}
        assert {mount["name"] for mount in mounts.values()} <= volumes
        written = {
            variable["value"] for variable in each["env"] if variable["name"] in ("HOME", "XDG_CACHE_HOME")
        }
        for place in written | {"/tmp"}:
            assert not mounts[place].get("readOnly"), place
    for init in pod.get("initContainers", ()):
        out = init["args"][init["args"].index("--out") + 1]
        (mount,) = (each for each in init["volumeMounts"] if each["mountPath"] == "/artifacts")
        assert out.startswith("/artifacts/")
        assert not mount.get("readOnly")
        assert f'artifact = "{out}"' in rendered.of("ConfigMap")["data"]["outcrop.toml"]


def test_calls_in_progress_are_finished_before_a_pod_is_killed(rendered: Rendered, tmp_path: Path) -> None:
    settings = rendered.settings(tmp_path)
    (_, waits) = rendered.container["lifecycle"]["preStop"]["exec"]["command"]
    needed = int(waits) + settings.notice_seconds + settings.drain_seconds
    assert int(waits) >= 5
    assert rendered.pod["terminationGracePeriodSeconds"] >= needed + 10
    if rendered.has("NodePool"):
        node = rendered.of("NodePool")["spec"]["template"]["spec"]
        grace = node["terminationGracePeriod"]
        assert int(grace.removesuffix("s")) > rendered.pod["terminationGracePeriodSeconds"]
        (capacity,) = (each for each in node["requirements"] if each["key"] == "karpenter.sh/capacity-type")
        if "spot" in capacity["values"]:
            assert needed < 120, "spot is reclaimed two minutes after it is told"


def test_pods_run_as_the_images_do(rendered: Rendered) -> None:
    """As the user whose are the folders that images make."""
    security = rendered.pod["securityContext"]
    assert security["fsGroup"] == security["runAsGroup"]
    for path in (DEPLOY / "docker").glob("Dockerfile.*"):
        user = f"{security['runAsUser']}:{security['runAsGroup']}"
        assert f"\nUSER {user}\n" in path.read_text(), path.name


def test_starting_takes_as_long_as_loading(rendered: Rendered) -> None:
    container = rendered.container
    probe = container["startupProbe"]
    patience = probe["periodSeconds"] * probe["failureThreshold"]
    assert patience >= 120
    assert rendered.of("Deployment")["spec"]["progressDeadlineSeconds"] > patience


def test_engines_of_a_pod_are_replicas(tmp_path: Path) -> None:
    settings = Rendered("inf2-48xlarge.yaml").settings(tmp_path)
    (model,) = settings.models
    assert model.replicas == 3
    assert settings.max_inflight == 256, "for each replica, so not for all three together"


@pytest.mark.parametrize(
    ("name", "devices", "scheduler"),
    [
        ("cpu-demo.yaml", None, None),
        ("inf2-8xlarge.yaml", 1, None),
        ("inf2-48xlarge.yaml", 12, None),
        ("trn1-70b.yaml", 16, None),
        ("spot-fleet.yaml", 4, "my-scheduler"),
    ],
)
def test_devices(name: str, devices: int | None, scheduler: str | None) -> None:
    """Half as many as cores; neighbouring ones by the scheduler extension where a pod has part of an
    instance."""
    rendered = Rendered(name)
    for amounts in rendered.container["resources"].values():
        assert amounts.get("aws.amazon.com/neuron") == (None if devices is None else str(devices))
    assert rendered.pod.get("schedulerName") == scheduler
    tolerated = {each["key"] for each in rendered.pod.get("tolerations", ())}
    assert tolerated == (set() if devices is None else {"aws.amazon.com/neuron"})


def test_instances_are_those_that_plans_know() -> None:
    helpers = (CHART / "templates" / "_helpers.tpl").read_text()
    (table,) = re.findall(r"\$devices := dict ([^}]*?) -}}", helpers)
    pairs = re.findall(r'"([^"]+)" (\d+)', table)
    assert {name: int(chips) for name, chips in pairs} == {
        each.name: each.chips for each in INSTANCES.values()
    }
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    assert set(schema["instance"]["properties"]["type"]["enum"]) == set(INSTANCES)
    degrees = {degree for each in INSTANCES.values() for degree in each.degrees}
    assert set(schema["tensorParallel"]["enum"]) == degrees


def test_what_scales_is_measured() -> None:
    rendered = Rendered("spot-fleet.yaml")
    exposed = set(re.findall(rb"# TYPE (\S+) gauge", Metrics({}).render("")[0]))
    triggers = rendered.of("ScaledObject")["spec"]["triggers"]
    asked = {re.findall(r"\(([\w:]+){", each["metadata"]["query"])[0].encode() for each in triggers}
    assert asked == {b"vllm:num_requests_waiting", b"vllm:kv_cache_usage_perc"}
    assert asked <= exposed
    labels = re.findall(r'(\w+)="([^"]+)"', triggers[0]["metadata"]["query"])
    service = rendered.of("Service")["metadata"]
    assert dict(labels) == {"namespace": service["namespace"], "service": service["name"]}


def test_prometheus_finds_the_service() -> None:
    rendered = Rendered("spot-fleet.yaml")
    monitor = rendered.of("ServiceMonitor")["spec"]
    service = rendered.of("Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in {each["name"] for each in service["spec"]["ports"]}
    # The rules and dashboards ask for this job.
    assert service["metadata"]["labels"][monitor["jobLabel"]] == "outcrop"


def test_selectors_select_the_pods(rendered: Rendered) -> None:
    labels = rendered.of("Deployment")["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        rendered.of("Service")["spec"]["selector"],
        rendered.of("Deployment")["spec"]["selector"]["matchLabels"],
    ]
    for kind, path in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        if rendered.has(kind):
            selectors.append(rendered.of(kind)["spec"][path]["matchLabels"])
    assert len(selectors) >= 3
    for each in selectors:
        assert each.items() <= labels


def test_no_secret_is_in_a_manifest(rendered: Rendered) -> None:
    assert not rendered.has("Secret")
    for variable in rendered.container["env"]:
        if "SECRET" in variable["name"]:
            assert "secretKeyRef" in variable["valueFrom"]
    assert not any(
        "://" in text and "@" in text for text in strings(rendered.documents) if "amazonaws" not in text
    )


def test_an_image_has_what_settings_ask_for(tmp_path: Path) -> None:
    """Traces and a shared database need packages that not everybody installs."""
    settings = Rendered("trn1-70b.yaml").settings(tmp_path)
    assert settings.telemetry.otlp_endpoint is not None
    assert settings.state == SHARED
    assert {"otel", "postgres", "s3"} <= set(extras(DEPLOY / "docker" / "Dockerfile.neuron"))
    allowed = {
        port["port"]
        for each in Rendered("trn1-70b.yaml").of("NetworkPolicy")["spec"]["egress"]
        for port in each["ports"]
    }
    assert urlsplit(settings.telemetry.otlp_endpoint).port in allowed


def test_a_router_knows_the_pods_and_may_reach_them() -> None:
    rendered = Rendered("spot-fleet.yaml")
    (pods,) = (each for each in rendered.of_router("Service") if each["spec"].get("clusterIP") == "None")
    (front,) = (each for each in rendered.of_router("Service") if each is not pods)
    (router,) = rendered.of_router("Deployment")
    template = router["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    config = router_config("spot-fleet.yaml")
    (asked,) = re.findall(r"server-template pod 1-\d+ (\S+):(\d+) ", config)
    name, port = pods["metadata"]["name"], pods["spec"]["ports"][0]["port"]
    assert asked == (f"{name}.{pods['metadata']['namespace']}.svc.cluster.local", str(port))
    (listens,) = rendered.container["ports"]
    assert pods["spec"]["ports"][0]["targetPort"] == listens["name"]
    # A headless Service's port is the pods' own, since it translates none.
    assert port == listens["containerPort"]
    assert pods["spec"]["selector"] == rendered.of("Service")["spec"]["selector"]
    (own,) = template["spec"]["containers"][0]["ports"]
    assert f"bind :{own['containerPort']}\n" in config
    assert front["spec"]["ports"][0]["targetPort"] == own["name"]
    # Each is selected by its own Services alone, and metrics are the pods'.
    assert front["spec"]["selector"].items() <= labels
    assert not rendered.of("Service")["spec"]["selector"].items() <= labels
    monitor = rendered.of("ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert not any(monitor.items() <= each["metadata"]["labels"].items() for each in (pods, front))
    callers = rendered.of("NetworkPolicy")["spec"]["ingress"][0]["from"]
    assert [each["podSelector"]["matchLabels"].items() <= labels for each in callers[:1]] == [True]
    assert {} not in [each.get("podSelector") for each in callers], "others come by the router"


def test_a_router_notices_before_calls_are_refused(tmp_path: Path) -> None:
    rendered, config = Rendered("spot-fleet.yaml"), router_config("spot-fleet.yaml")
    (path,) = re.findall(r"option httpchk GET (\S+)", config)
    assert path in PUBLIC_PATHS
    (checks,) = re.findall(r"inter (\d+)s fastinter (\d+)ms fall 2 ", config)
    settings = rendered.settings(tmp_path)
    assert int(checks[0]) + int(checks[1]) / 1000 < settings.notice_seconds
    # And it goes as pods do, when its own calls are finished.
    (router,) = rendered.of_router("Deployment")
    spec = router["spec"]["template"]["spec"]
    (_, waits) = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    (hard_stop,) = re.findall(r"hard-stop-after (\d+)s", config)
    assert int(hard_stop) >= settings.drain_seconds
    assert spec["terminationGracePeriodSeconds"] >= int(waits) + int(hard_stop) + 10


def test_a_session_is_what_outcrop_takes_for_one() -> None:
    assert f"req.hdr({SESSION})" in router_config("spot-fleet.yaml")
