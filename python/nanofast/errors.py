"""The exceptions that nanofast raises: each is a `nanofast.Error` and the built-in that people already catch."""


class Error(Exception):
    """Base of all errors of nanofast; the message says what failed, where, what was expected, and what to do."""


class NotFoundError(Error, FileNotFoundError):
    """A file or folder does not exist, or holds no data."""


class ReadError(Error, OSError):
    """The operating system refused a read."""


class WrongTypeError(Error, TypeError):
    """A column, value or array is of the wrong type."""


class InvalidError(Error, ValueError):
    """A setting, file or state breaks a rule."""


class OutOfMemoryError(Error, MemoryError):
    """Memory could not be had."""


class LoaderError(Error, RuntimeError):
    """A loader is closed, forked, or met a bug."""
