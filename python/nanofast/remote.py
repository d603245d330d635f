"""Data behind URLs: what counts as one, how it is read, and the credentials that the environment has for it.

    s3://bucket/folder   gs://bucket/folder   az://container/folder   https://host/file.parquet
    hf://datasets/OWNER/NAME@REVISION/folder

The reading is native (`rust/src/source/remote`); this module tells it what to read with. Credentials go from the
environment to the store and nowhere else: no message, state or configuration holds them.
"""

from __future__ import annotations

import configparser
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nanofast.errors import InvalidError
from nanofast.home import home_folder

if TYPE_CHECKING:
    from nanofast.config import DataSettings

SCHEMES = ("s3://", "gs://", "az://", "http://", "https://", "hf://")
# A URL that went through pathlib, which takes two slashes for one.
_COLLAPSED = re.compile(r"(s3|gs|az|https?|hf):/[^/]")
_URL = re.compile(r"(s3|gs|az|https?|hf):/")
_PREFIXES = ("AWS_", "GOOGLE_", "AZURE_")


@dataclass(frozen=True)
class Remote:
    """How data behind URLs is read.

    Args:
        cache_folder: a folder that keeps what is read, for later epochs and runs, and for the other processes of the
            machine; it may be shared by all of them. None: nothing is kept but the plan (what footers say), which lies
            under NANOFAST_HOME.
        cache_limit_bytes: most bytes that the folder holds; what was not used for longest goes first.
        timeout_seconds: after this long without success, retries included, a read is an error.
        stall_seconds: after this long without a byte a request is made again.
    """

    cache_folder: str | os.PathLike[str] | None = None
    cache_limit_bytes: int = 50_000_000_000
    timeout_seconds: float = 120.0
    stall_seconds: float = 20.0

    def __post_init__(self) -> None:
        require_local("cache_folder", self.cache_folder)
        for name, value in (("timeout_seconds", self.timeout_seconds), ("stall_seconds", self.stall_seconds)):
            if not 0 < value <= 86_400:
                raise InvalidError(f"{name} = {value}: must be above 0 and at most a day")
        if self.cache_limit_bytes < 1 << 22:
            raise InvalidError(f"cache_limit_bytes = {self.cache_limit_bytes}: must be at least 4 MiB")


def remote_of(settings: DataSettings) -> Remote:
    """How a run's configuration wants URLs to be read."""
    return Remote(settings.cache_folder, settings.cache_limit_bytes, settings.remote_timeout_seconds)


def is_remote(path: object) -> bool:
    """Whether a path is a URL that data is read from."""
    return isinstance(path, str) and path.startswith(SCHEMES)


def require_local(what: str, path: object, advice: str = "name a path of this machine") -> None:
    """Refuse a URL, also one that lost a slash to pathlib, where only a file or folder will do.

    Raises:
        InvalidError: it is one.
    """
    if _URL.match(str(path)):
        raise InvalidError(f"{what} `{shown(_whole(str(path)))}` is a URL; {advice}")


def _whole(url: str) -> str:
    """A URL with the slash that pathlib took, its scheme in small letters."""
    return re.sub(r"^(\w+):/+", lambda found: f"{found[1].lower()}://", url)


def has_secrets(url: str) -> bool:
    """Whether a URL holds a user name, a password or a query such as a signature."""
    parts = urlsplit(url)
    return is_remote(url) and ("@" in parts.netloc or (bool(parts.query) and parts.scheme in ("http", "https")))


def shown(url: str) -> str:
    """A path as it is, a URL without user name, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if has_secrets(url) else url


def remote_json(paths: Sequence[str], remote: Remote | None) -> str | None:
    """What the native reader needs for those of `paths` that are URLs; None where none is.

    Raises:
        InvalidError: a URL that was made a path of pathlib.
    """
    for path in paths:
        if _COLLAPSED.match(path):
            raise InvalidError(
                f"data = `{shown(_whole(path))}`: a URL lost a slash; pass it as a str, not as a pathlib.Path"
            )
    if not any(map(is_remote, paths)):
        return None
    remote = remote or Remote()
    folder = None if remote.cache_folder is None else Path(remote.cache_folder).expanduser().absolute()
    plans = home_folder() / "plans" if folder is None else folder / "plans"
    settings = {
        "options": [*_options().items()],
        "cache_folder": None if folder is None else str(folder),
        "cache_limit_bytes": remote.cache_limit_bytes,
        "plan_folder": str(plans),
        "timeout_seconds": remote.timeout_seconds,
        "stall_seconds": remote.stall_seconds,
    }
    return json.dumps(settings)


def _options() -> dict[str, str]:
    """Credentials and endpoints, by their names in the environment."""
    options = {name: value for name, value in os.environ.items() if name.startswith(_PREFIXES) and value}
    if "AWS_ACCESS_KEY_ID" not in options:
        options = {**_aws_profile(options.get("AWS_PROFILE", "default")), **options}
    if endpoint := os.environ.get("HF_ENDPOINT"):
        options["HF_ENDPOINT"] = endpoint
    if token := _hub_token():
        options["HF_TOKEN"] = token
    return options


def _aws_profile(profile: str) -> dict[str, str]:
    """Keys and region of a profile of the files that the AWS command line keeps."""
    found: dict[str, str] = {}
    folder = Path("~/.aws").expanduser()
    for variable, name, section in (
        ("AWS_CONFIG_FILE", "config", profile if profile == "default" else f"profile {profile}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", profile),
    ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(os.environ.get(variable) or folder / name, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError):
            continue  # the file is another program's
        if parser.has_section(section):
            found.update(parser.items(section))
    names = {
        "aws_access_key_id": "AWS_ACCESS_KEY_ID",
        "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "aws_session_token": "AWS_SESSION_TOKEN",
        "region": "AWS_REGION",
        "endpoint_url": "AWS_ENDPOINT_URL",
    }
    return {names[key]: value for key, value in found.items() if key in names}


def _hub_token() -> str | None:
    """HF_TOKEN, else the token that `hf auth login` left."""
    if token := os.environ.get("HF_TOKEN"):
        return token
    folder = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    try:
        return (Path(folder).expanduser() / "token").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
