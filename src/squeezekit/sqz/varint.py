"""Variable-length integers (unsigned LEB128), as `.sqz` heads and protocol buffers have them."""


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the high bit is set on all bytes but the last."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
