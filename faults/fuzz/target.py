"""What is fuzzed: a target makes broken inputs and passes them to the product, in process.

The generators draw from a plain ``random.Random`` instead of Hypothesis, for three reasons. A case is identified by
target, seed and number alone, so any case can be repeated by itself, in any order, on any machine and with any version
of Hypothesis; ``@reproduce_failure`` needs the same version, and ``@seed`` needs all cases before it. Every case runs
in its own forked process with limits, so shrinking would fork for each attempt. And most cases draw more bytes (noise
images, workbooks) than a Hypothesis example may. Property tests of single functions use Hypothesis, see ``tests/``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Literal


@dataclass
class Case:
    """One input.

    Args:
        said: what was made and how it was spoilt, a line.
        names: a refusal must hold one of these (file names, as a rule); none: it need not name anything.
        must: what has to come of it, where that is known.
        data: what `run` needs; the files lie in the case's folder.
    """

    said: str
    names: tuple[str, ...] = ()
    must: Literal["accepted", "refused"] | None = None
    data: Any = None


class WrongResultError(Exception):
    """The product accepted an input but misread it."""


class Target:
    """A kind of input. A case is a function of target, seed and number: all randomness comes from `rng`.

    Every case is made and run in its own process, forked after `warm`. It may write only into its folder, start no
    process, open no connection, and run nothing from a file (see :mod:`faults.fuzz.runner`).
    """

    name: ClassVar[str]
    weight: ClassVar[float] = 1.0
    """Share of the campaign's cases, relative to the weights of other targets."""
    seconds: ClassVar[float] = 10.0
    """Time limit of a case in seconds."""
    megabytes: ClassVar[float] = 512.0
    """Memory limit of a case above the warm process, in MB."""

    def warm(self, folder: Path) -> None:
        """Import what a case needs and write shared files into `folder`; start no thread."""

    def make(self, rng: Random, folder: Path) -> Case:
        """Write an input into the empty `folder`."""
        raise NotImplementedError

    def run(self, case: Case, folder: Path) -> None:
        """Pass it to the product; return if it was accepted and handled correctly.

        Raises:
            UnseenError: refused.
            WrongResultError: accepted, but misread.
            Exception: anything else is a failure.
        """
        raise NotImplementedError
