"""`reproduce`: measures a table of the paper by name, and writes its page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from squeezekit.compression.checks import at_least
from squeezekit.errors import InputError
from squeezekit.interop.weights import as_network
from squeezekit.progress import Note, Progress, silent, silent_note
from squeezekit.reproduction import figure3, from_scratch, table2, table3
from squeezekit.reproduction.page import write_results
from squeezekit.reproduction.result import Reproduction
from squeezekit.reproduction.table1 import reproduce_table1
from squeezekit.reproduction.workshop import Workshop
from squeezekit.training import recipe as recipes

WHAT = ("table1", "table2", "table3", "figure3")
PUBLISHED = Path("han-2016")
"""The network that table1 is about."""

_TRAINED = ("table2", "table3", "figure3")


def _goes_with(*what: str) -> dict[str, tuple[str, ...]]:
    return {"what": what}


@dataclass(frozen=True)
class ReproduceConfig:
    """How to reproduce a table. None and empty fields take the defaults.

    Attributes:
        weights: for table1, another network than the published one.
        alexnet, squeezenet: for table2, networks already trained on the photos, used as they are.
        init_alexnet, init_squeezenet: for table2, networks to fine-tune on the photos.
        epochs: how many epochs to train the float32 networks.
        retrain_epochs: for table2, how many epochs each retraining takes.
        input_size: pixels per side of the images, for networks trained from scratch.
        seeds: for table3, how many seeds. Default: 3.
        settings: fields of the recipes to change, such as {"batch": 16}.
        seed: starts all random numbers.
    """

    weights: Path | None = field(default=None, metadata=_goes_with("table1"))
    alexnet: Path | None = field(default=None, metadata=_goes_with("table2"))
    squeezenet: Path | None = field(default=None, metadata=_goes_with("table2"))
    init_alexnet: Path | None = field(default=None, metadata=_goes_with("table2"))
    init_squeezenet: Path | None = field(default=None, metadata=_goes_with("table2"))
    epochs: int | None = field(default=None, metadata=_goes_with(*_TRAINED))
    retrain_epochs: int | None = field(default=None, metadata=_goes_with("table2"))
    input_size: int | None = field(default=None, metadata=_goes_with(*_TRAINED))
    seeds: int | None = field(default=None, metadata=_goes_with("table3"))
    settings: Mapping[str, object] = field(default_factory=dict, metadata=_goes_with(*_TRAINED))
    seed: int = field(default=0, metadata=_goes_with(*_TRAINED))

    def __post_init__(self) -> None:
        for name, least in (("epochs", 0), ("retrain_epochs", 0), ("seeds", 1), ("seed", 0)):
            at_least(name, getattr(self, name), least)

    def require_fit(self, what: str) -> None:
        """Refuse what has no part in this table.

        Raises:
            InputError: if there is no such table, or a setting is for others.
        """
        if what not in WHAT:
            raise InputError(f"there is no {what!r} to reproduce: use {', '.join(WHAT)}")
        usual = ReproduceConfig()
        for one in dataclasses.fields(self):
            fitting = one.metadata["what"]
            if getattr(self, one.name) != getattr(usual, one.name) and what not in fitting:
                raise InputError(
                    f"{one.name.replace('_', '-')} has no part in {what}: it goes with "
                    f"{', '.join(fitting)}"
                )


def reproduce(
    what: str,
    photos: Path | str | None = None,
    out: Path | str | None = None,
    config: ReproduceConfig | None = None,
    *,
    command: str = "",
    progress: Progress = silent,
    note: Note = silent_note,
) -> Reproduction:
    """Measure a table of the paper, and show the paper's values beside ours.

    After Ctrl-C the same call goes on.

        found = sk.reproduce("table1")                        # needs no photos
        found = sk.reproduce("table3", "photos", out="t3")

    Args:
        what: "table1" (densities and bytes of the published network), "table2" (AlexNet and
            SqueezeNet, compressed), "table3" (bypass) or "figure3" (squeeze ratio, share of 3x3).
        photos: a folder of class folders; table1 needs none.
        out: a folder for results, a page and trained networks; None is named after `what`.
        config: the settings.
        command: what to type to do the same again, for the page.
        progress: called during training and measuring.
        note: called with sentences that a person should read.

    Returns:
        The table; it, its JSON and its page are in `out`.

    Raises:
        InputError: if photos or weights cannot be used, or a setting is not for this table.
    """
    config = config or ReproduceConfig()
    config.require_fit(what)
    folder = Path(out or what)
    if what == "table1":
        if photos is not None:
            raise InputError("table1 takes no photos: it is about the published network")
        weights = config.weights or PUBLISHED
        result = reproduce_table1(as_network(weights, progress=progress))
        result = dataclasses.replace(result, settings={"weights": weights.name})
    elif photos is None:
        raise InputError(f"{what} needs photos: name a folder of class folders")
    else:
        result = _measured(what, Path(photos), folder, config, progress, note)
    write_results(result, folder, command)
    return result


def _measured(
    what: str, data: Path, out: Path, config: ReproduceConfig, progress: Progress, note: Note
) -> Reproduction:
    def shop(**settings: object) -> Workshop:
        content = {"what": what, **settings}
        return Workshop(out, data, content, progress=progress, note=note)

    size, seed = config.input_size, config.seed
    if what == "table2":
        how = table2.with_settings(
            dataclasses.replace(table2.Table2(), input_size=size, seed=seed),
            epochs=config.epochs, retrain_epochs=config.retrain_epochs, settings=config.settings,
        )  # fmt: skip
        given = table2.Given(
            config.alexnet, config.squeezenet, config.init_alexnet, config.init_squeezenet
        )
        workshop = shop(config=how, given=given)
        with workshop.alone():
            return table2.reproduce_table2(workshop, how, given)
    usual = table3.recipe() if what == "table3" else from_scratch.recipe()
    recipe = recipes.changed(usual, config.settings)
    if config.epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=config.epochs)
    workshop = shop(recipe=recipe, input_size=size, seed=seed)
    with workshop.alone():
        if what == "table3":
            seeds = range(seed, seed + (3 if config.seeds is None else config.seeds))
            return table3.reproduce_table3(workshop, recipe, seeds=seeds, input_size=size)
        return figure3.reproduce_figure3(workshop, recipe, input_size=size, seed=seed)
