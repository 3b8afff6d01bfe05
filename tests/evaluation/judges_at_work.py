"""Judges that are models, for tests: a server on loopback, and a tiny model in a folder."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Server(ThreadingHTTPServer):
    """Says yes to answers with "sorry", no to others; remembers requests; fails when told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.failures: list[int] = []
        self.body: bytes | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.keys.append(self.headers.get("Authorization"))
        if self.server.failures:
            self.send_error(self.server.failures.pop())
            return
        self.server.seen.append(body | {"path": self.path})
        said = "Yes." if "sorry" in json.dumps(body["messages"][-1]).split("Answer:")[-1] else "no"
        reply = {"choices": [{"message": {"role": "assistant", "content": said}}]}
        data = json.dumps(reply).encode() if self.server.body is None else self.server.body
        self.send_response(200)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def write_judge(folder: Path) -> None:
    """A chat model of random weights that transformers loads."""
    from examples.first_run.prepare import train_tokenizer
    from tests.hf_models import tiny_llm

    tokenizer = train_tokenizer(["Did the assistant refuse? yes no safe unsafe"] * 3)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
    )
    tiny_llm(folder, "llama", vocab=len(tokenizer), max_position_embeddings=2048)
    tokenizer.save_pretrained(folder)
