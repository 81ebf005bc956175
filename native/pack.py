"""Packs the page's runtime: pack.py OUT BUILD. The page unpacks it.

Bits are predicted by logistic mixing of what followed the last 0 to 5 bytes, the last but one, and
a longer match (Mahoney 2005), and coded arithmetically. It stays with doubles, and with additions,
multiplications and divisions, on which Python and JavaScript agree to the last bit. page.js says
the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

ORDERS = 6
CONTEXTS = ORDERS + 1
SLOTS = 1 << 20
RATE = 0.02
"""Of the mixer's weights."""
LIMIT = 20
"""So many bits make a prediction as slow to change as it gets."""


def squash(x: float) -> float:
    """1 / (1 + exp(-x)), near enough: (1 - x / 1024) ^ 1024 for exp(-x)."""
    x = 1 - max(-12.0, min(12.0, x)) / 1024
    for _ in range(10):
        x *= x
    return 1 / (1 + x)


class Model:
    """Predicts the next bit, and learns what it was."""

    def __init__(self) -> None:
        self.stretched = [0.0] * 4096
        at = 0
        for i in range(-2047, 2048):
            while at <= squash(i / 256) * 4095:
                self.stretched[at] = i / 256
                at += 1
        while at < 4096:
            self.stretched[at] = 8.0
            at += 1
        self.p = [0.5] * SLOTS
        self.n = [0] * SLOTS
        self.weights = [[0.3] * (CONTEXTS + 1) for _ in range(256 * 3)]
        self.history = bytearray()
        self.node = 1
        self.hashes = [0] * CONTEXTS
        self.last_seen: dict[int, int] = {}
        self.match = self.length = 0

    def predict(self) -> float:
        """The probability that the next bit is 1."""
        self.at = [((h + self.node * 0x9E3779B1) & 0xFFFFFFFF) >> 12 for h in self.hashes]
        expected = self.history[self.match] | 256 if self.match else 0
        left = 8 - self.node.bit_length() + 1
        self.on = expected >> left == self.node
        self.bit = expected >> (left - 1) & 1
        self.at.append(min(self.length, 15) * 2 + self.bit if self.on else 32)
        self.inputs = [self.stretched[int(self.p[i] * 4095)] for i in self.at]
        self.set = self.weights[self.node + (256 * (1 + (self.length > 15)) if self.on else 0)]
        total = 0.0
        for x, w in zip(self.inputs, self.set, strict=True):
            total += x * w  # not sum(), which rounds in its own way
        self.guess = squash(total)
        return self.guess

    def learn(self, bit: int) -> None:
        """Adjust to the bit that came."""
        miss = (bit - self.guess) * RATE
        for i, x in enumerate(self.inputs):
            self.set[i] += miss * x
        for i in self.at:
            self.p[i] += (bit - self.p[i]) / (self.n[i] + 1.5)
            self.n[i] = min(self.n[i] + 1, LIMIT)
        self.node = self.node * 2 + bit
        if self.node > 255:
            self._next_byte(self.node - 256)

    def _next_byte(self, byte: int) -> None:
        history = self.history
        history.append(byte)
        self.node = 1
        value = 0
        for order in range(1, ORDERS):
            before = history[-order] if len(history) >= order else 0
            value = (value + before + order) * 0x2F0B4C47 & 0xFFFFFFFF
            self.hashes[order] = value
        last_but_one = history[-2] if len(history) > 1 else 0
        self.hashes[ORDERS] = (last_but_one + 9) * 0x2F0B4C47 & 0xFFFFFFFF
        self.length = self.length + 1 if self.match and history[self.match] == byte else 0
        self.match += self.match > 0
        key = self.hashes[5]
        if not self.length and key in self.last_seen:
            self.match = self.last_seen[key]
        self.last_seen[key] = len(history)


def pack(data: bytes) -> bytes:
    """Arithmetic coding with 32-bit bounds."""
    model, low, high = Model(), 0, 0xFFFFFFFF
    out = bytearray()
    for byte in data:
        for shift in range(7, -1, -1):
            bit = byte >> shift & 1
            middle = low + int((high - low) * (model.predict() * 0.9998 + 0.0001))
            low, high = (low, middle) if bit else (middle + 1, high)
            model.learn(bit)
            while not (low ^ high) >> 24:
                out.append(high >> 24)
                low, high = low << 8 & 0xFFFFFFFF, high << 8 & 0xFFFFFFFF | 255
    out += high.to_bytes(4, "big")
    return bytes(out)


if __name__ == "__main__":
    out, build = sys.argv[1:]
    Path(out).write_bytes(pack(Path(build).read_bytes()))
