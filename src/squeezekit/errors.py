"""The errors a user can cause: each message is one clear sentence that says what is wrong."""

from __future__ import annotations

from squeezekit.text import shown


class SqueezekitError(Exception):
    """Base of every error that squeezekit raises on purpose; the command line prints its message.

    The message is one line without control characters. Names and texts in it may come from a
    stranger's file, and must not control a terminal or forge a line of a log.
    """

    def __str__(self) -> str:
        return shown(super().__str__())


class InputError(SqueezekitError):
    """Something handed in (an image, a folder, an option, a weights file) cannot be used."""


class TooManyPixelsError(InputError):
    """An image has more pixels than may be decoded."""


class WriteError(InputError):
    """A file cannot be written, whatever is in it: a full disk, a missing or read-only folder."""


class UnsupportedError(SqueezekitError):
    """The input is well formed, but asks for an operator or a feature that is not supported."""


class FormatError(SqueezekitError):
    """A file is damaged or is not a `.sqz`; each kind of damage has its own subclass."""


class NotSqzError(FormatError):
    """The file does not start with the bytes that mark a `.sqz`."""


class VersionError(FormatError):
    """The file has a later version of the format than this squeezekit reads."""


class TruncatedError(FormatError):
    """The file is shorter than its header says."""


class TrailingBytesError(FormatError):
    """There are bytes after the end of the file, of its head or of a payload."""


class ChecksumError(FormatError):
    """A CRC-32 does not match the bytes it covers."""


class LengthError(FormatError):
    """A length or a count is impossible: too large, or larger than the part that it lies in."""


class LimitError(LengthError):
    """The file needs more than the reader allows (see `sqz.limits.Limits`)."""


class HeadError(FormatError):
    """The head cannot be decompressed or read, or something that it must have is missing."""


class GraphError(FormatError):
    """The graph in the file is not a usable ONNX model."""


class OperatorError(UnsupportedError, FormatError):
    """The graph in the file has an operator, or a setting of one, outside of the closed list."""


class CoderError(FormatError):
    """A tensor names an unknown coder, or its payload does not decode to its shape."""
