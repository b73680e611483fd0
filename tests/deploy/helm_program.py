"""Helm, as far as the tests need it: JSON in, JSON out. Run by the Python of .venv-deploy, which has Helm's
SDK.

In: {"chart": folder, "values": [{…}, …]}. Out: a list of {"messages": […], "manifests": {template: text}}, or
{"error": …} where Helm refuses the values.
"""

import json
import sys
from typing import Any

import helm_python as helm


def release(path: str, values: dict[str, Any]) -> dict[str, Any]:
    try:
        with helm.Chart.load(path) as chart:
            manifests = chart.render(values, name="outcrop", namespace="models")
    except helm.HelmError as error:
        return {"error": str(error)}
    report = helm.lint(path, values, strict=True, namespace="models")
    return {"messages": report["messages"], "errors": report["errors"], "manifests": manifests}


asked = json.load(sys.stdin)
json.dump([release(asked["chart"], values) for values in asked["values"]], sys.stdout)
