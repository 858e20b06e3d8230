"""A collector of traces: receives the spans of workers by OTLP over HTTP on loopback, and those of this process directly."""

import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Span(NamedTuple):
    service: str
    name: str
    trace: str
    span: str
    parent: str
    attributes: dict[str, str]


class Collector:
    """``with Collector() as collector``: ``settings`` makes a worker send its spans here."""

    def __init__(self) -> None:
        self.own = InMemorySpanExporter()
        self._received: list[Span] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer._take(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.settings = {
            "WHYFLAG_TRACE_URL": f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces",
            "WHYFLAG_TRACE_SHARE": "0",
        }

    def __enter__(self) -> "Collector":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _texts(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                for one in scope.spans:
                    ids = one.trace_id.hex(), one.span_id.hex(), one.parent_span_id.hex()
                    self._received.append(Span(service, one.name, *ids, _texts(one.attributes)))

    def spans(self) -> list[Span]:
        own = [
            Span(
                str(one.resource.attributes["service.name"]), one.name, f"{one.context.trace_id:032x}", f"{one.context.span_id:016x}",
                f"{one.parent.span_id:016x}" if one.parent else "", {name: str(value) for name, value in one.attributes.items()},
            )
            for one in self.own.get_finished_spans()
        ]  # fmt: skip
        return own + self._received

    def roots(self) -> list[Span]:
        return [span for span in self.spans() if not span.parent]

    def chain(self, traceparent: str) -> list[Span]:
        """Return the spans of a trace, each the child of the one before it."""
        _, trace, span, _ = traceparent.split("-")
        children = defaultdict(list)
        for one in self.spans():
            if one.trace == trace:
                children[one.parent].append(one)
        chain = children[""]
        assert [one.span for one in chain] == [span]
        while following := children[chain[-1].span]:
            (child,) = following
            chain.append(child)
        return chain


def _texts(attributes) -> dict[str, str]:
    return {one.key: one.value.string_value for one in attributes}
