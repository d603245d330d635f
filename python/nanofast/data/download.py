"""`python -m nanofast.data download`: a published data set's shards, whole and verified, into one folder.

    python -m nanofast.data download fineweb-edu -n 8                    8 training shards and the validation shard
    python -m nanofast.data download --repo OWNER/NAME --prefix data/ -n -1
    python -m nanofast.data download --url-template 'https://host/shard_{index:05d}.parquet' --num-shards 100 -n 4

What is there and verified is not fetched again; what was interrupted goes on where it ended; several processes may work
on one folder. `_manifest.jsonl` there says what was verified. The exit code is 0 only when every shard is there.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nanofast.command import local_path
from nanofast.data.amounts import positive_number, whole_number
from nanofast.data.aside import sha256_of
from nanofast.data.fetch import DiskError, Fetched, Fetcher, FetchError, Patience, Source, identity, new_client, refused
from nanofast.data.footer import check_footer
from nanofast.data.partial import StoppedError
from nanofast.data.published import PRESETS, chosen, list_repo, list_template
from nanofast.data.transfer import Transfer, new_transfer
from nanofast.home import home_folder

MANIFEST = "_manifest.jsonl"  # the underscore keeps readers of JSON lines from taking it for data


@dataclass
class Summary:
    """What became of each shard."""

    folder: str
    fetched: list[str]
    present: list[str]
    missing: dict[str, str]


class Manifest:
    """What was verified: one JSON line a shard, appended, the last one counts. Processes may append at once."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / MANIFEST

    def read(self) -> dict[str, dict[str, Any]]:
        """Name → {size_bytes, sha256, url}; lines that a killed process left torn are passed over."""
        entries: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            for line in self._path.read_text("utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    entries[entry["name"]] = entry
                except (ValueError, KeyError, TypeError):
                    continue
        return entries

    def append(self, source: Source, fetched: Fetched) -> None:
        """One write of one line, behind a line break of its own in case the last line is torn."""
        line = json.dumps({"name": source.name, **asdict(fetched), "url": source.url})
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        try:
            descriptor = os.open(self._path, flags, 0o666)
            try:
                os.write(descriptor, f"\n{line}\n".encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise refused(self._path, error) from error


def download(
    sources: Sequence[Source],
    folder: Path,
    fetcher: Fetcher,
    *,
    num_workers: int = 4,
    verify: bool = False,
    headers_for: Callable[[str], dict[str, str]] = lambda _: {},
    transfer: Transfer | None = None,
    stop: threading.Event | None = None,
) -> Summary:
    """Fetch what is missing of `sources` into `folder`. An interrupt stops all workers, and is raised again.

    Args:
        verify: hash again what is there.
        headers_for: request headers for a URL (a token for its own host, say).
        transfer: hears of progress.
        stop: set to end early; set by this function when the disk is full, or at an interrupt.
    """
    stop, transfer = stop or threading.Event(), transfer or Transfer()
    summary = Summary(str(folder), [], [], {})
    folder.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(folder)
    known = manifest.read()

    def work(source: Source) -> bool:
        """Whether the shard was fetched; False: it was there."""
        final = folder / source.name
        seen = identity(final)
        if _is_verified(final, source, known.get(source.name), manifest, verify):
            return False
        transfer.begin(source)

        def on_size(size: int, total: int | None) -> None:
            transfer.move(source, size, total)

        try:
            fetched = fetcher.fetch(source, final, seen=seen, headers=headers_for(source.url), on_size=on_size)
            if fetched is not None:
                manifest.append(source, fetched)
        except DiskError:
            stop.set()  # the other shards would meet the same
            raise
        return fetched is not None

    try:
        for source, result in _in_threads(work, sources, num_workers):
            reason = _reason(result)
            if reason is not None:
                summary.missing[source.name] = reason
            else:
                (summary.fetched if result is True else summary.present).append(source.name)
            transfer.end(source, reason, fetched=result is True)
    except BaseException:
        stop.set()
        raise
    return summary


def _in_threads(
    work: Callable[[Source], bool], sources: Sequence[Source], num_workers: int
) -> Iterator[tuple[Source, bool | Exception]]:
    """What `work` gives or raises for each source, as it comes.

    The threads are daemons: at an interrupt the program ends at once instead of waiting for a silent server. What they
    leave is what a kill leaves, and the next start goes on from that.
    """
    waiting: queue.SimpleQueue[Source] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Source, bool | Exception]] = queue.SimpleQueue()
    for source in sources:
        waiting.put(source)

    def loop() -> None:
        while True:
            try:
                source = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((source, work(source)))
            except Exception as error:
                done.put((source, error))

    for index in range(min(num_workers, len(sources))):
        threading.Thread(target=loop, name=f"nanofast-download-{index}", daemon=True).start()
    for _ in sources:
        yield done.get()


def _reason(result: bool | Exception) -> str | None:
    """Why a shard is missing, in one line; None when it is there. What nobody expected is raised."""
    if isinstance(result, bool):
        return None
    if isinstance(result, StoppedError):
        return "stopped before it was whole; the next start goes on"
    if isinstance(result, OSError):
        return str(result)
    raise result


def _is_verified(final: Path, source: Source, entry: dict[str, Any] | None, manifest: Manifest, again: bool) -> bool:
    """Whether the file is there and is what was published; by its manifest entry, or by looking at all of it."""
    if final.is_symlink() or not final.is_file():
        return False
    size = final.stat().st_size
    if source.size_bytes not in (None, size):
        return False
    is_entered = entry is not None and entry.get("size_bytes") == size and source.sha256 in (None, entry.get("sha256"))
    if is_entered and not again:
        return True
    digest = sha256_of(final)
    expected = source.sha256 or (entry or {}).get("sha256")
    if expected not in (None, digest):
        return False
    try:
        check_footer(final)
    except ValueError:
        return False
    if not is_entered:
        manifest.append(source, Fetched(size, digest))
    return True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("preset", nargs="?", choices=sorted(PRESETS), help="a well-known data set, see --list")
    parser.add_argument("--list", action="store_true", help="show the well-known data sets, their licences and sizes")
    parser.add_argument("--repo", metavar="OWNER/NAME", help="a data set on the Hugging Face hub")
    parser.add_argument("--prefix", default="", help="take the shards whose path in the repository begins with this")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of the repository (main)")
    parser.add_argument("--url-template", metavar="URL", help="shards anywhere, with a field such as {index:05d}")
    parser.add_argument(
        "--num-shards", type=whole_number, metavar="TOTAL", help="how many shards the template has in all"
    )
    parser.add_argument(
        "-n",
        type=int,
        default=8,
        metavar="N",
        help="training shards to fetch, -1 for all (8); the last is for validation and always fetched",
    )
    parser.add_argument("-w", type=whole_number, default=4, metavar="N", help="parallel downloads (4)")
    parser.add_argument("--to", type=local_path, metavar="FOLDER", help="where to (NANOFAST_HOME/data/NAME)")
    parser.add_argument("--verify", action="store_true", help="hash again what is there")
    parser.add_argument(
        "--timeout",
        type=positive_number,
        default=Patience.total_seconds,
        metavar="SECONDS",
        help="longest time for one shard (7200)",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(arguments: argparse.Namespace) -> int:
    """The command: 0 when every shard is there, 1 when one is missing, 2 for a mistake in the arguments."""
    if arguments.list:
        if arguments.json:
            print(json.dumps({name: asdict(preset) for name, preset in PRESETS.items()}, indent=2))
            return 0
        for name, preset in PRESETS.items():
            print(f"{name:12} {preset.license:32} {preset.size:28} {preset.about}\n{'':12} {preset.repo}")
        return 0
    patience, stop = Patience(total_seconds=arguments.timeout), threading.Event()
    name, sources, license_text = _sources(arguments, patience)
    wanted = chosen(sources, arguments.n)
    folder = arguments.to or home_folder() / "data" / name
    size = sum(source.size_bytes or 0 for source in wanted)
    transfer = new_transfer(wanted, quiet=arguments.json)
    transfer.say(
        f"{name}: {len(wanted)} of {len(sources)} shards{f', {size / 1e9:.3g} GB' if size else ''} to {folder}"
        + (f"; licence: {license_text}" if license_text else "")
    )
    with new_client(patience) as client, transfer:
        summary = download(
            wanted,
            folder,
            Fetcher(client, patience, stop),
            num_workers=arguments.w,
            verify=arguments.verify,
            headers_for=_token_for,
            transfer=transfer,
            stop=stop,
        )
    if arguments.json:
        print(json.dumps(asdict(summary), indent=2))
    else:
        print(f"{len(summary.fetched)} fetched, {len(summary.present)} were there, {len(summary.missing)} missing")
        for missing, reason in sorted(summary.missing.items()):
            print(f"missing: {missing}: {reason}")
    return 1 if summary.missing else 0


def _sources(arguments: argparse.Namespace, patience: Patience) -> tuple[str, list[Source], str]:
    """(name, listing, licence) of what the arguments name."""
    ways = [arguments.preset, arguments.repo, arguments.url_template]
    if sum(way is not None for way in ways) != 1:
        raise FetchError("name one of a preset (see --list), --repo OWNER/NAME and --url-template URL")
    if arguments.n < -1:
        raise FetchError(f"-n must be -1 (all) or more; found {arguments.n}")
    if arguments.url_template:
        if arguments.num_shards is None:
            raise FetchError("--url-template needs --num-shards TOTAL, the number of shards that exist")
        sources = list_template(arguments.url_template, arguments.num_shards)
        return sources[0].name.rsplit(".", 1)[0].rstrip("0123456789_-") or "shards", sources, ""
    if arguments.preset:
        preset = PRESETS[arguments.preset]
        return (
            arguments.preset,
            list_repo(preset.repo, preset.prefix, arguments.revision, patience),
            preset.license,
        )
    sources = list_repo(arguments.repo, arguments.prefix, arguments.revision, patience)
    return arguments.repo.replace("/", "--"), sources, ""


def _token_for(url: str) -> dict[str, str]:
    """The hub's token, for the hub's own host and no other."""
    from huggingface_hub import constants, get_token

    token = get_token() if url.startswith(constants.ENDPOINT + "/") else None
    return {"Authorization": f"Bearer {token}"} if token else {}
