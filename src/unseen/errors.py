"""The errors that a person can mend, and nothing else."""


class UnseenError(Exception):
    """A mistake in what the user gave: one line that names the place and the mend.

    The command line prints it without a traceback and exits with status 2.

    Args:
        problem: what is wrong.
        where: the file, row, column or option at fault.
        mend: what to do about it.
    """

    def __init__(self, problem: str, *, where: object = None, mend: str | None = None) -> None:
        self.problem = problem
        self.where = None if where is None else str(where)
        self.mend = mend
        text = problem if self.where is None else f"{self.where}: {problem}"
        super().__init__(" ".join((text if mend is None else f"{text} — {mend}").splitlines()))


class DataError(UnseenError):
    """A table, split or picture that does not hold together."""


class StoreError(UnseenError):
    """A region store that is damaged, unfinished or of something else."""


class RunError(UnseenError):
    """A run folder that is missing, unfinished or damaged."""
