"""Find everything wrong or doubtful in a dataset folder at once, each with its place and a hint."""

from unseen.data.checks.findings import CheckResult, Finding
from unseen.data.checks.folder import check_folder

__all__ = ["CheckResult", "Finding", "check_folder"]
