"""A second decoder of the entropy coders, written from docs/format.md in plain Python integers."""

from __future__ import annotations

import struct

L = [
    22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768,
    40793, 47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438,
    65476, 65500, 65514,
]  # fmt: skip


def squash(x):
    a = max(-2047, min(2047, x)) + 2048
    i, f = a >> 7, a & 127
    return (L[i] * (128 - f) + L[i + 1] * f + 64) >> 7


STRETCH: list[int] = []
for value in range(-2047, 2048):
    while len(STRETCH) <= squash(value) >> 4:
        STRETCH.append(value)
STRETCH += [2047] * (4096 - len(STRETCH))


class Decoder:
    def __init__(self, payload):
        self.payload, self.at = payload, 0
        self.low, self.high, self.code = 0, 2**32 - 1, 0
        self.weights, self.slots = {}, {}
        for _ in range(4):
            self.code = self.code << 8 | self.byte()

    def byte(self):
        self.at += 1
        assert self.at <= len(self.payload) + 3
        return self.payload[self.at - 1] if self.at <= len(self.payload) else 0

    def finish(self):
        m = next(m for m in range(1, 5) if -(-self.low >> 32 - 8 * m) << 32 - 8 * m <= self.high)
        assert self.at - len(self.payload) == 4 - m

    def bit(self, p):
        middle = self.low + (self.high - self.low) * p // 65536
        bit = int(self.code <= middle)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while self.low >> 24 == self.high >> 24:
            self.low = self.low << 8 & 0xFFFFFFFF
            self.high = self.high << 8 & 0xFFFFFFFF | 255
            self.code = (self.code << 8 & 0xFFFFFFFF) | self.byte()
        return bit

    def mixed(self, mixer_set, *names, limit=1000):
        weights = self.weights.setdefault(mixer_set, [27307] * 6)
        slots = [self.slots.setdefault(name, [1 << 21, 0]) for name in names]
        x = [STRETCH[q >> 10] * (256 if c > 30 else 512 * c // (2 * c + 3)) >> 8 for q, c in slots]
        p = squash(sum(a * w for a, w in zip(x, weights, strict=False)) >> 16)
        bit = self.bit(p)
        error = bit * 65536 - p
        before = [tuple(slot) for slot in slots]  # of two that are the same, the last one counts
        for i, (a, slot) in enumerate(zip(x, slots, strict=True)):
            slot[:] = before[i]
            weights[i] += (a * error * 24 + (1 << 19)) >> 20
            target = (1 << 22) - 1 if bit else 0
            slot[0] += (target - slot[0]) * (65536 // (slot[1] + 2)) >> 16
            slot[1] = min(slot[1] + 1, limit)
        return bit

    def raw(self, bits):
        value = 0
        for _ in range(bits):
            value = value << 1 | self.bit(32768)
        return value

    def tree(self, mixer_set, bits, name):
        node = 1
        for _ in range(bits):
            node = node << 1 | self.mixed(mixer_set, (*name, node))
        return node - (1 << bits)


class Learning(Decoder):
    """Learns from the bits of what is known before it decodes."""

    def __init__(self, payload, known):
        super().__init__(payload)
        self.known = [byte >> i & 1 for byte in reversed(known) for i in range(8)]

    def bit(self, p):
        return self.known.pop() if self.known else super().bit(p)


def floats(payload, count, drop):
    """The float32 values as their bits."""
    decoder, values, last = Decoder(payload), [], 0
    for _ in range(count):
        last = decoder.mixed(65, ("zero", last))
        if not last:
            values.append(0)
            continue
        sign = decoder.mixed(66, ("sign",))
        exponent = decoder.tree(67, 8, ("exponent",))
        top = decoder.tree(68, 4, ("mantissa", exponent % 16))
        rest = max(0, 19 - drop)
        low = decoder.raw(rest)
        values.append(sign << 31 | exponent << 23 | top << 19 | low << (19 - rest))
    decoder.finish()
    return values


def table(decoder, count, drop):
    """The centroids other than zero, as Python floats."""
    values, place, length = [], 0, 0
    for _ in range(count):
        more, length = step(decoder, length, drop)
        place += more
        full = place << drop
        if not full >> 31:
            full |= (1 << drop) - 1
        bits = full ^ 0xFFFFFFFF if not full >> 31 else full & 0x7FFFFFFF
        values.append(struct.unpack("<f", struct.pack("<I", bits))[0])
    return values


def sign(level):
    return 1 if level > 0 else 2 if level < 0 else 0


def loudness(left, up):
    m = (left != 0) + (up != 0)
    if not m:
        return 0
    mean = (8 * (abs(left) + abs(up)) + m // 2) // m
    n = mean.bit_length()
    return min(23, 2 * n + (mean >> (n - 2) & 1) - 1)


def magnitude(decoder, negative, loud):
    def with_node(mixer_set, node):
        return decoder.mixed(mixer_set, ("node", negative, node), ("near", node, loud))

    n = 0
    while n < 30 and with_node(33 + min(n, 15), n):
        n += 1
    v = 1
    for r in reversed(range(n)):
        node = 32 + 128 * n + v
        if v < 8:
            bit = with_node(49 + v, node)
        elif v < 128:
            bit = decoder.mixed(
                57 + min(r, 7), ("node", negative, node), ("low", node), ("bit", 8 * n + min(r, 7))
            )
        else:
            bit = decoder.raw(1)
        v = v << 1 | bit
    return v


def shared(payload, dimensions, centroids, drop):
    """(table, levels): the centroids other than zero, and the flat list of levels."""
    decoder = Decoder(payload)
    values = table(decoder, centroids, drop)
    rows, columns, height, width = dimensions
    area = height * width
    levels: list[int] = []
    for row in range(rows):
        for column in range(columns):
            present = 0
            for k in range(area):
                at, place, x, y = len(levels), min(k, 31), k % width, k // width
                left = levels[at - 1] if x else 0
                up = levels[at - width] if y else 0
                corner = levels[at - width - 1] if x and y else 0
                before = levels[at - columns * area] if row else 0
                beside = levels[at - area] if column else 0
                near = (place, min(present, 7), corner != 0, up != 0, left != 0)
                if not decoder.mixed(place, ("zc", column % 65536), ("zr", row), ("zn", near)):
                    levels.append(0)
                    continue
                present += 1
                negative = decoder.mixed(
                    32,
                    ("sn", sign(left), sign(up)),
                    ("sf", place, sign(before), sign(beside)),
                    ("sr", row),
                    ("sc", column % 65536),
                )
                size = magnitude(decoder, negative, loudness(left, up))
                levels.append(-size if negative else size)
    decoder.finish()
    return values, levels


def logarithm(value):
    n = value.bit_length() - 1
    return n << 4 | (value << 4 >> n) & 15


def clamped(value, most):
    return max(0, min(most, value))


def whole(payload, dimensions):
    """The flat list of whole numbers of a grid."""
    decoder = Decoder(payload)
    rows, columns, height, width = dimensions
    area = height * width
    row_size = columns * area
    column_loud, column_sum = [0] * row_size, [0] * row_size  # of less than 65,536 columns
    levels: list[int] = []
    for row in range(rows):
        for i in range(row_size):
            k = i % area
            place, at = min(k, 31), len(levels)
            left = levels[at - 1] if k % width else 0
            up = levels[at - width] if k >= width else 0
            beside = levels[at - area] if i >= area else 0
            before = levels[at - row_size] if row else 0
            mean = (16 * sum(map(abs, levels)) + 32) // (at + 1)
            this_row = levels[row * row_size :]
            row_mean = (16 * sum(map(abs, this_row)) + 2 * mean) // (i + 2)
            column_total = 16 * column_loud[i] + 2 * mean
            column_mean = column_total // (row + 2)
            loud = logarithm(row_mean + 1) + logarithm(column_mean + 1) - logarithm(mean + 1)
            bucket = clamped((loud - 48) >> 2, 31)
            near = sum(map(abs, (left, up, beside, before)))
            near = clamped(logarithm(near + 1) >> 2, 63)
            value = 0
            if decoder.mixed(place, ("zp", place, bucket), ("zb", near)):
                signs = [sign(levels[at - b * row_size]) if row >= b else 0 for b in (1, 2, 3, 4)]
                lean = 256 * abs(column_sum[i]) // (column_total + 1)
                lean = clamped((lean if column_sum[i] > 0 else -lean) + 8, 15)
                negative = decoder.mixed(
                    32,
                    ("sm", place, lean),
                    ("sf", place, sign(left), sign(up)),
                    ("sb", *signs),
                )
                value = magnitude(decoder, negative, bucket)
                assert value <= 1 << 22
                value = -value if negative else value
            column_loud[i] += abs(value)
            column_sum[i] += value
            levels.append(value)
    decoder.finish()
    return levels


def text(payload, size, known=b""):
    """The bytes of a head, behind those that are known."""
    decoder, out, seen = Learning(payload, known), bytearray(), {}
    word = match = length = start = before = 0
    equal = True
    for i in range(len(known) + size):
        last = int.from_bytes(bytes(4) + out, "big") & 0xFFFFFFFF
        over, after = (
            out[at] if at < start else 0 for at in (before + i - start, before + i - start + 1)
        )
        along = min(i - start, 12)
        contexts = [last & 255, last & 0xFFFF, last & 0xFFFFFF, word]
        contexts.append(over | along << 8 | (after if equal else 256) << 12)
        expected = out[match] | 256 if match else 0
        node = 1
        for bit in reversed(range(8)):
            names = []
            for j, context in enumerate(contexts):
                mix = (
                    context + (j << 28)
                ) * 0x9E3779B1 & 0xFFFFFFFF ^ node * 0x2545F491 & 0xFFFFFFFF
                mix = mix * 0x85EBCA6B & 0xFFFFFFFF
                names.append(("hash", (mix ^ mix >> 15) >> 15))
            agrees = expected >> (bit + 1) == node
            told = min(length, 15) * 2 + (expected >> bit & 1) if agrees else 32
            mixer_set = (1 + (length > 8) + (length > 16) if agrees else 0) * 8 + min(along, 7)
            node = node << 1 | decoder.mixed(mixer_set, *names, ("told", told), limit=10)
        byte = node & 255
        out.append(byte)
        word = (word + byte + 1) * 0x2F0B4C47 & 0xFFFFFFFF if 97 <= byte | 32 <= 122 else 0
        equal = equal and over == byte
        if byte in b'"\n':
            before, start, equal = start, i + 1, True
        if match and out[match] == byte:
            match, length = match + 1, length + 1
        else:
            match = length = 0
        place = ((last << 8 | byte) & 0xFFFFFFFF) * 0x9E3779B1 >> 16 & 0xFFFF
        match = match or seen.get(place, 0)
        seen[place] = i + 1
    decoder.finish()
    return bytes(out[len(known) :])


def ordered(bits):
    return bits ^ 0xFFFFFFFF if bits >> 31 else bits | 1 << 31


def step(decoder, before, drop):
    """(the step, its length): at least 1, by the length of the one before."""
    length = decoder.tree(69, 6, ("step", before))
    assert 1 <= length <= 32 - drop
    top = min(2, length - 1)
    found = 1 << top | decoder.tree(70, top, ("top", length))
    rest = length - 1 - top
    return found << rest | decoder.raw(rest), length


def moved_floats(payload, old, drop):
    """The float32 values as their bits, from those of old ones."""
    decoder, values, recent, length = Decoder(payload), [], 0, 0
    for bits in old:
        u = ordered(bits) >> drop
        differs = decoder.mixed(71, ("differs", recent))
        recent = (recent << 1 | differs) & 15
        if differs:
            down = decoder.mixed(66, ("lower",))
            size, length = step(decoder, length, drop)
            u += -size if down else size
            assert 0 <= u < 1 << 32 - drop
        full = u << drop
        if not full >> 31:
            full |= (1 << drop) - 1
        values.append(full & 0x7FFFFFFF if full >> 31 else full ^ 0xFFFFFFFF)
    decoder.finish()
    return values


def amount(decoder, kind, size):
    n = 0
    while n < 30 and decoder.mixed(
        24 + min(n, 7), ("amount", kind, n), ("amount of", kind, min(size, 15), n)
    ):
        n += 1
    v = 1
    for _ in range(n):
        bit = decoder.mixed(32 + min(n, 7), ("bits", kind, n, v)) if v < 16 else decoder.raw(1)
        v = v << 1 | bit
    return v


def moved_levels(payload, old, dimensions, negatives, positives):
    """The flat list of levels, from old ones."""
    decoder, levels, recent = Decoder(payload), [], 0
    _, columns, height, width = dimensions
    area = height * width
    for at, was in enumerate(old):
        row, column, k = at // (columns * area), at // area % columns, at % area
        back = [
            1 if k % width else None,
            width if k // width else None,
            columns * area if row else None,
            area if column else None,
        ]
        new = [0 if b is None else levels[at - b] for b in back]
        before = [0 if b is None else old[at - b] for b in back]
        moved = sum(a != b for a, b in zip(new, before, strict=True))
        present = sum(a != 0 for a in new)
        loud = tuple(min(abs(a), 3) for a in new)
        ways = tuple(
            (abs(a) > abs(b)) + 2 * (abs(a) < abs(b)) for a, b in zip(new, before, strict=True)
        )
        size, place, clip = abs(was), min(k, 31), max(-15, min(15, was))
        rank = min(size, 2) if size < 4 else 3
        differs = decoder.mixed(
            5 * rank + moved,
            ("clip", clip, moved),
            ("column", column % 65536, was != 0),
            ("row", row, rank),
            ("place", rank, place, present),
            ("recent", rank, recent),
            ("loud", rank, loud),
        )
        recent = (recent << 1 | differs) & 63
        if not differs:
            levels.append(was)
            continue
        turned, negative = 0, int(was < 0)
        if was:
            gone = ("gone", clip, present), ("gone at", rank, place), ("gone row", row)
            if decoder.mixed(20, *gone):
                levels.append(0)
                continue
            turned = decoder.mixed(21, ("turned", min(size, 15)))
            negative ^= turned
        else:
            signs = tuple(sign(a) for a in new)
            negative = decoder.mixed(23, ("signs", signs), ("sign at", place), ("sign row", row))
        most = negatives if negative else positives
        if was and not turned:
            louder = size == 1
            if size > 1 and size < most:
                louder = decoder.mixed(22, ("louder", clip), ("ways", ways))
            found = size + amount(decoder, 1, size) if louder else size - amount(decoder, 2, size)
        else:
            found = amount(decoder, 0, size)
        assert 1 <= found <= most
        levels.append(-found if negative else found)
    decoder.finish()
    return levels
