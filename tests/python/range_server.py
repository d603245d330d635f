"""A web server with ranges, as a process of its own, that can be told to misbehave.

    python range_server.py FOLDER '{"share": 0.3, "latency_seconds": 0.02}'     prints its port, ends with its input

Serves the files of FOLDER with ETags, `If-Match`, index pages, and what the hub answers about data sets (a folder
`OWNER/NAME` is one, its revision `main` the commit `c0ffee`) and Azure about containers (a folder is one; pages of two
blobs). `GET /-/seen` gives and forgets what was asked for, as
`[method, path, range, answer, whether it was authorized]`; `GET /-/set?{…}` changes the settings.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

FAULTS = ("500", "503", "429", "reset", "reset in the body", "short body", "stall before the head", "stall in the body")
MOST_IN_A_ROW = 3
COMMIT = "c0ffee"


@dataclass
class Settings:
    """How the server behaves."""

    share: float = 0.0  # of requests that are served a fault, never more than three in a row for a path
    faults: tuple[str, ...] = FAULTS
    seed: int = 0
    stall_seconds: float = 5.0
    latency_seconds: float = 0.0
    etags: bool = True
    honours_if_match: bool = True
    user: str | None = None  # NAME:PASSWORD that is asked for
    token: str | None = None  # a bearer token that is asked for
    signature: str | None = None  # a query that is asked for
    ranges: bool = True
    sent_to: str | None = None  # files are served from there: the address of another server
    always: str | None = None  # the fault that every request gets
    only: str = ""  # faults hit only paths that hold this
    certificate: str | None = None  # a file with a certificate and its key: answers are encrypted


@dataclass
class State:
    folder: Path
    settings: Settings
    random: random.Random = field(init=False)
    lock: threading.Lock = field(default_factory=threading.Lock)
    in_a_row: dict[str, int] = field(default_factory=dict)
    seen: list[tuple[str, str, str, str, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.settings.seed)

    def fault(self, path: str) -> str | None:
        settings = self.settings
        if settings.only not in path:
            return None
        if settings.always is not None:
            return settings.always
        with self.lock:
            in_a_row = self.in_a_row.get(path, 0)
            if self.random.random() >= settings.share or in_a_row >= MOST_IN_A_ROW:
                self.in_a_row[path] = 0
                return None
            self.in_a_row[path] = in_a_row + 1
            return self.random.choice(settings.faults)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    state: State

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""

    def encrypt(self, certificate: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        # the handshake comes with the first byte that is read, on the connection's own thread
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_GET(self) -> None:
        state, path = self.server.state, unquote(urlsplit(self.path).path)
        if path.startswith("/-/"):
            return self.control(path)
        if state.settings.latency_seconds:
            time.sleep(state.settings.latency_seconds)
        answered = self.serve(path)
        with state.lock:
            asked = self.headers.get("Range", "")
            state.seen.append((self.command, path, asked, answered, "Authorization" in self.headers))
        self.wfile.flush()
        return None

    do_HEAD = do_GET

    def control(self, path: str) -> None:
        state = self.server.state
        with state.lock:
            if path == "/-/set":
                for name, value in json.loads(unquote(urlsplit(self.path).query)).items():
                    setattr(state.settings, name, value)
                state.random = random.Random(state.settings.seed)
            self.answer(200, json.dumps(state.seen).encode())
            state.seen = []

    def answer(self, status: int, body: bytes = b"", **headers: str) -> str:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return str(status)

    def serve(self, path: str) -> str:
        state = self.server.state
        settings, url = state.settings, urlsplit(self.path)
        given = self.headers.get("Authorization", "")
        if settings.user is not None and given != "Basic " + base64.b64encode(settings.user.encode()).decode():
            return self.answer(401, b"wrong user in " + self.path.encode())
        if settings.token is not None and given != f"Bearer {settings.token}":
            return self.answer(401, b"wrong token " + given.encode())
        if settings.signature is not None and url.query != settings.signature:
            return self.answer(403, b"signature does not match " + url.query.encode())
        if path.startswith("/api/datasets/"):
            return self.hub(path.removeprefix("/api/datasets/"))
        if path.startswith("/datasets/"):
            owner, name, _, _, *rest = path.removeprefix("/datasets/").split("/")
            path = f"/{owner}/{name}/{'/'.join(rest)}"
            if settings.sent_to is not None:
                return self.answer(302, Location=settings.sent_to + quote(path) + "?signed=x")
        if "comp=list" in url.query:
            return self.container(state.folder / path.lstrip("/"), dict(parse_qsl(url.query)))
        file = state.folder / path.lstrip("/")
        if file.is_dir() and path.endswith("/"):
            links = "".join(f'<a href="{quote(entry.name)}">{entry.name}</a>' for entry in sorted(file.iterdir()))
            return self.answer(200, f'<a href="../">up</a>{links}'.encode(), Content_Type="text/html")
        if not file.is_file():
            return self.answer(404)
        fault = state.fault(path)
        return self.file(file) if fault is None else self.misbehave(fault, file)

    def hub(self, path: str) -> str:
        owner, name, what, _, *rest = path.split("/")
        if not (self.server.state.folder / owner / name).is_dir():
            return self.answer(404)
        if what == "revision":
            return self.answer(200, json.dumps({"sha": COMMIT}).encode())
        folder = self.server.state.folder / owner / name / "/".join(rest)
        if not folder.is_dir():
            return self.answer(404)
        root = self.server.state.folder / owner / name
        entries = [
            {
                "type": "directory" if entry.is_dir() else "file",
                "path": entry.relative_to(root).as_posix(),
                "size": entry.stat().st_size,
                "oid": tag(entry),
            }
            for entry in sorted(folder.iterdir())
        ]
        # two pages, so that they are followed
        half = len(entries) // 2
        if urlsplit(self.path).query.endswith("&page=2") or half == 0:
            return self.answer(200, json.dumps(entries[half:]).encode())
        host, port = self.server.server_address[:2]
        link = f'<http://{host!s}:{port}{self.path}&page=2>; rel="next"'
        return self.answer(200, json.dumps(entries[:half]).encode(), Link=link)

    def container(self, root: Path, asked: dict[str, str]) -> str:
        prefix, marker = asked.get("prefix", ""), int(asked.get("marker", "0"))
        if not root.is_dir():
            return self.answer(404)
        found: dict[str, Path | None] = {}
        for file in sorted(path for path in root.rglob("*") if path.is_file()):
            name = file.relative_to(root).as_posix()
            below = name.removeprefix(prefix).partition("/")[0] + "/"
            if name.startswith(prefix):
                is_below = "delimiter" in asked and "/" in name.removeprefix(prefix)
                found[prefix + below if is_below else name] = None if is_below else file
        entries = [
            f"<BlobPrefix><Name>{name}</Name></BlobPrefix>"
            if file is None
            else f"<Blob><Name>{name}</Name><Properties><Last-Modified>{written(file)}</Last-Modified>"
            f"<Content-Length>{file.stat().st_size}</Content-Length><Content-Type>x/y</Content-Type>"
            f'<Etag>"{tag(file)}"</Etag></Properties></Blob>'
            for name, file in found.items()
        ]
        next_marker = str(marker + 2) if marker + 2 < len(entries) else ""
        body = f"<Blobs>{''.join(entries[marker : marker + 2])}</Blobs><NextMarker>{next_marker}</NextMarker>"
        return self.answer(200, f"<EnumerationResults>{body}</EnumerationResults>".encode())

    def part(self, size: int) -> tuple[int, int] | None:
        asked = self.headers.get("Range")
        if asked is None or not self.server.state.settings.ranges:
            return None
        first, _, last = asked.removeprefix("bytes=").partition("-")
        return int(first), min(int(last or size - 1), size - 1) + 1

    def file(self, file: Path, announced: bool = True) -> str:
        settings, size = self.server.state.settings, file.stat().st_size
        expected = self.headers.get("If-Match")
        if settings.honours_if_match and expected is not None and expected != f'"{tag(file)}"':
            return self.answer(412)
        part = self.part(size)
        begin, end = part or (0, size)
        if part and begin >= size:
            return self.answer(416)
        self.send_response(206 if part else 200)
        if part:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
        if settings.etags:
            self.send_header("ETag", f'"{tag(file)}"')
        if "x-ms-version" in self.headers:
            self.send_header("Last-Modified", written(file))
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        if not announced or self.command == "HEAD":
            return "206"
        with file.open("rb") as content:
            content.seek(begin)
            self.wfile.write(content.read(end - begin))
        return "206" if part else "200"

    def misbehave(self, fault: str, file: Path) -> str:
        settings = self.server.state.settings
        if fault.isdigit():
            body = f"<Error><Code>SlowDown</Code>{self.path}{self.headers.get('Authorization', '')}</Error>"
            return self.answer(int(fault), body.encode(), Retry_After="0")
        if fault == "reset":
            self.hang_up(reset=True)
        elif fault == "stall before the head":
            time.sleep(settings.stall_seconds)
            self.close_connection = True
        else:
            size = file.stat().st_size
            begin, end = self.part(size) or (0, size)
            self.file(file, announced=False)
            with file.open("rb") as content:
                content.seek(begin)
                self.wfile.write(content.read((end - begin) // 2))
            self.wfile.flush()
            if fault == "stall in the body":
                time.sleep(settings.stall_seconds)
                self.close_connection = True
            else:
                self.hang_up(reset=fault.startswith("reset"))
        return fault

    def hang_up(self, *, reset: bool) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)


def tag(file: Path) -> str:
    """Something that changes with a file."""
    stat = file.stat()
    return hashlib.md5(f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino}".encode()).hexdigest()


def written(file: Path) -> str:
    return formatdate(file.stat().st_mtime, usegmt=True)


class RangeServer:
    """The server as a process, from here."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        command = [sys.executable, str(Path(__file__)), str(folder), json.dumps(settings)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = f"127.0.0.1:{int(self.process.stdout.readline())}"
        self.url = f"{'https' if settings.get('certificate') else 'http'}://{self.address}"

    def set(self, **settings: Any) -> None:
        self.seen_after("set?" + quote(json.dumps(settings)))

    def seen(self) -> list[list[Any]]:
        """Requests since the last call: method, path, range, answer, whether it was authorized."""
        return self.seen_after("seen")

    def seen_after(self, what: str) -> list[list[Any]]:
        with urllib.request.urlopen(f"{self.url}/-/{what}") as answer:
            seen: list[list[Any]] = json.load(answer)
        return seen

    def __enter__(self) -> RangeServer:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=10)


def main() -> None:
    server = Server(("127.0.0.1", 0), Handler)
    server.state = State(Path(sys.argv[1]), Settings(**json.loads(sys.argv[2])))
    if server.state.settings.certificate is not None:
        server.encrypt(server.state.settings.certificate)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
