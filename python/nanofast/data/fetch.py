"""One file over HTTP, whole and verified or not at all.

    ┌─ attempt: GET, from where the partial file ends ─┐   length, SHA-256, footer fit    rename
    └─ wait (Retry-After, else back-off with jitter)  ◀┘ ───────────────────────────────▶ final name

A server may answer late, with an error, with too little, with something else, slowly, or never: each is an attempt
that failed, and the next one goes on from the bytes that are there. What no repetition would change (404, a redirect
to plain http, a full disk) is an error at once.
"""

from __future__ import annotations

import email.utils
import errno
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx2
import tenacity

from nanofast.data.deadline import within
from nanofast.data.footer import check_footer
from nanofast.data.partial import Partial, StoppedError

_RETRIED_STATUS = {408, 425, 429, 500, 502, 503, 504, 520, 522, 524}
# Extension of a request that began with https, kept through its redirects.
HTTPS_ONLY = "nanofast_https"
# Errors of the disk, which every other file would meet too.
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO}


@dataclass(frozen=True)
class Source:
    """A file to fetch. Size and SHA-256 where the publisher states them."""

    name: str
    url: str
    size_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Patience:
    """How long to try. The defaults suit a hub that asks for patience in minutes and lines that stall for seconds."""

    read_seconds: float = 30.0
    """Longest silence of a server."""
    window_seconds: float = 60.0
    """A window in which fewer than `window_bytes` came counts as a stall (a drip that no silence ends)."""
    window_bytes: int = 1 << 20
    total_seconds: float = 2 * 3600.0
    """Longest time for one file, or for a listing, waiting included."""
    attempts: int = 8
    """Attempts in a row that brought not one byte; those that a server asked to repeat later do not count."""
    wrong_attempts: int = 3
    """Times that a whole file may come and be the wrong one."""
    first_wait_seconds: float = 1.0
    max_wait_seconds: float = 300.0
    """Longest wait of our own choice; a server may ask for more, up to `total_seconds`."""


# Hears how many bytes of a file are there, and of how many in all, where that is known.
OnSize = Callable[[int, "int | None"], None]


@dataclass(frozen=True)
class Fetched:
    """What was fetched and verified."""

    size_bytes: int
    sha256: str


# Inode and time of change.
Identity = tuple[int, int]


class FetchError(OSError):
    """The file cannot be had; trying again would not change it."""


class DiskError(FetchError):
    """The disk does not take it, and would take no other file either."""


def refused(path: Path, error: OSError) -> FetchError:
    """What the system said to writing `path`, in one line."""
    kind = DiskError if error.errno in _DISK_ERRORS else FetchError
    return kind(f"cannot write `{path}`: {error.strerror or error}; make room or name another folder with --to")


class _TroubleError(Exception):
    """An attempt that failed and may be repeated."""

    def __init__(self, message: str, retry_after: float | None = None, *, is_wrong: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.is_wrong = is_wrong


def new_client(patience: Patience, transport: httpx2.BaseTransport | None = None) -> httpx2.Client:
    """A client that follows redirects but never from https to http, and minds the environment's proxies."""
    return httpx2.Client(
        follow_redirects=True,
        max_redirects=10,
        timeout=httpx2.Timeout(patience.read_seconds),
        event_hooks={"request": [refuse_downgrade]},
        headers={"User-Agent": "nanofast", "Accept-Encoding": "identity"},
        transport=transport,
    )


class Fetcher:
    """Fetches files into a folder; may be used by several threads."""

    def __init__(self, client: httpx2.Client, patience: Patience, stop: threading.Event) -> None:
        self._client = client
        self._patience = patience
        self._stop = stop

    def fetch(
        self,
        source: Source,
        final: Path,
        *,
        seen: Identity | None = None,
        headers: dict[str, str] | None = None,
        on_size: OnSize = lambda _size, _total: None,
    ) -> Fetched | None:
        """Fetch `source` to `final`; None where another process did so meanwhile. `on_size` hears how far it is.

        Args:
            seen: what lay at `final` when it was found wanting (`identity`).

        Raises:
            FetchError: it cannot be had, in one line.
            StoppedError: the stop event was set.
        """

        def fetch() -> Fetched | None:
            with Partial(final, self._stop) as partial:
                if identity(final) != seen:
                    partial.discard()
                    return None
                self._repeat(source, partial, headers or {}, on_size)
                fetched = Fetched(partial.size, partial.sha256)
                partial.publish()
                return fetched

        # An attempt minds the time itself at every byte of a body; what is silent or drips before that is cut here.
        latest = self._patience.total_seconds + self._patience.read_seconds
        try:
            return within(latest, fetch)
        except (StoppedError, FetchError):
            raise
        except TimeoutError as error:
            raise FetchError(f"`{source.name}` from {source.url}: gave up: {error}") from error
        except OSError as error:
            raise refused(final, error) from error

    def _repeat(self, source: Source, partial: Partial, headers: dict[str, str], on_size: OnSize) -> None:
        """Attempts until the partial file is whole and verified."""
        patience = self._patience
        deadline = time.monotonic() + patience.total_seconds
        fruitless, wrong, last_size = 0, 0, partial.size

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = getattr(error, "retry_after", None)
            jittered = tenacity.wait_random_exponential(patience.first_wait_seconds, patience.max_wait_seconds)(state)
            return jittered + (asked or 0.0)

        def stop(state: tenacity.RetryCallState) -> bool:
            nonlocal fruitless, wrong, last_size
            error = state.outcome.exception() if state.outcome else None
            wrong += isinstance(error, _TroubleError) and error.is_wrong
            if partial.size > last_size:
                fruitless = 0
            elif not getattr(error, "retry_after", None):
                fruitless += 1
            last_size = partial.size
            if wrong >= patience.wrong_attempts or fruitless >= patience.attempts:
                return True
            return time.monotonic() + state.upcoming_sleep > deadline

        def sleep(seconds: float) -> None:
            if self._stop.wait(seconds):
                raise StoppedError

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TroubleError), wait=wait, stop=stop, sleep=sleep, reraise=True
        )
        try:
            retrying(self._attempt, source, partial, headers, on_size, deadline)
        except _TroubleError as error:
            raise FetchError(f"`{source.name}` from {source.url}: gave up after {_times(retrying)}: {error}") from error

    def _attempt(
        self, source: Source, partial: Partial, headers: dict[str, str], on_size: OnSize, deadline: float
    ) -> None:
        if self._stop.is_set():
            raise StoppedError
        headers = dict(headers)
        if partial.size and (partial.tag or source.sha256):
            headers["Range"] = f"bytes={partial.size}-"
            if partial.tag:
                headers["If-Range"] = partial.tag
        extensions = {HTTPS_ONLY: source.url.lower().startswith("https:")}
        try:
            with self._client.stream("GET", source.url, headers=headers, extensions=extensions) as response:
                total = self._begin(source, partial, response)
                on_size(partial.size, total)
                self._receive(partial, response, on_size, deadline, total)
        except httpx2.TooManyRedirects as error:
            raise FetchError(f"`{source.name}`: {source.url} redirects in a circle") from error
        except (httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
            raise FetchError(f"`{source.name}`: {source.url} is no address that can be fetched: {error}") from error
        except (httpx2.TransportError, httpx2.StreamError) as error:
            raise _TroubleError(f"{type(error).__name__}: {error}") from error
        if total is not None and partial.size < total:
            raise _TroubleError(f"the body ended after {partial.size} of {total} bytes")
        self._verify(source, partial)

    def _begin(self, source: Source, partial: Partial, response: httpx2.Response) -> int | None:
        """Check the head of an answer; returns the whole file's length where it is known."""
        status = response.status_code
        if status == 416:
            partial.begin(None)
            raise _TroubleError("the file is shorter than what came of it before")
        if status in _RETRIED_STATUS:
            asked = _retry_after(response)
            wait = f" and asks to wait {asked:.0f} s" if asked else ""
            raise _TroubleError(f"the server answers {status} {response.reason_phrase}{wait}", asked)
        if status in (401, 403):
            raise FetchError(
                f"`{source.name}`: {status} {response.reason_phrase} for {source.url}; does it need HF_TOKEN?"
            )
        if status not in (200, 206):
            raise FetchError(f"`{source.name}`: {status} {response.reason_phrase} for {source.url}")
        tag = response.headers.get("ETag")
        # What makes a part belong to a whole: a strong tag, else the date.
        tag = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
        if status == 206:
            begin, total = _content_range(response)
            if begin != partial.size or (tag and partial.tag and tag != partial.tag):
                partial.begin(None)
                raise _TroubleError("the server sent another range, or a range of another file, than asked for")
        else:
            partial.begin(tag)
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
        if source.size_bytes is not None and total not in (None, source.size_bytes):
            partial.begin(None)
            raise _TroubleError(f"the server offers {total} bytes; the publisher states {source.size_bytes}")
        return total if total is not None else source.size_bytes

    def _receive(
        self,
        partial: Partial,
        response: httpx2.Response,
        on_size: OnSize,
        deadline: float,
        total: int | None,
    ) -> None:
        window_begin, window_size = time.monotonic(), partial.size
        for chunk in response.iter_raw():  # as it comes: a chunk size would hide a drip until it is full
            if self._stop.is_set():
                raise StoppedError
            partial.append(chunk)
            on_size(partial.size, total)
            if total is not None and partial.size > total:
                partial.begin(None)
                raise _TroubleError(f"more than the {total} bytes that were announced")
            now = time.monotonic()
            if now > deadline:
                raise _TroubleError("out of time")
            if now - window_begin > self._patience.window_seconds:
                if partial.size - window_size < self._patience.window_bytes:
                    raise _TroubleError(f"only {partial.size - window_size} bytes in {now - window_begin:.0f} s")
                window_begin, window_size = now, partial.size

    def _verify(self, source: Source, partial: Partial) -> None:
        """Whether what came is what was published; if not, it is thrown away."""
        try:
            if source.size_bytes is not None and partial.size != source.size_bytes:
                raise ValueError(f"{partial.size} bytes; the publisher states {source.size_bytes}")
            if source.sha256 is not None and partial.sha256 != source.sha256:
                raise ValueError(f"SHA-256 {partial.sha256[:12]}…; the publisher states {source.sha256[:12]}…")
            check_footer(partial.written())
        except ValueError as error:
            partial.begin(None)
            raise _TroubleError(f"what came is wrong: {error}", is_wrong=True) from error


def refuse_downgrade(request: httpx2.Request) -> None:
    """A request, also one that follows a redirect, that would leave https against its mark `HTTPS_ONLY`.

    Raises:
        FetchError: it would.
    """
    if request.extensions.get(HTTPS_ONLY) and request.url.scheme != "https":
        raise FetchError(f"redirect from https to {request.url.scheme} refused: {request.url}")


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds that the server asks for, as a number or as a date."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _content_range(response: httpx2.Response) -> tuple[int | None, int | None]:
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if not found:
        return None, None
    return int(found[1]), None if found[2] == "*" else int(found[2])


def identity(path: Path) -> Identity | None:
    """Tells a file from one that took its place; None where there is none."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _times(retrying: tenacity.Retrying) -> str:
    number = retrying.statistics.get("attempt_number", 1)
    return f"{number} attempt{'s' if number != 1 else ''}"
