"""What operators learn of generations: metrics, usage and traces."""

from __future__ import annotations

from datetime import UTC, datetime
from time import perf_counter

from outcrop.api.caller import Caller
from outcrop.catalog.model import TextDelta
from outcrop.ledger.usage_ledger import UsageLedger, UsageRow
from outcrop.telemetry.metrics import Metrics, ObservedGeneration
from outcrop.telemetry.tracing import TracedCall, Tracing


class Observer:
    """Tells everything to the metrics, and to ledger and traces where there are any."""

    def __init__(
        self, metrics: Metrics, ledger: UsageLedger | None = None, tracing: Tracing | None = None
    ) -> None:
        self.metrics = metrics
        self.ledger = ledger
        self.tracing = tracing
        if ledger is not None:
            metrics.gauge(
                "outcrop_usage_rows_waiting",
                "Rows of usage that have not been written yet; more than a moment's work means that they "
                "cannot be.",
                lambda: ledger.backlog,
            )

    async def close(self) -> None:
        """Write what is left to write."""
        if self.ledger is not None:
            await self.ledger.close()
        if self.tracing is not None:
            self.tracing.close()

    def generation(self, call: TracedCall, caller: Caller, prompt: int, arrived: float) -> Watched:
        """One generation, from when its prompt is ready. arrived: as of `Metrics.generation`."""
        observed = self.metrics.generation(call.model, caller.principal.tenant, prompt, arrived)
        return Watched(self, call, caller, prompt, observed)


class Watched:
    """One generation. Told of each of its deltas, of its completion before the last of them is passed on, and
    of its end whatever it is."""

    def __init__(
        self,
        observer: Observer,
        call: TracedCall,
        caller: Caller,
        prompt: int,
        observed: ObservedGeneration,
    ) -> None:
        self._observer = observer
        self._call = call
        self._caller = caller
        self._prompt = prompt
        self._observed = observed
        self._recorded = False
        self.cached = 0
        self.generated = 0

    def delta(self, delta: TextDelta) -> None:
        self.generated, self.cached = delta.generated, delta.cached
        self._observed.tokens(delta.generated, delta.queued)

    async def completed(self, reason: str) -> None:
        """Returns when its usage is there to stay."""
        if (ledger := self._observer.ledger) is not None:
            self._recorded = True
            await ledger.record(self._row(reason))

    def ended(self, reason: str) -> None:
        if (tally := self._caller.tally) is not None:
            tally.prompt += self._prompt
            tally.generated += self.generated
        self._observed.ended(reason, self.cached, self.generated)
        if (ledger := self._observer.ledger) is not None and not self._recorded:
            ledger.note(self._row(reason))
        if (tracing := self._observer.tracing) is not None:
            timer = self._observed.timer
            tracing.record(self._call, timer, reason, self._prompt, self.cached, self.generated)

    def _row(self, reason: str) -> UsageRow:
        timer = self._observed.timer
        first = timer.first_token
        return UsageRow(
            request_id=self._caller.request_id,
            at=datetime.now(UTC),
            tenant=self._caller.principal.tenant,
            model=self._call.model,
            input_tokens=self._prompt,
            cached_tokens=self.cached,
            output_tokens=self.generated,
            latency_ms=1000 * (perf_counter() - timer.arrived),
            first_token_ms=None if first is None else 1000 * first,
            outcome=reason,
        )
