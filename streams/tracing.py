"""
Traces of single transactions, from their production to their explanation, by OpenTelemetry.

The header ``traceparent`` of a Kafka record (W3C Trace Context) names the span that wrote it. Most transactions have none: a share,
``trace_share``, is chosen when a transaction enters. Stages work on batches, so the spans of a batch begin and end together.
"""

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from core.errors import SettingsError
from core.metrics import VERSION
from core.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Tracer

HEADER: Final = "traceparent"
Headers = list[tuple[str, bytes]]


class Tracing:
    """Records spans; without a tracer it records nothing."""

    def __init__(self, tracer: "Tracer | None" = None, share: float = 0.0) -> None:
        """``share`` is the share of transactions without a trace that begin one."""
        self._tracer, self._share = tracer, share

    @property
    def enabled(self) -> bool:
        """Whether spans are recorded."""
        return self._tracer is not None

    def chosen(self) -> bool:
        """Return whether a transaction without a trace begins one."""
        return self.enabled and random.random() < self._share  # noqa: S311 -- no secret

    def span(self, name: str, parent: str, began: float, attributes: Mapping[str, str]) -> str:
        """
        Record a span from ``began`` (epoch seconds) until now. Return its traceparent.

        ``parent`` is the traceparent of the span before it; empty: the span begins a trace.
        """
        if self._tracer is None:
            return parent
        from opentelemetry.trace import set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        contexts = TraceContextTextMapPropagator()
        before = contexts.extract({HEADER: parent}) if parent else None
        span = self._tracer.start_span(name, before, attributes=dict(attributes), start_time=int(began * 1e9))
        span.end()
        carrier: dict[str, str] = {}
        contexts.inject(carrier, set_span_in_context(span))
        return carrier[HEADER]


NO_TRACING: Final = Tracing()


def parent_of(record: Any) -> str:
    """Return the traceparent of a Kafka record; empty if it has none."""
    return next((value.decode("ascii", "replace") for name, value in record.headers if name == HEADER and value), "")


def headers_of(trace: str) -> Headers:
    """Return the headers of a record that a span wrote."""
    return [(HEADER, trace.encode())] if trace else []


def tracing_of(settings: Settings, program: str) -> Tracing:
    """
    Return the tracing that the settings ask for. Spans go to ``trace_url`` by OTLP over HTTP; the last ones when the process ends.

    Raises:
        SettingsError: if the extra is not installed.
    """
    if not settings.trace_url:
        return NO_TRACING
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise SettingsError("WHYFLAG_TRACE_URL needs the tracing extra: run `pip install 'whyflag[tracing]'`") from None
    return traced(BatchSpanProcessor(OTLPSpanExporter(settings.trace_url)), program, settings.trace_share)


def traced(processor: "SpanProcessor", program: str, share: float) -> Tracing:
    """Return a tracing whose spans go to ``processor``."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider(resource=Resource.create({"service.name": f"whyflag-{program}", "service.version": VERSION}))
    provider.add_span_processor(processor)
    return Tracing(provider.get_tracer("whyflag", VERSION), share)
