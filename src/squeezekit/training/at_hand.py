"""Trained weights at hand to start from: in a file beside the photos, or fetched before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from squeezekit.errors import FormatError, InputError, UnsupportedError
from squeezekit.interop import pretrained, weights
from squeezekit.progress import Note, silent_note
from squeezekit.sqz.network import Network

MANY_CLASSES = 100
"""Whoever tells so many classes apart has features for other ones as well."""

LARGEST_BYTES = 100_000_000
"""Of a file beside the photos: the others are not opened."""

PREFERRED = ("torchvision-1.1", "torchvision-1.0", "han-2016")
"""Published weights, the best to start from first: those of han-2016 are pruned."""


@dataclass(frozen=True, eq=False)
class AtHand:
    """Trained weights that were found.

    Attributes:
        network: them.
        told: which they are, and where they were, in a sentence for people.
    """

    network: Network
    told: str


def trained_at_hand(photos: Path | None, note: Note = silent_note) -> AtHand | None:
    """Find weights to start from without being told of any, and without downloading.

    First comes a file in the folder where the folder of photos is: any that `weights.READ` names
    and that tells `MANY_CLASSES` or more classes of colour images apart; of several, the first by
    name. Then come published weights that were fetched before.

    Args:
        photos: their folder; None if they are in memory.
        note: called with what reading the weights has to say.
    """
    beside = [] if photos is None else _beside(photos)
    if beside:
        path, network, said = beside[0]
        for sentence in said:
            note(sentence)
        told = f"starts from the trained weights in {path}, beside the photos"
        if others := ", ".join(other.name for other, _, _ in beside[1:]):
            told += f" (there are also {others})"
        return AtHand(network, _with_way_out(told, network))
    for name in PREFERRED:
        if pretrained.at_hand(name) is not None:
            network = weights.read(name, note=note)
            told = f"starts from the trained weights {name}, fetched before"
            return AtHand(network, _with_way_out(told, network))
    return None


def _beside(photos: Path) -> list[tuple[Path, Network, list[str]]]:
    """Files with such weights, the networks in them, and what reading them had to say."""
    found = []
    for path in sorted(photos.absolute().parent.iterdir()):
        if path.suffix.lower() not in weights.READ or not path.is_file():
            continue
        if path.stat().st_size > LARGEST_BYTES:
            continue
        said: list[str] = []
        try:
            network = weights.read(path, note=said.append)
        except (FormatError, InputError, UnsupportedError, OSError):
            continue  # nobody has asked for this file
        colour = network.metadata.preprocessing.channels == 3
        if colour and (network.outputs or 0) >= MANY_CLASSES:
            found.append((path, network, said))
    return found


def _with_way_out(told: str, network: Network) -> str:
    licence = network.metadata.licence
    terms = f"; their licence: {licence}" if licence else ""
    return f"{told}{terms}; --recipe scratch starts from random ones"
