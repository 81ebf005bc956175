"""Every reader, given damaged files by a seed: each is read, or refused by one of our errors."""

import random

import pytest
from damaged_files import READERS, refused

FEWER = {"net": 40}
"""Of what takes longer to read."""


@pytest.mark.parametrize("name", READERS)
def test_seeds_can_be_read(name):
    """Damage to what nobody reads would find nothing."""
    reader = READERS[name]
    assert any(refused(reader, seed) is None for seed in reader.seeds())


@pytest.mark.parametrize("name", READERS)
def test_damage_ends_in_an_error_of_ours(name):
    reader, rng = READERS[name], random.Random(name)
    seeds = reader.seeds()
    said = set()
    for _ in range(FEWER.get(name, 300)):
        error = refused(reader, reader.damage(rng, rng.choice(seeds)))
        if error is not None:
            said.add(type(error))
            assert str(error).isprintable()
    assert said
