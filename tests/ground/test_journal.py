"""A journal gives back what was written, whatever a crash or a bit flip left of it."""

from __future__ import annotations

import pytest

from unseen.ground.journal import Journal, intact_records, journal_line, journal_record

RECORDS = [{"chunk": i, "text": "ä\n" * i} for i in range(5)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append(*RECORDS[:3])
        journal.append(*RECORDS[3:])
    return path


def read(path):
    with Journal(path) as journal:
        return [record for record, _ in journal.records()]


def test_what_was_written_is_read(path):
    assert read(path) == list(intact_records(path)) == RECORDS
    assert path.read_bytes() == b"".join(map(journal_line, RECORDS))


def test_cut_anywhere_the_whole_lines_remain_and_work_goes_on(path):
    text = path.read_bytes()
    for end in range(len(text) + 1):
        path.write_bytes(text[:end])
        whole = text[:end].count(b"\n")
        assert read(path) == RECORDS[:whole]
        with Journal(path) as journal:
            journal.append({"chunk": 9})
        kept = whole + (text[end : end + 1] == b"\n")  # of a line that lacks its end alone nothing is lost
        assert list(intact_records(path)) == [*RECORDS[:kept], {"chunk": 9}]


def test_no_changed_byte_is_believed(path):
    text = path.read_bytes()
    for position in range(len(text)):
        path.write_bytes(text[:position] + bytes([text[position] ^ 1]) + text[position + 1 :])
        line = text[:position].count(b"\n")
        assert read(path) == RECORDS[:line]
        found = list(intact_records(path))
        assert all(record in RECORDS for record in found)
        assert len(found) >= len(RECORDS) - 2  # a line end that is gone joins two lines


def test_what_comes_after_a_position_is_forgotten(path):
    with Journal(path) as journal:
        end = [end for _, end in journal.records()][1]
        journal.cut(end)
        journal.append({"chunk": 7})
    assert read(path) == [*RECORDS[:2], {"chunk": 7}]


@pytest.mark.parametrize("line", [b"", b"\n", b"{}\n", b"00000000 {}\n", b"a3a6bf43 {}", b"A3A6BF43 {}\n"])
def test_a_line_without_its_checksum_is_none(line):
    with pytest.raises(ValueError, match="checksum"):
        journal_record(line)
