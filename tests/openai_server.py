"""HTTP server for the OpenAI chat protocol that gives scripted answers, valid or faulty."""

import contextlib
import gzip
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = (
    "slow",
    "429",
    "500",
    "cut",
    "malformed",
    "no choices",
    "wrong schema",
    "wrong language",
    "empty",
    "endless",
    "compressed",
)


class OpenAIServer:
    """
    ``script`` is a list of answers, or a function of the request's body. An answer is a text, a list of tool calls
    ``[(name, arguments)]``, or one of ``FAULTS``; the last answer repeats forever.
    """

    def __init__(self, script=("",), retry_after="0"):
        self.script, self.retry_after = script, retry_after
        self.requests, self.headers, self.times = [], [], []
        self._stopping = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with outer._lock:
                    number = len(outer.requests)
                    outer.requests.append((self.path, body))
                    outer.headers.append(dict(self.headers))
                    outer.times.append(time.monotonic())
                answer = outer.script(body) if callable(outer.script) else outer.script[min(number, len(outer.script) - 1)]
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    outer._answer(self, body, answer)

            def log_message(self, *_):
                pass

        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _answer(self, handler, body, answer):
        if answer == "slow":
            self._stopping.wait(30)
            return
        if answer == "500 format":
            self._send(handler, json.dumps({"error": {"message": "loc: ('body', 'response_format', 'type')"}}), 500)
            return
        if answer in ("422", "429", "500"):
            headers = {"retry-after": self.retry_after} if answer == "429" else {}
            self._send(handler, json.dumps({"error": {"message": "no"}}), int(answer), headers)
            return
        if answer == "cut":
            self._head(handler, 200, {"content-length": "5000"})
            handler.wfile.write(b'{"id": "1", "obj')
            handler.close_connection = True
            return
        if answer == "endless":
            self._head(handler, 200, {})
            handler.wfile.write(b'{"id": "')
            while not self._stopping.is_set():
                handler.wfile.write(b"x" * 65536)
            return
        if answer == "compressed":
            self._head(handler, 200, {"content-encoding": "gzip"})
            handler.wfile.write(gzip.compress(b'{"id": "' + b"x" * 30_000_000))
            return
        if answer == "malformed":
            self._send(handler, '{"id": "1", "choices": [{"message": ')
            return
        if answer == "no choices":
            self._send(handler, json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": []}))
            return
        message = {"role": "assistant", "content": answer}
        if answer == "wrong schema":
            message["content"] = '{"narrative": "The card was used.", "score": 1}'
        elif answer == "wrong language":
            sentence = {"part": "what_happened", "facts": ["Die Karte wurde online benutzt."]}
            message["content"] = json.dumps({"sentences": [sentence]})
        elif answer == "empty":
            message["content"] = ""
        elif isinstance(answer, list):
            calls = [
                {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments)}}
                for i, (name, arguments) in enumerate(answer)
            ]  # fmt: skip
            message = {"role": "assistant", "content": None, "tool_calls": calls}
        reply = {
            "id": "1", "object": "chat.completion", "created": 1, "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if isinstance(answer, list) else "stop"}],
            "usage": {"prompt_tokens": 700, "completion_tokens": 90, "total_tokens": 790},
        }  # fmt: skip
        self._send(handler, json.dumps(reply))

    def _send(self, handler, text, status=200, headers=None):
        raw = text.encode()
        self._head(handler, status, {"content-length": str(len(raw))} | (headers or {}))
        handler.wfile.write(raw)

    def _head(self, handler, status, headers):
        handler.send_response(status)
        for name, value in ({"content-type": "application/json"} | headers).items():
            handler.send_header(name, value)
        handler.end_headers()
