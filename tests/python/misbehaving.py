"""A server on loopback that misbehaves on purpose, in every way that a download meets, decided by a seed.

Each path is served a fault for `share` of its requests, but never more than four times in a row, so that patience pays.
"""

from __future__ import annotations

import email.utils
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = (
    "429",
    "429 with a date",
    "500",
    "503",
    "reset",
    "reset in the body",
    "short body",
    "half with a length to match",
    "too long",
    "zeros at the end",
    "stall before the head",
    "stall in the body",
    "drip",
    "no range",
    "another range",
)
MOST_IN_A_ROW = 4


class Server(ThreadingHTTPServer):
    """Serves `files` by path. `always` maps a path to the one fault that it is always served."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, files: dict[str, bytes], *, share: float = 0.0, seed: int = 0, stall_seconds: float = 1.0
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.share, self.stall_seconds = files, share, stall_seconds
        self.faults: tuple[str, ...] = FAULTS
        self.always: dict[str, str] = {}
        self.answers: dict[str, Callable[[Handler], None]] = {}
        self.served: list[tuple[str, str, int]] = []  # (path, fault or "ok", bytes of the body)
        self.seen_headers: dict[str, dict[str, str]] = {}
        self.bytes_per_second: float | None = None
        self.ended = threading.Event()
        self._random, self._lock, self._in_a_row = random.Random(seed), threading.Lock(), dict.fromkeys(files, 0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def next_fault(self, path: str) -> str | None:
        if path in self.always:
            return self.always[path]
        with self._lock:
            in_a_row = self._in_a_row.get(path, 0)
            if self._random.random() >= self.share or in_a_row >= MOST_IN_A_ROW:
                self._in_a_row[path] = 0
                return None
            self._in_a_row[path] = in_a_row + 1
            return self._random.choice(self.faults)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.seen_headers[path] = dict(self.headers)
        if path in self.server.answers:
            return self.server.answers[path](self)
        content = self.server.files.get(path)
        if content is None:
            return self.answer(404)
        fault = self.server.next_fault(path)
        self.server.served.append((path, fault or "ok", len(content)))
        if fault is None:
            return self.serve(content)
        return self.misbehave(fault, content)

    def answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer_json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin(self) -> int:
        asked = self.headers.get("Range", "bytes=0-")
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def head(self, content: bytes, begin: int, length: int | None = None) -> None:
        """A head that is right but for `length`."""
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{hash(content) & 0xFFFFFFFF:x}"')
        self.send_header("Content-Length", str(len(content) - begin if length is None else length))
        self.end_headers()

    def serve(self, content: bytes) -> None:
        begin = self.begin()
        if begin >= len(content):
            return self.answer(416)
        self.head(content, begin)
        return self.body(content[begin:])

    def body(self, body: bytes) -> None:
        rate = self.server.bytes_per_second
        if rate is None:
            self.wfile.write(body)
            return
        for at in range(0, len(body), 4096):
            self.wfile.write(body[at : at + 4096])
            if self.server.ended.wait(4096 / rate):
                return

    def hang_up(self, *, reset: bool) -> None:
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.wfile.flush()
        self.connection.close() if reset else self.connection.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        self.server.ended.wait(self.server.stall_seconds)
        self.close_connection = True

    def misbehave(self, fault: str, content: bytes) -> None:
        begin = min(self.begin(), len(content) - 1)
        middle = (begin + len(content)) // 2
        if fault == "429":
            self.answer(429, Retry_After="0")
        elif fault == "429 with a date":
            self.answer(429, Retry_After=email.utils.formatdate(time.time(), usegmt=True))
        elif fault in ("500", "503"):
            self.answer(int(fault))
        elif fault == "reset":
            self.hang_up(reset=True)
        elif fault in ("reset in the body", "short body"):
            self.head(content, begin)
            self.wfile.write(content[begin:middle])
            self.hang_up(reset=fault.startswith("reset"))
        elif fault == "half with a length to match":
            self.send_response(200)
            half = content[: len(content) // 2]
            self.send_header("Content-Length", str(len(half)))
            self.end_headers()
            self.wfile.write(half)
        elif fault == "too long":
            self.send_response(200)
            self.send_header("Content-Length", str(len(content) + 10))
            self.end_headers()
            self.wfile.write(content + bytes(10))
        elif fault == "zeros at the end":
            self.head(content, begin)
            self.wfile.write(content[begin:middle] + bytes(len(content) - middle))
        elif fault == "stall before the head":
            self.stall()
        elif fault == "stall in the body":
            self.head(content, begin)
            self.wfile.write(content[begin:middle])
            self.stall()
        elif fault == "drip":
            self.head(content, begin)
            for at in range(begin, len(content)):
                self.wfile.write(content[at : at + 1])
                if self.server.ended.wait(0.02):
                    return
        elif fault == "no range":
            self.head(content, 0)
            self.wfile.write(content)
        elif fault == "another range":
            self.send_response(206)
            self.send_header("Content-Range", f"bytes 1-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - 1))
            self.end_headers()
            self.wfile.write(content[1:])
        else:
            raise AssertionError(fault)
