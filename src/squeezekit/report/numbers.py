"""How numbers and untrusted texts are written for people, in tables, figures and pages alike."""

from __future__ import annotations

from squeezekit.text import shown as shown


def count(number: int) -> str:
    """1234567 as 1,234,567."""
    return f"{number:,}"


def size(file_bytes: float) -> str:
    """Bytes in three digits and the decimal unit that suits: 33.2 kB, 4.99 MB."""
    for unit in ("B", "kB", "MB"):
        if file_bytes < 999.5:
            return f"{file_bytes:.0f} B" if unit == "B" else f"{_three_digits(file_bytes)} {unit}"
        file_bytes /= 1000
    return f"{_three_digits(file_bytes)} GB"


def many(number: float) -> str:
    """A large count in three digits: 861 M, 1.25 M, 421 k."""
    for unit in ("", " k", " M"):
        if number < 999.5:
            return f"{number:.0f}" if not unit else f"{_three_digits(number)}{unit}"
        number /= 1000
    return f"{_three_digits(number)} G"


def times(ratio: float) -> str:
    """A ratio: 37.7x, and 363x where digits after the point say nothing."""
    return f"{ratio:.1f}x" if ratio < 100 else f"{ratio:,.0f}x"


def percent(value: float | None) -> str:
    """A percentage (0..100) with one digit; a dash where it is not known."""
    return "-" if value is None else f"{value:.1f}"


def points(change: float | None) -> str:
    """A difference of percentages with its sign; a dash where it is not known."""
    if change is None:
        return "-"
    return "0.0" if abs(change) < 0.05 else f"{change:+.1f}".replace("-", "−")


def share(part: float, whole: float) -> str:
    """A part of a whole in percent, two digits below ten: 6.3%, 42%."""
    ratio = 100 * part / whole if whole else 0.0
    return f"{ratio:.1f}%" if ratio < 9.95 else f"{ratio:.0f}%"


def duration(seconds: float) -> str:
    """Seconds, or minutes and seconds from two minutes on."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


def brief(seconds: float) -> str:
    """A short time in three digits: 1.25 s, 43.2 ms."""
    if seconds >= 0.9995:
        return f"{_three_digits(seconds)} s"
    return f"{_three_digits(1000 * seconds)} ms"


def rate(number: float) -> str:
    """How many a second in three digits: 7.57, 43.5, 1,234."""
    return f"{number:,.0f}" if number >= 99.95 else _three_digits(number)


def _three_digits(number: float) -> str:
    digits = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{digits}f}"
