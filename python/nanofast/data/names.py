"""Names that come from elsewhere (manifests, URLs, listings), made safe to create in a folder on any system.

Nothing is repaired: a name that could leave the folder, or mean something special somewhere, is refused.
"""

from __future__ import annotations

import re

_WINDOWS_DEVICES = re.compile(r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|COM[0-9¹²³]|LPT[0-9¹²³])(?:\.|$)", re.IGNORECASE)
_MAX_BYTES = 200  # file systems take 255; the rest is for the name of the unfinished file


def checked_name(name: str) -> str:
    """The name, if it is a plain file name.

    Raises:
        ValueError: it is empty, absolute, climbs (`..`), is hidden, or is not a name on every system.
    """
    wrong = next((reason for found, reason in _objections(name) if found), None)
    if wrong:
        raise ValueError(
            f"shard name `{name!r}` refused: {wrong}; expected a plain file name such as shard_00000.parquet"
        )
    return name


def flat_name(path: str, prefix: str = "") -> str:
    """A path in a repository as one file name: without the part in front, folders joined with `-`.

    >>> flat_name("sample/10BT/000_00000.parquet", "sample/10BT/")
    '000_00000.parquet'
    """
    if path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(
            f"path `{path!r}` in a listing refused: expected folders and a file name; found an absolute one or `..`"
        )
    return checked_name(path.removeprefix(prefix).lstrip("/").replace("/", "-"))


def _objections(name: str) -> list[tuple[bool, str]]:
    return [
        (not name, "it is empty"),
        (name in (".", ".."), "it climbs out of the folder"),
        ("/" in name or "\\" in name, "it has a folder in it"),
        (name.startswith("."), "it is hidden"),
        (any(ord(character) < 32 or ord(character) == 127 for character in name), "it has a control character in it"),
        (any(character in '<>:"|?*' for character in name), "it has a character that Windows forbids"),
        (name.endswith((" ", ".")), "it ends with a space or a dot, which Windows drops"),
        (bool(_WINDOWS_DEVICES.match(name)), "it is a device on Windows"),
        (len(name.encode("utf-8", "surrogatepass")) > _MAX_BYTES, f"it is longer than {_MAX_BYTES} bytes"),
        (any(0xD800 <= ord(character) <= 0xDFFF for character in name), "it is no valid Unicode"),
    ]
