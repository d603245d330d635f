"""Published data sets and where their shards are: presets, repositories of the Hugging Face hub, URL templates.

A listing is (name, URL, size, SHA-256) for each shard, in the order of the names; what is not published is None. Of a
listing one takes the first n shards for training and always the last, which validates.
"""

from __future__ import annotations

import posixpath
import string
from collections.abc import Sequence
from dataclasses import dataclass

import httpx2

from nanofast.data.deadline import within
from nanofast.data.fetch import HTTPS_ONLY, FetchError, Patience, Source, refuse_downgrade
from nanofast.data.names import checked_name, flat_name


@dataclass(frozen=True)
class Preset:
    """A data set that people pre-train small GPTs on."""

    repo: str
    prefix: str
    license: str
    size: str
    about: str


# Licences as their publishers state them on the hub. Sizes are for choosing: what a download takes is shown before it
# begins, from the listing.
PRESETS = {
    "fineweb-edu": Preset(
        "karpathy/fineweb-edu-100b-shuffle",
        "shard_",
        "ODC-By 1.0",
        "about 180 GB, 1,823 shards",
        "educational web text, 100 billion tokens, shuffled",
    ),
    "climbmix": Preset(
        "karpathy/climbmix-400b-shuffle",
        "shard_",
        "CC BY-NC 4.0 (NVIDIA ClimbMix)",
        "about 600 GB, 6,543 shards",
        "a mix of web text, 400 billion tokens, shuffled",
    ),
    "fineweb": Preset(
        "HuggingFaceFW/fineweb",
        "sample/10BT/",
        "ODC-By 1.0",
        "about 28 GB",
        "web text, a sample of 10 billion tokens",
    ),
    "smoltalk": Preset(
        "HuggingFaceTB/smoltalk", "data/all/train-", "Apache-2.0", "about 2 GB, 9 shards", "a million conversations"
    ),
}


def list_repo(repo: str, prefix: str, revision: str, patience: Patience) -> list[Source]:
    """The parquet shards of a data set on the hub whose path begins with `prefix`.

    HF_ENDPOINT and HF_TOKEN are minded, as everywhere with the hub, whose library waits and asks again by itself.

    Raises:
        FetchError: the hub does not answer, or has no such data set or shard.
    """
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    _guard_session(patience)
    folder = posixpath.dirname(prefix) or None

    def listed() -> list[huggingface_hub.RepoFile]:
        entries = huggingface_hub.HfApi().list_repo_tree(
            repo, folder, repo_type="dataset", revision=revision, recursive=True
        )
        return [entry for entry in entries if isinstance(entry, huggingface_hub.RepoFile)]

    try:
        files = within(patience.total_seconds, listed)
    except FetchError:
        raise
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise FetchError(f"no data set `{repo}` at revision `{revision}` on the hub (or it needs HF_TOKEN)") from error
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FetchError(f"cannot list `{repo}` on the hub: {text}") from error
    shards = [file for file in files if file.path.startswith(prefix) and file.path.endswith(".parquet")]
    if not shards:
        raise FetchError(f"`{repo}` has no .parquet file whose path begins with `{prefix}`; pass --prefix")
    folder = prefix[: prefix.rfind("/") + 1]
    try:
        sources = [
            Source(
                flat_name(file.path, folder),
                huggingface_hub.hf_hub_url(repo, file.path, repo_type="dataset", revision=revision),
                file.size,
                file.lfs.sha256 if file.lfs else None,
            )
            for file in shards
        ]
    except ValueError as error:
        raise FetchError(str(error)) from error
    return _distinct(sorted(sources, key=lambda source: source.name))


def _guard_session(patience: Patience) -> None:
    """Give the hub's own client what it lacks: an end to a server's silence, and no way from https to http."""
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.utils import logging

    # Its warnings, one an attempt, say no more than the one line that comes of them.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    timeout = httpx2.Timeout(patience.read_seconds).as_dict()

    def guard(request: httpx2.Request) -> None:
        request.extensions |= {"timeout": timeout, HTTPS_ONLY: constants.ENDPOINT.startswith("https:")}
        refuse_downgrade(request)

    theirs = huggingface_hub.get_session().event_hooks
    hooks = {**theirs, "request": [*theirs["request"], guard]}
    huggingface_hub.set_client_factory(lambda: httpx2.Client(follow_redirects=True, event_hooks=hooks))


def list_template(template: str, num_shards: int) -> list[Source]:
    """The shards `template.format(index=0 … num_shards - 1)`; the template names `index` and nothing else.

    Raises:
        FetchError: the template is none.
    """
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
        if fields != {"index"}:
            raise ValueError(f"fields {sorted(fields) or 'none'}")
        urls = [template.format(index=index) for index in range(num_shards)]
        if not all(url.split("?")[0].endswith(".parquet") for url in urls):
            raise ValueError("no .parquet file")
        return _distinct([Source(checked_name(posixpath.basename(url.split("?")[0])), url) for url in urls])
    except (ValueError, KeyError, IndexError) as error:
        raise FetchError(
            f"--url-template `{template}` refused ({error}); expected one field, as in https://host/shard_{{index:05d}}.parquet"
        ) from error


def chosen(sources: Sequence[Source], num_shards: int) -> list[Source]:
    """The first `num_shards` shards and the last; all of them for -1."""
    if num_shards < 0 or num_shards + 1 >= len(sources):
        return list(sources)
    return [*sources[:num_shards], sources[-1]]


def _distinct(sources: list[Source]) -> list[Source]:
    seen: set[str] = set()
    for source in sources:
        if source.name.lower() in seen:
            raise FetchError(f"two shards are called `{source.name}`; take a part of them with --prefix")
        seen.add(source.name.lower())
    return sources
