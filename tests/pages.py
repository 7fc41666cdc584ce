"""Reading an HTML page as a strict reader would: nesting, text by section, tables, and what makes a page sound."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "br", "hr", "input", "link"}
SILENT = {"script", "style", "title", "desc"}


@dataclass
class Section:
    heading: str = ""
    text: str = ""
    tables: list[list[list[str]]] = field(default_factory=list)
    images: int = 0


class Page(HTMLParser):
    """A parsed page; ``sections`` by id."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.raw = path.read_text(encoding="utf-8")
        self.open: list[tuple[str, dict]] = []
        self.sections: dict[str, Section] = {}
        self.tags: list[tuple[str, dict]] = []
        self.ids: list[str] = []
        self.headings: list[int] = []
        self.faults: list[str] = []
        self.feed(self.raw)
        self.close()
        if self.open:
            self.faults.append(f"left open: {[tag for tag, _ in self.open]}")

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        if len(set(names)) < len(names):
            self.faults.append(f"<{tag}> has an attribute twice")
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "section":
            self.sections[attributes["id"]] = Section()
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        inside = self.section
        if inside is not None:
            inside.images += tag == "img"
            if tag == "table":
                inside.tables.append([])
            elif tag == "tr":
                inside.tables[-1].append([])
            elif tag in ("td", "th"):
                inside.tables[-1][-1].append("")
        if tag in ("p", "h1", "h2", "h3", "h4") and any(open_tag == "p" for open_tag, _ in self.open):
            self.faults.append(f"<{tag}> inside <p>")
        if tag not in VOID:
            self.open.append((tag, attributes))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open[-1][0] != tag:
            self.faults.append(f"</{tag}> at line {self.getpos()[0]}, open: {[t for t, _ in self.open[-3:]]}")
            return
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1][0] in SILENT:
            return
        inside = self.section
        if inside is None:
            return
        inside.text += data
        kinds = [tag for tag, _ in self.open]
        if "h2" in kinds:
            inside.heading += data
        if "td" in kinds or "th" in kinds:
            inside.tables[-1][-1][-1] += data

    @property
    def section(self) -> Section | None:
        found = [a["id"] for tag, a in self.open if tag == "section"]
        return self.sections[found[-1]] if found else None

    def words(self, section: str) -> str:
        """A section's text with single spaces."""
        return " ".join(self.sections[section].text.split())

    def rows(self, section: str, table: int = 0) -> list[dict[str, str]]:
        """A table's rows by column heading."""
        head, *body = [[" ".join(c.split()) for c in row] for row in self.sections[section].tables[table]]
        return [dict(zip(head, row, strict=True)) for row in body]


def sound(path: Path) -> Page:
    """Read a page, and assert what holds of every page."""
    page = Page(path)
    assert not page.faults, page.faults
    assert len(set(page.ids)) == len(page.ids)
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(page.headings, page.headings[1:], strict=False)), page.headings
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "form")
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/jpeg;base64,", "#")), value
            if value is not None and value.startswith("#"):
                assert value[1:] in page.ids, value
        assert not any(name.startswith("on") for name in attributes)
        if tag == "img":
            assert "alt" in attributes
        if tag == "th":
            assert attributes.get("scope") in ("row", "col")
        for name in ("aria-labelledby", "aria-describedby"):
            assert all(i in page.ids for i in attributes.get(name, "").split())
    for name, section in page.sections.items():
        assert section.heading.strip(), name
        assert len(page.words(name)) > len(section.heading) + 20, f"{name} is empty"
        visible = page.words(name) if name not in ("repeat",) else page.words(name).split("Configuration as JSON")[0]
        assert not re.search(r"\b(None|nan|NaN|inf|undefined|Undefined)\b", visible), (name, visible)
    return page
