"""nanofast feeds GPT training straight from raw parquet text.

Importing it loads numpy and the native extension alone; torch is loaded when the first tensor is made.
"""

import warnings as _warnings

from nanofast._nanofast import DEBUG_BUILD as _DEBUG_BUILD
from nanofast._nanofast import __version__
from nanofast.batch_loader import merge_states
from nanofast.chat_loader import ChatLoader
from nanofast.chat_template import ChatTemplate
from nanofast.errors import (
    Error,
    InvalidError,
    LoaderError,
    NotFoundError,
    OutOfMemoryError,
    ReadError,
    WrongTypeError,
)
from nanofast.loader import TokenLoader
from nanofast.mixture import Mixture
from nanofast.remote import Remote
from nanofast.token_files import TokenDataset, TokenFileLoader
from nanofast.tokenizer import Tokenizer

__all__ = [
    "ChatLoader",
    "ChatTemplate",
    "Error",
    "InvalidError",
    "LoaderError",
    "Mixture",
    "NotFoundError",
    "OutOfMemoryError",
    "ReadError",
    "Remote",
    "TokenDataset",
    "TokenFileLoader",
    "TokenLoader",
    "Tokenizer",
    "WrongTypeError",
    "__version__",
    "merge_states",
]

if _DEBUG_BUILD:
    _warnings.warn(
        "this is a debug build of nanofast, many times slower; build it with `maturin develop --release`",
        RuntimeWarning,
        stacklevel=2,
    )
