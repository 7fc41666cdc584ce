"""Words for yes and no in cells, in several languages, casefolded."""

from __future__ import annotations

from collections.abc import Iterable

from unseen.classes.spreadsheets.numbers import DASHES

FOREIGN_YES = {"ja", "j", "wahr", "oui", "o", "vrai", "sí", "si", "sì", "sim"}
FOREIGN_NO = {"nein", "falsch", "non", "faux", "não", "nee", "nej", "nei"}
FOREIGN_PRESENT = {
    *("vorhanden", "anwesend", "présent", "présente", "présents", "présentes", "presente", "presentes", "presenti"),
}
FOREIGN_ABSENT = {
    *("nicht vorhanden", "abwesend", "fehlend", "fehlt", "absente", "absents", "absentes"),
    *("ausente", "ausentes", "assente", "assenti"),
}
YES_WORDS = {"yes", "y", "true", "present", "x", "✓", "✔", "☑", "+", "1", "1.0", *FOREIGN_YES, *FOREIGN_PRESENT}
NO_WORDS = {"no", "n", "false", "absent", "✗", "✘", "☐", *DASHES, "0", "0.0", *FOREIGN_NO, *FOREIGN_ABSENT}
PLAIN_FLAGS = {"yes", "no", "y", "n", "true", "false", "ja", "nein", "wahr", "falsch", "oui", "non", "vrai", "faux"}
PAIRS = [
    *(("t", "f"), ("v", "f"), ("w", "f"), ("p", "a"), ("on", "off"), ("an", "aus"), ("with", "without")),
    *(("mit", "ohne"), ("avec", "sans"), ("con", "sin"), ("con", "senza"), ("com", "sem"), ("met", "zonder")),
]
"""Words that mean yes and no only side by side."""
MARKS = {"x", "✓", "✔", "☑", "+"}


def dash_means_no(cells: Iterable[str]) -> bool:
    """Whether a dash in a column means no: among marks, or beside a single word for yes."""
    words = {cell.strip().casefold() for cell in cells} - {""}
    return not words.isdisjoint(MARKS) or (len(words - DASHES) == 1 and words - DASHES <= YES_WORDS)


def pair_of(cells: Iterable[str]) -> tuple[str, ...]:
    """The words for no and yes if a column holds nothing but such a pair; else empty."""
    words = {cell.strip().casefold() for cell in cells}
    return next(((no, yes) for yes, no in PAIRS if words == {yes, no}), ())
