"""The folder of a reproduction: trainings and files by name, each kept as soon as it is done."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squeezekit.compression.retraining import with_scaled_dropout
from squeezekit.data.dataset import split
from squeezekit.data.folders import match
from squeezekit.errors import InputError
from squeezekit.evaluation import evaluate
from squeezekit.files import alone_in, make_folder, write_whole
from squeezekit.interop import safetensors_file
from squeezekit.interop.weights import RUN_WEIGHTS
from squeezekit.models.fold import fold_batch_norm
from squeezekit.progress import Progress, renamed, silent
from squeezekit.runtime.classifier import from_network
from squeezekit.sqz import container
from squeezekit.sqz.container import CoderName
from squeezekit.sqz.network import Network
from squeezekit.training.checkpoint import FILE_NAME
from squeezekit.training.recipe import Recipe
from squeezekit.training.run import train_run

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Measured:
    """A row's file.

    Attributes:
        file_bytes: the size in bytes of the `.sqz`.
        top1, top5: top-1 and top-5 of that file, in percent, on the held-out images.
        images: how many those are.
    """

    file_bytes: int
    top1: float
    top5: float
    images: int


class Workshop:
    """The folder of a reproduction: `runs/NAME` of each training, `NAME.sqz` of each row.

    Finished parts are never done again, and an interrupted training goes on from its checkpoint. So
    the same command goes on after Ctrl-C, a crash or a power cut.
    """

    def __init__(
        self,
        out: Path,
        data: Path,
        settings: Mapping[str, object],
        *,
        progress: Progress = silent,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Open the folder.

        Args:
            out: new, empty, or left by a run with the same settings.
            data: the folder of images.
            settings: everything that the results depend on: dataclasses, paths, numbers, texts.
            progress: called for every task.
            note: called with what the user should read.

        Raises:
            InputError: if the folder cannot be made, or holds results of other settings.
        """
        self.out, self.data = out, data
        self._progress, self._note = progress, note
        self.settings: dict[str, Any] = json.loads(
            json.dumps({"data": str(data.resolve()), **settings}, default=_as_json)
        )
        text = json.dumps(self.settings, indent=2) + "\n"
        make_folder(out / "runs")
        known = out / SETTINGS
        if known.exists() and known.read_text(encoding="utf-8") != text:
            raise InputError(
                f"{out} holds results of other settings or data (see {known}): name another folder"
            )
        write_whole(known, text.encode())

    def alone(self) -> AbstractContextManager[None]:
        """No other process works here while the `with` lasts.

        Raises:
            InputError: if one does already.
        """
        return alone_in(self.out)

    @property
    def seconds(self) -> float:
        """Wall time of all that is finished, over all commands."""
        return sum(float(json.loads(path.read_text())["seconds"]) for path in self._times())

    def _times(self) -> list[Path]:
        return sorted(self.out.glob("runs/*/took.json")) + sorted(self.out.glob("*.row.json"))

    def trained(
        self,
        name: str,
        network: Network,
        recipe: Recipe,
        *,
        teacher: Network | None = None,
        masked: bool = False,
    ) -> Network:
        """Train a network, or read back what an earlier command has trained.

        Args:
            name: the name of the training; its folder.
            network: the network to start from; shared weights stay shared.
            recipe: how to train.
            teacher: what the network was before it was compressed, whose outputs it learns too.
            masked: keep zeros zero, and scale dropout by the root of the density
                (Han et al. 2015).
        """
        folder = self.out / "runs" / name
        weights = folder / RUN_WEIGHTS
        if not weights.exists():
            start = time.perf_counter()
            train_run(
                with_scaled_dropout(network) if masked else network,
                self.data,
                folder,
                recipe,
                teacher=teacher,
                masked=masked,
                resume=True,
                validates=False,  # the row's file is measured
                progress=renamed(name, self._progress, only="train"),
                note=self._note,
            )
            self._keep_time(folder / "took.json", time.perf_counter() - start)
        (folder / FILE_NAME).unlink(missing_ok=True)  # of a large network, gigabytes
        return dataclasses.replace(safetensors_file.read(weights), graph=network.graph)

    def measured(
        self, name: str, coder: CoderName, make: Callable[[], Network], *, seed: int
    ) -> Measured:
        """Write a row's file and measure that; or what an earlier command measured.

        Args:
            name: the name of the row.
            coder: the coder of its file.
            make: the network, batch norms and all, with any training that it takes.
            seed: the seed that it was trained with: an unsplit folder is split by it.
        """
        kept = self.out / f"{name}.row.json"
        if not kept.exists():
            network = fold_batch_norm(make())
            start = time.perf_counter()
            path = self.out / f"{name}.sqz"
            file_bytes = container.write(network, path, coder)
            network = container.read(path)
            held_out = match(split(self.data, "val", seed), network.metadata.labels)
            result = evaluate(
                from_network(network),
                held_out,
                progress=renamed(f"measure {name}", self._progress, only="evaluate"),
            )
            row = Measured(file_bytes, result.top1, result.top5, result.images)
            content = {**dataclasses.asdict(row), "seconds": time.perf_counter() - start}
            write_whole(kept, (json.dumps(content, indent=2) + "\n").encode())
            self._note(f"{name}: {file_bytes:,} bytes, top-1 {result.top1:.1f}")
        content = json.loads(kept.read_text())
        return Measured(**{f.name: content[f.name] for f in dataclasses.fields(Measured)})

    def _keep_time(self, path: Path, seconds: float) -> None:
        write_whole(path, (json.dumps({"seconds": seconds}) + "\n").encode())


def _as_json(value: Any) -> object:  # noqa: ANN401 - anything that JSON does not know
    return str(value) if isinstance(value, Path) else dataclasses.asdict(value)
