"""A class table drafted by a stand-in server: what is sent, what is refused, and that every cell is marked."""

from __future__ import annotations

import http.server
import json
import sys
import threading

import pandas as pd
import pytest

from unseen import cli
from unseen.data.checks import check_folder
from unseen.data.describing import Attribute, Endpoint, describe, parse_attributes
from unseen.errors import DataError, UnseenError

NAMES = [f"bird {i}" for i in range(10)]
COLUMNS = [{"name": "crest", "kind": "yes/no"}, {"name": "crown", "kind": "words", "values": ["red", "black"]}]
COLUMNS += [{"name": "length cm", "kind": "number"}]


def row(name):
    i = int(name.split()[1])
    return {
        "crest": bool(i % 2),
        "crown": ["Red", "black"] if i % 3 else "black",
        "length cm": None if i == 4 else 10 + i,
    }


class StandIn(http.server.BaseHTTPRequestHandler):
    """Answers as a chat endpoint does; ``server.wrong`` answers come first."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, dict(self.headers), body))
        if self.server.status != 200:
            self.send_response(self.server.status)
            self.end_headers()
            self.wfile.write(b'{"error": {"message": "Incorrect API key"}}')
            return
        text = body["messages"][1]["content"]
        names = [n for n in NAMES if n in text.splitlines()]
        answer = {"attributes": COLUMNS} if "Propose" in text else {"classes": {n: row(n) for n in names}}
        content = self.server.wrong.pop(0) if self.server.wrong else f"```json\n{json.dumps(answer)}\n```"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(
            json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]}).encode()
        )

    def log_message(self, *about):
        pass


@pytest.fixture
def server():
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    found.asked, found.wrong, found.status = [], [], 200
    found.url = f"http://127.0.0.1:{found.server_port}/v1"
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


def test_a_draft(server, tmp_path):
    table, marks = describe(
        NAMES, tmp_path / "classes.csv", Endpoint(server.url, "small", "secret"), about="birds", count=3
    )
    assert [path for path, _, _ in server.asked] == ["/v1/chat/completions"] * 3  # columns, then 8 and 2 classes
    assert all(headers["Authorization"] == "Bearer secret" for _, headers, _ in server.asked)
    assert all(body["model"] == "small" and body["temperature"] == 0 for *_, body in server.asked)
    frame = pd.read_csv(table, dtype=str, keep_default_na=False)
    assert frame.iloc[0].tolist() == ["bird 0", "no", "black", "10"]
    assert frame.iloc[1].tolist() == ["bird 1", "yes", "red; black", "11"]
    assert frame.iloc[4]["length cm"] == ""
    told = pd.read_csv(marks, dtype=str, keep_default_na=False)
    assert len(told) == 30
    assert set(told["provenance"]) == {"drafted"}
    assert set(told["model"]) == {"small"}
    assert set(told["checked"]) == {""}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["classes.csv", "provenance.csv"]
    with pytest.raises(DataError, match=r"classes\.csv: already exists"):
        describe(NAMES, table, Endpoint(server.url, "small"))


def test_check_counts_what_nobody_has_checked(server, tmp_path):
    table, marks = describe(NAMES, tmp_path / "classes.csv", Endpoint(server.url, "small"))

    def warned():
        return [f.what for f in check_folder(tmp_path).of("warning") if f.kind == "cells that nobody has checked"]

    assert warned() == ["30 cells were drafted by a program and not checked by anybody, first bird 0, crest"]
    told = pd.read_csv(marks, dtype=str, keep_default_na=False)
    told.loc[told["class"] != "bird 3", "checked"] = "yes"
    told.to_csv(marks, index=False)
    table.write_text(table.read_text().replace("bird 3,yes,black,13", "bird 3,no,red,13"))
    assert warned() == ["1 cell was drafted by a program and not checked by anybody, first bird 3, length cm"]


def test_a_wrong_answer_is_asked_for_again_once(server, tmp_path):
    server.wrong = ["no JSON at all"]
    describe(NAMES, tmp_path / "classes.csv", Endpoint(server.url, "small"))
    again = server.asked[1][2]["messages"]
    assert again[2] == {"role": "assistant", "content": "no JSON at all"}
    assert "cannot be used" in again[3]["content"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("[]", "the answer"),
        ('{"classes": {"bird 0": {}}}', 'no class "bird 1"'),
        (json.dumps({"classes": {n: {"crown": "green"} for n in NAMES}}), '"green" is not one of red, black'),
        (json.dumps({"classes": {n: {"crest": "maybe"} for n in NAMES}}), "is not true or false"),
        (json.dumps({"classes": {n: {"size": "big"} for n in NAMES}}), "'big' is not a number"),
    ],
)
def test_two_wrong_answers_end_it_and_a_repetition_resumes(answer, text, server, tmp_path):
    columns = parse_attributes("crest: yes/no; crown: red, black\nsize: number")
    server.wrong = [answer] * 2
    with pytest.raises(DataError, match=text):
        describe(NAMES[:8], tmp_path / "classes.csv", Endpoint(server.url, "small"), attributes=columns)
    assert not (tmp_path / "classes.csv").exists()
    with pytest.raises(DataError, match="or another model"):
        describe(NAMES[:8], tmp_path / "classes.csv", Endpoint(server.url, "other"), attributes=columns)
    describe(NAMES[:8], tmp_path / "classes.csv", Endpoint(server.url, "small"), attributes=columns)


def test_answers_are_not_asked_for_twice(server, tmp_path):
    def stop(what, done, total, note=""):
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        describe(NAMES, tmp_path / "classes.csv", Endpoint(server.url, "small"), progress=stop)
    assert len(server.asked) == 2
    describe(NAMES, tmp_path / "classes.csv", Endpoint(server.url, "small"))
    assert len(server.asked) == 3


def test_an_endpoint_that_refuses(server, tmp_path):
    server.status = 401
    with pytest.raises(UnseenError, match=r"401: .*Incorrect API key.* — set the variable"):
        describe(NAMES, tmp_path / "classes.csv", Endpoint(server.url, "small"))
    with pytest.raises(UnseenError, match="no answer"):
        describe(NAMES, tmp_path / "classes.csv", Endpoint("http://127.0.0.1:9/v1", "small"))
    for url, model, key, text in (
        ("localhost:11434", "m", "", "not an endpoint address"),
        ("http://localhost:1/v1", "", "", "no model"),
        ("http://example.org/v1", "m", "k", "a key over plain http"),
    ):
        with pytest.raises(UnseenError, match=text):
            Endpoint(url, model, key)


def test_attributes_as_a_person_writes_them():
    assert parse_attributes("crest: yes/no; crown: red, black\nsize: number\nshape") == [
        Attribute("crest", "yes/no"), Attribute("crown", "words", ("red", "black")), Attribute("size", "number"),
        Attribute("shape"),
    ]  # fmt: skip
    for text, wrong in (("", "no attributes"), ("a; A: red", '"A" appears twice')):
        with pytest.raises(DataError, match=wrong):
            parse_attributes(text)


def test_the_command_sends_nothing_without_the_option(server, tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["unseen", "describe", *map(str, arguments)])
        cli.main()
        return capsys.readouterr()

    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    (tmp_path / "birds.txt").write_text("\n".join(NAMES))
    said = run(tmp_path / "birds.txt")
    assert "Propose 20 visual attributes" in said.out
    assert "nothing was sent; with --endpoint URL, this takes 3 requests" in said.err
    assert (server.asked, [p.name for p in tmp_path.iterdir()]) == ([], ["birds.txt"])
    said = run(tmp_path / "birds.txt", "--endpoint", server.url, "--model", "small", "--attributes", "crest: yes/no")
    assert len(server.asked) == 2
    assert f"wrote {tmp_path / 'classes.csv'}" in said.out
