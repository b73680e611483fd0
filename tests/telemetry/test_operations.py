"""What operators load: dashboards by Grafana's schema, alerts by Prometheus' own tool, and every metric that
they ask for is one that a server has.

grafana/*.jsonschema.json: jsonschema/ of github.com/grafana/grafana-foundation-sdk, commit f178d5a42a89
(Apache-2.0). Its .cog/resources say what they were made from: dashboards from kinds/dashboard of Grafana
12.3.3 (schema version 42; Grafana brings older ones up to date when it loads them), queries from the
Prometheus data source (grafana-prometheus-datasource, promlib 0.0.12)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml
from demo import PATH
from prometheus_client.parser import text_string_to_metric_families
from serving import ANY_MODEL, serving

HERE = Path(__file__).parent
DEPLOY = HERE.parents[1] / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
ALERTS = DEPLOY / "prometheus" / "alerts.yml"

# The exposition of neuron-monitor-prometheus.py, by the names and labels in its source.
NEURON = "".join(
    f"# HELP {name} .\n# TYPE {name} {kind}\n{name}{{{labels}}} {value}\n"
    for name, kind, labels, value in (
        ("neuroncore_utilization_ratio", "gauge", 'instance_id="i-1",neuroncore="0"', 0.5),
        ("neuroncore_memory_usage_tensors", "gauge", 'neuroncore="0",memory_location="neuron_device"', 1e9),
        (
            "neuroncore_memory_usage_model_code",
            "gauge",
            'neuroncore="0",memory_location="neuron_device"',
            1e8,
        ),
        ("neuroncore_memory_usage_model_shared_scratchpad", "gauge", 'neuroncore="0"', 1e8),
        ("neuron_runtime_memory_used_bytes", "gauge", 'memory_location="neuron_device"', 2e9),
        ("neuron_runtime_vcpu_usage_ratio", "gauge", 'usage_type="user"', 0.2),
        ("execution_errors_total", "counter", 'instance_id="i-1",error_type="hardware"', 0),
        ("execution_status_total", "counter", 'instance_id="i-1",status_type="completed"', 9),
        ("execution_latency_seconds", "gauge", 'percentile="p99"', 0.01),
        ("hardware_ecc_events_total", "counter", 'event_type="mem_ecc_corrected",neuron_device_index="0"', 0),
        ("system_memory_total_bytes", "gauge", "", 1e11),
        ("system_memory_used_bytes", "gauge", "", 1e10),
        ("python_gc_objects_collected_total", "counter", "", 5),
    )
)


@pytest.fixture(scope="module")
def neuron_monitor() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(NEURON.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory, neuron_monitor: str) -> set[str]:
    """The names of all samples of a server that has answered one request."""
    folder = tmp_path_factory.mktemp("metrics")
    config = folder / "outcrop.toml"
    config.write_text(
        f'[cost]\ninstance = "inf2.xlarge"\n[telemetry]\nneuron_monitor = "{neuron_monitor}"\n'
        f'[[models]]\npath = "{PATH}"\nbackend = "fake"\n'
    )
    with serving(folder, "--config", str(config)) as server, closing(server.client()) as client:
        content = [{"role": "user", "content": [{"text": "Hi"}]}]
        client.converse(modelId=ANY_MODEL, messages=content, inferenceConfig={"maxTokens": 5})
        for accept in ("text/plain", "application/openmetrics-text"):
            answer = httpx.get(f"{server.url}/metrics", headers={"accept": accept})
            assert answer.status_code == 200
            assert 'neuroncore_utilization_ratio{instance_id="i-1",neuroncore="0"} 0.5' in answer.text
            assert "python_gc_objects" not in answer.text
        text = httpx.get(f"{server.url}/metrics").text
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def names_in(expression: str) -> set[str]:
    """The metrics in PromQL: identifiers that are neither functions, nor keywords, nor labels."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"|\{[^}]*\}|\[[^]]*\]|\b(?:by|on|without)\s*\([^)]*\)', " ", expression)
    found = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)\b(?!\s*\()", bare)
    return set(found) - {"and", "or", "unless", "by", "on", "bool", "offset"}


def grafana_schema(name: str) -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(json.loads((HERE / "grafana" / f"{name}.jsonschema.json").read_bytes()))


def targets(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [target for panel in dashboard["panels"] for target in panel.get("targets", ())]


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in targets(dashboard)]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def test_names_are_found_in_promql() -> None:
    expression = (
        'histogram_quantile(0.9, sum by (le, m) (rate(a:b_bucket{x=~"c.*"}[$__i]))) > 2 and up{j="k"} * 1e6'
    )
    assert names_in(expression) == {"a:b_bucket", "up"}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_are_what_grafana_loads(path: Path) -> None:
    dashboard = json.loads(path.read_bytes())
    whole = grafana_schema("dashboard")
    whole.validate(dashboard)
    with pytest.raises(jsonschema.ValidationError):
        whole.validate(dashboard | {"pannels": []})
    query = grafana_schema("prometheus")
    for each in targets(dashboard):
        query.validate(each)
        with pytest.raises(jsonschema.ValidationError):
            query.validate(each | {"legend": ""})
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [
        (x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])
    ]
    assert len(set(cells)) == len(cells), "panels overlap"
    assert max(x for x, _ in cells) < 24


def test_there_is_a_dashboard_for_each_concern() -> None:
    assert [path.stem for path in DASHBOARDS] == ["cost", "engine", "neuron", "service"]


def test_every_metric_of_a_panel_an_alert_or_the_mapping_is_there(metrics: set[str]) -> None:
    asked = {path.name: expressions(json.loads(path.read_bytes())) for path in DASHBOARDS}
    asked["alerts.yml"] = [rule["expr"] for rule in rules()]
    mapping = (DEPLOY / "prometheus" / "README.md").read_text()
    asked["README.md"] = [
        each.replace("\\|", "|") for each in re.findall(r"^\| [^|`]+ \| `(.*)` \|$", mapping, re.M)
    ]
    assert len(asked["README.md"]) == 12
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for name, found in asked.items():
        for expression in found:
            used = names_in(expression) - recorded - {"up"}  # which Prometheus itself makes
            assert used or names_in(expression), expression
            assert used <= metrics, f"{name}: {used - metrics} of {expression}"


def test_every_alert_is_tested_to_fire_and_to_be_silent() -> None:
    tests = yaml.safe_load((HERE / "alerts_test.yml").read_text())["tests"]
    outcomes = {
        (each["alertname"], bool(each["exp_alerts"])) for test in tests for each in test["alert_rule_test"]
    }
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    assert outcomes == {(alert, fires) for alert in alerts for fires in (True, False)}


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool comes with Debian's package prometheus"
)
def test_alerts_by_prometheus_own_tool(tmp_path: Path) -> None:
    panels = [each for path in DASHBOARDS for each in expressions(json.loads(path.read_bytes()))]
    # Grafana fills its own variables in.
    filled = [each.replace("$__rate_interval", "5m").replace("$model", ".*") for each in panels]
    group = {"name": "panels", "rules": [{"record": f"p{n}", "expr": each} for n, each in enumerate(filled)]}
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [group]}))
    for command in (
        ("check", "rules", str(ALERTS), str(tmp_path / "panels.yml")),
        ("test", "rules", str(HERE / "alerts_test.yml")),
    ):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
