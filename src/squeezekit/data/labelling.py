"""Names for the outputs of a network that came without any, and images matched to them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from squeezekit.data.folders import ImageSet, match
from squeezekit.errors import InputError
from squeezekit.runtime.labels import find_labels, read_labels
from squeezekit.sqz.network import Metadata


def with_labels(
    metadata: Metadata,
    outputs: int,
    *,
    labels_file: Path | None = None,
    image_set: ImageSet | None = None,
    data_dir: Path | None = None,
) -> Metadata:
    """Complete the metadata of a network with `outputs` outputs.

    In this order: the labels file that the user names; the network's own labels; a labels file in
    the data folder or beside it; the class folders in alphabetical order, where there are as many
    as outputs, as training tools number them.

    Returns:
        The metadata, as it was where no labels are found.

    Raises:
        InputError: where the labels file cannot be read or does not have `outputs` names.
    """
    if labels_file is not None:
        labels, label_ids = read_labels(labels_file)
        if len(labels) != outputs:
            raise InputError(
                f"{labels_file} names {len(labels)} classes, but the network has {outputs} outputs"
            )
        return dataclasses.replace(metadata, labels=labels, label_ids=label_ids)
    if metadata.labels or metadata.label_ids:
        return metadata
    found = find_labels(data_dir, outputs) if data_dir is not None else None
    if found is not None:
        return dataclasses.replace(metadata, labels=found[0], label_ids=found[1])
    if image_set is not None and len(image_set.classes) == outputs:
        return dataclasses.replace(metadata, labels=image_set.classes)
    return metadata


def matched(image_set: ImageSet, metadata: Metadata) -> ImageSet:
    """Images whose targets are the outputs of the network that the metadata describes.

    Raises:
        InputError: where its labels do not fit the class folders, or there are none.
    """
    return match(image_set, metadata.labels, metadata.label_ids)
