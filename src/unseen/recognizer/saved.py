"""Read a saved folder, which may come from anybody. No pickle.

Its JSON is validated before anything is built from it, weights are safetensors, tables are CSV, and only files of
:mod:`unseen.recognizer.names` are opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unseen.backbones.reduction import FILE as REDUCTION
from unseen.backbones.spec import BackboneSpec
from unseen.backbones.towers import PREFIX
from unseen.classes.changes import read_encoding
from unseen.errors import RunError
from unseen.ground.checked import checked
from unseen.ground.files import read_json
from unseen.model.ranks import RankThreshold
from unseen.recognizer.names import AGAIN, BACKBONE, FACTS, FORMAT, REFERENCES, SPACE, TOWER, WEIGHTS
from unseen.recognizer.parts import Parts, checked_settings


def read_saved(folder: Path) -> Parts:
    """Validated parts of a saved folder.

    Raises:
        RunError: not a saved folder, from a newer version, or with content that does not belong there.
    """
    from unseen.recognizer.schema import SavedModel, Version

    where = folder / FACTS
    values = read_json(where, RunError, "pass a folder written by `unseen save`")
    if (version := checked(Version, values, where, error=RunError, hint=AGAIN).format) > FORMAT:
        raise RunError(
            f"format {version} of a newer unseen version", where=where, hint="run pip install --upgrade unseen"
        )
    facts = checked(SavedModel, values, where, error=RunError, hint=AGAIN)
    references = folder / REFERENCES
    return Parts(
        folder,
        _spec(values["backbone"], folder),
        folder / WEIGHTS,
        references if references.is_file() else None,
        facts.method,
        checked_settings(facts.method, facts.settings, where),
        facts.vector_length,
        facts.gamma,
        facts.temperature,
        facts.threshold,
        {rank: RankThreshold(one.asked, one.coarser) for rank, one in facts.rank_thresholds.items()},
        facts.store_dtype,
        facts.about,
        read_encoding(folder),
        None if facts.typical is None else np.array(facts.typical, dtype=np.float64),
        folder / REDUCTION if facts.reduce is not None else None,
        facts.tables,
        space if (space := folder / SPACE).is_file() else None,
    )


def _spec(values: Mapping[str, Any], folder: Path) -> BackboneSpec:
    """Backbone of a saved folder: a name to download, or weights in that folder; never a file elsewhere."""
    spec = BackboneSpec.from_json(values, f"{folder / FACTS}, backbone", AGAIN)
    if spec.tower == TOWER:
        return replace(spec, name=PREFIX + str(folder / TOWER))
    return replace(spec, weights=str(folder / BACKBONE)) if spec.weights == BACKBONE else spec
