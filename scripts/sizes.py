"""Size of the installed core, and what each extra adds, as the page on installing states them.

Run it in an environment that holds everything: ``python scripts/sizes.py``.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

CUDA = re.compile(r"nvidia|cuda|triton")


def needed(name: str, extra: str = "", found: set[tuple[str, str]] | None = None) -> set[str]:
    """Names of a package and all that it needs with an extra; those that are not installed are left out."""
    found = set() if found is None else found
    key = (re.sub(r"[-_.]+", "-", name).lower(), extra)
    if key not in found:
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:
            return {n for n, _ in found}
        found.add(key)
        for text in requires:
            one = Requirement(text)
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                for more in one.extras or {""}:
                    needed(one.name, more, found)
                needed(one.name, "", found)
    return {n for n, _ in found}


def megabytes(names: set[str]) -> float:
    """Of their files on disk."""
    files = {file.locate() for name in names for file in distribution(name).files or ()}
    return sum(Path(str(file)).stat().st_size for file in files if Path(str(file)).is_file()) / 1e6


def main() -> None:
    """Print a line for the core and for each extra; one that is not installed adds nothing."""
    core = needed("unseen") - {"unseen"}
    cuda = {name for name in core if CUDA.search(name)}
    print(f"core: {len(core)} packages, {megabytes(core):,.0f} MB")
    print(f"core without CUDA and Triton: {len(core - cuda)} packages, {megabytes(core - cuda):,.0f} MB")
    for extra in sorted(distribution("unseen").metadata.get_all("Provides-Extra") or ()):
        added = needed("unseen", extra) - core - {"unseen"}
        print(f"{extra} adds: {len(added)} packages, {megabytes(added):,.0f} MB")


if __name__ == "__main__":
    main()
