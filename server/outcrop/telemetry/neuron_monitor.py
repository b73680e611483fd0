"""The metrics of neuron-monitor, passed on with the server's own.

`neuron-monitor | neuron-monitor-prometheus.py --port 8000` of the Neuron tools serves them (SDK,
tools/neuron-sys-tools/neuron-monitor-user-guide.rst). Their names stay what they are, so that AWS's own
dashboards read them: neuroncore_utilization_ratio, neuron_runtime_memory_used_bytes, execution_errors_total
and so on. An idle node has hardly any. Tested with a recording's form; not yet run on a device."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from urllib.request import urlopen

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

logger = logging.getLogger(__name__)

_TIMEOUT = 2.0
_LARGEST = 4 << 20
_NAMES = (
    "neuroncore_", "neuron_", "execution_", "hardware_ecc_events", "system_", "instance_info",
)  # fmt: skip
"""What these metrics begin with. Whatever else answers at that address has no say in the server's metrics."""


class NeuronMonitor(Collector):
    """url: of the exporter's metrics. `refresh` reads them, `collect` tells what was read last."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._families: tuple[Metric, ...] = ()
        self._up = False

    async def refresh(self) -> None:
        """Read them anew. Never raises: an exporter that is not there is told by
        `outcrop_neuron_monitor_up`."""
        try:
            self._families = await asyncio.to_thread(self._read)
            up = True
        except (OSError, ValueError) as error:
            self._families, up = (), False
            if self._up:
                logger.warning("neuron-monitor at %s does not answer any more: %s", self._url, error)
        self._up = up

    def _read(self) -> tuple[Metric, ...]:
        with urlopen(self._url, timeout=_TIMEOUT) as answer:
            text = answer.read(_LARGEST).decode()
        return tuple(each for each in text_string_to_metric_families(text) if each.name.startswith(_NAMES))

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("outcrop_neuron_monitor_up", "Whether neuron-monitor's exporter answered.")
        up.add_metric([], self._up)
        yield up
        yield from self._families
