"""Class tables in the field's own form: ``att_splits.mat`` of the Proposed Split (Xian et al., TPAMI 2019)."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from unseen.classes import Attributes, ClassTable
from unseen.errors import DataError

MEND = "download it again from the data's own page"


def read_class_table(path: Path, seen: Collection[str]) -> ClassTable:
    """The classes of an ``att_splits.mat``, in its order.

    Classes are named by ``allclasses_names`` and, where that is not given (Oxford Flowers), by their number from 1.
    Columns have no names there, so that attributes are called by their number too: ``0001``, ``0002``, ...
    Values are ``original_att`` where the file has it, else ``att`` (the same in columns of unit length).

    Args:
        path: MATLAB 5 file.
        seen: names of the classes that have training pictures.

    Raises:
        DataError: not such a file, or a name in ``seen`` that it has not.
    """
    content = _load(path)
    values = content.get("original_att", content.get("att"))
    if not isinstance(values, np.ndarray) or values.ndim != 2 or not values.size or values.dtype.kind not in "fiu":
        raise DataError("no K x N numbers `original_att` or `att`", where=path, mend=MEND)
    attributes, classes = values.shape
    names = tuple(str(c + 1) for c in range(classes))
    if "allclasses_names" in content:
        names = tuple(str(np.squeeze(cell).item()) for cell in content["allclasses_names"].ravel())
        if len(names) != classes:
            raise DataError(f"{len(names)} names for {classes} classes", where=path, mend=MEND)
    unknown = [name for name in seen if name not in names]
    if unknown:
        mend = f"its classes are {', '.join(names[:3])}, ..."
        raise DataError(f'class "{unknown[0]}" of images.csv is not there', where=path, mend=mend)
    columns = Attributes(tuple(f"{k + 1:04d}" for k in range(attributes)))
    try:
        return ClassTable(names, columns, values.T.astype(np.float64), np.isin(names, list(seen)))
    except DataError as error:
        raise DataError(error.problem, where=path, mend=error.mend) from None


def _load(path: Path) -> dict[str, Any]:
    import scipy.io

    try:
        content: dict[str, Any] = scipy.io.loadmat(path)
    except NotImplementedError:
        raise DataError("a MATLAB 7.3 file", where=path, mend="save it with -v7 from MATLAB or Octave") from None
    except Exception as error:  # a damaged file raises nearly anything
        raise DataError(f"not a MATLAB file ({str(error).splitlines()[0]})", where=path, mend=MEND) from None
    return content
