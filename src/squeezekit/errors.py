"""The errors a user can cause: each message is one clear sentence that says what is wrong."""

from __future__ import annotations

from squeezekit.text import shown


class SqueezekitError(Exception):
    """Base of every error that squeezekit raises on purpose; the command line prints it bare.

    What it says is one line without control characters: names and texts in it may come from files
    of strangers, and must not steer a terminal or forge a line of a log.
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
    """A `.sqz` file is damaged or is none; each way of being broken has its own subclass."""


class NotSqzError(FormatError):
    """The file does not start with the magic of a `.sqz`."""


class VersionError(FormatError):
    """The file was written by a later version of the format than this one reads."""


class TruncatedError(FormatError):
    """The file ends before the length that its header states."""


class TrailingBytesError(FormatError):
    """Bytes follow the end of the file, of its head or of a payload."""


class ChecksumError(FormatError):
    """A CRC-32 does not match the bytes it covers."""


class LengthError(FormatError):
    """A stated length or count is impossible: too large, or reaching past what holds it."""


class LimitError(LengthError):
    """The file asks for more than its reader allows (see `sqz.limits.Limits`)."""


class HeadError(FormatError):
    """The head cannot be inflated or read, or misses something that it must have."""


class GraphError(FormatError):
    """The graph in the file is not a usable ONNX model."""


class OperatorError(UnsupportedError, FormatError):
    """The graph in the file has an operator, or a setting of one, outside of the closed list."""


class CoderError(FormatError):
    """A tensor names an unknown coder, or its payload does not decode to its shape."""
