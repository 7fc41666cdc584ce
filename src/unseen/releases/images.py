"""Match a release's image names with the images of a folder, by name instead of number."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from unseen.errors import DataError
from unseen.ground.image_files import LeftOut, image_files


@dataclass(frozen=True)
class Images:
    """The images below a folder.

    Args:
        folder: the folder.
        files: their relative paths, with ``/``, sorted.
        left_out: one line for each reason why other files are not images.
    """

    folder: Path
    files: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    @classmethod
    def below(cls, folder: Path) -> Images:
        """List a folder; skips hidden files."""
        left = LeftOut()

        def below(file: str) -> str:
            return Path(file).relative_to(folder).as_posix()

        files = sorted(below(file) for file in image_files(folder, lambda file, why: left(below(file), why)))
        return cls(folder, tuple(files), tuple(f"{folder}: {line}" for line in left.lines()))

    def find(self, wanted: Sequence[str], hint: str, shared: bool = False) -> tuple[str, ...]:
        """Image of each path in a list with other folders: by file name and as many folders as needed.

        Args:
            wanted: the paths, with ``/``.
            hint: fix if some are missing.
            shared: whether several paths may name one image.

        Raises:
            DataError: images are missing, named twice, or ambiguous.
        """
        by_name: dict[str, list[str]] = defaultdict(list)
        for file in self.files:
            by_name[file.rsplit("/", 1)[-1]].append(file)
        found, missing = [], []
        for path in wanted:
            candidates = by_name.get(path.rsplit("/", 1)[-1], [])
            if len(candidates) > 1:
                candidates = _nearest(path, candidates)
            if len(candidates) > 1:
                problem = f'"{path}" may be {candidates[0]} or {candidates[1]}'
                raise DataError(problem, where=self.folder, hint="keep one copy of the images in this folder")
            if candidates:
                found.append(candidates[0])
            else:
                missing.append(path)
        if missing:
            tail = "/".join(missing[0].split("/")[-2:])
            problem = f'{len(missing):,} of {len(wanted):,} images are missing, the first "{tail}"'
            raise DataError(problem, where=self.folder, hint=hint)
        if not shared:
            twice = [file for file, times in Counter(found).items() if times > 1]
            if twice:
                problem = f'"{twice[0]}" appears {Counter(found)[twice[0]]} times'
                raise DataError(problem, where=self.folder, hint="use res101.mat of the release")
        return tuple(found)

    def extra(self, used: Sequence[str]) -> list[str]:
        """Images that a list does not name."""
        known = set(used)
        return [file for file in self.files if file not in known]


def _nearest(path: str, candidates: list[str]) -> list[str]:
    """Candidates that share most folders with a path, counted from the file name."""

    def common(candidate: str) -> int:
        count = 0
        for mine, theirs in zip(reversed(path.split("/")), reversed(candidate.split("/")), strict=False):
            if mine != theirs:
                break
            count += 1
        return count

    best = max(map(common, candidates))
    return [c for c in candidates if common(c) == best]


def check_classes(
    files: Sequence[str], classes: Sequence[str], class_of: Callable[[PurePosixPath], str], where: Path, hint: str
) -> None:
    """Check that the class in an image's path is that of its label.

    Args:
        files: image paths.
        classes: class name of each label.
        class_of: class that a path names.
        where: file with the labels.
        hint: fix if they differ.

    Raises:
        DataError: they differ; one line with the first difference and their number.
    """
    wrong = [i for i, file in enumerate(files) if class_of(PurePosixPath(file)) != classes[i]]
    if wrong:
        i = wrong[0]
        problem = f'{len(wrong):,} labels differ from the class of the image: "{files[i]}" is labeled "{classes[i]}"'
        raise DataError(problem, where=where, hint=hint)
