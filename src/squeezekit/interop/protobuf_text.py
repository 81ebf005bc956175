"""Whether the texts of a protocol buffer are UTF-8, which its parser does not check."""

from __future__ import annotations

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_NEVER_USED = ("doc_string",)


def is_text_only(message: Message) -> bool:
    """False where any string of a message, or of one inside it, is not UTF-8.

    By the version of protobuf such a string is given as bytes, or not at all.
    """
    try:
        for field, value in message.ListFields():
            if field.type == FieldDescriptor.TYPE_STRING and field.name not in _NEVER_USED:
                texts = [value] if isinstance(value, str | bytes) else value
                if not all(isinstance(text, str) for text in texts):
                    return False
            elif field.type == FieldDescriptor.TYPE_MESSAGE:
                inner = [value] if isinstance(value, Message) else value
                if not all(map(is_text_only, inner)):
                    return False
    except UnicodeDecodeError:
        return False
    return True
