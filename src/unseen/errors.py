"""Errors that a user can fix."""

_LONGEST = 500
"""Largest number of characters of each of the three parts; a damaged file could make them as long as itself."""
_JOINERS = "\u200c\u200d"
"""Joining characters that occur inside words, in Persian for instance."""


class UnseenError(Exception):
    """A user error: one line with the place, the problem and a hint.

    The command line prints it without a traceback and exits with status 2.

    Args:
        problem: what is wrong.
        where: the file, row, column or option at fault.
        hint: how to fix it.
    """

    def __init__(self, problem: str, *, where: object = None, hint: str | None = None) -> None:
        self.problem = problem
        self.where = None if where is None else str(where)
        self.hint = hint
        where_text = "" if self.where is None else f"{_readable(self.where)}: "
        super().__init__(where_text + _readable(problem) + ("" if hint is None else f" — {_readable(hint)}"))


def _readable(text: str) -> str:
    """A part of the line without control characters, which a terminal might obey, and with limited length."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    line = " ".join(text.splitlines())
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() or c in _JOINERS else c.encode("unicode_escape").decode() for c in line)


class DataError(UnseenError):
    """An inconsistent table, split or image."""


class StoreError(UnseenError):
    """A region store that is damaged, unfinished or for something else."""


class RunError(UnseenError):
    """A run folder that is missing, unfinished or damaged."""
