"""The contact sheet in a headless browser, as a file and as a served page; 5,000 images stay quick."""

# ruff: noqa: E501 - scripts for the page

from __future__ import annotations

import json

import numpy as np
import pytest

import chromium
from review_tools import NAMES, draw_images, made_up, model
from serve_tools import listening
from unseen.review import Review, Verdict, read_items, write_sheet

pytestmark = [pytest.mark.browser, pytest.mark.skipif(chromium.PATH is None, reason="no Chromium")]
MANY = 5000


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium.Chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(autouse=True)
def quiet(browser):
    browser.console.clear()
    yield
    assert browser.console == []


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    return draw_images(tmp_path / "images", 6)


@pytest.fixture
def sheet(browser, images, tmp_path):
    """A page as a file: two Rooks (0: 90%, 1: 60%), Raven (2), unknown (3), =Jay (4), and one that cannot be read."""
    answers = [("Rook", 0.9), ("Rook", 0.6), ("Raven", 0.8), (None, 0.2), ("=Jay", 0.7), "truncated"]
    folder = made_up(tmp_path / "review", answers, image=str(tmp_path / "images/{}.jpg"))
    page = write_sheet(read_items(folder / "predictions.jsonl"), NAMES, tmp_path / "sheet.html", title="<b>Birds</b>")
    browser.go(page.as_uri())
    browser.wait("document.querySelectorAll('.tile').length")
    return browser


def press(page, key, **modifiers):
    page.eval(
        f"document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {{key: {json.dumps(key)}, bubbles: true, cancelable: true, ...{json.dumps(modifiers)}}}))"
    )


def rows(page):
    return page.eval("[...document.querySelectorAll('.tile')].map(n => Number(n.dataset.row))")


def current(page):
    return page.eval("Number(document.activeElement.dataset.row)")


def selected(page):
    return page.eval("[...document.querySelectorAll('.tile[aria-selected=true]')].map(n => Number(n.dataset.row))")


def named(page, row):
    return page.eval(f"document.querySelector('#tile-{row} .name').textContent")


def state(page, row):
    return page.eval(f"document.querySelector('#tile-{row}').className")


def choose(page, control, value):
    page.eval(
        f"(() => {{ const c = document.getElementById('{control}'); c.value = {json.dumps(value)}; for (const e of ['input', 'change']) c.dispatchEvent(new Event(e)) }})()"
    )


def text(page, id):
    return page.eval(f"document.getElementById('{id}').textContent")


def test_images_stand_by_answer_most_doubtful_first(sheet):
    assert sheet.eval("[...document.querySelectorAll('h2')].slice(0, 5).map(n => n.textContent)") == [
        "unknown",
        "=Jay",
        "Raven",
        "Rook",
        "Not readable",
    ]
    assert rows(sheet) == [3, 4, 2, 1, 0, 5]
    assert sheet.eval("document.querySelector('h1').textContent") == "<b>Birds</b>"
    sheet.wait("[...document.querySelectorAll('.tile img')].every(i => i.complete && i.naturalWidth > 50)")
    choose(sheet, "order", "doubt")
    assert rows(sheet) == [5, 3, 1, 4, 2, 0]
    choose(sheet, "order", "sample")
    assert rows(sheet) == np.random.default_rng(0).permutation(6).tolist()


def test_everything_goes_by_keyboard(sheet):
    sheet.eval("document.querySelector('#tile-3').focus()")
    press(sheet, "2")  # the second best class
    assert (named(sheet, 3), state(sheet, 3)) == ("Crow, hooded", "tile changed")
    assert current(sheet) == 4
    press(sheet, "a")
    assert (state(sheet, 4), current(sheet)) == ("tile right", 2)
    press(sheet, "u")
    assert (named(sheet, 2), state(sheet, 2)) == ("unknown", "tile changed")
    press(sheet, "ArrowRight", shiftKey=True)
    assert selected(sheet) == [1, 0]
    press(sheet, "c")
    assert sheet.eval("document.activeElement.id") == "correct"
    sheet.eval("document.getElementById('correct').value = 'raven'")
    press(sheet, "Enter")
    assert [named(sheet, row) for row in (1, 0)] == ["Raven", "Raven"]
    assert text(sheet, "summary") == "6 images · 5 reviewed · 1 of them right"
    sheet.eval("document.querySelector('#tile-0').focus()")
    press(sheet, "z")
    assert [named(sheet, row) for row in (1, 0)] == ["Rook", "Rook"]
    press(sheet, "a", ctrlKey=True)
    assert sorted(selected(sheet)) == [0, 1, 2, 3, 4, 5]
    press(sheet, "Delete")
    assert text(sheet, "summary") == "6 images · 0 reviewed"
    press(sheet, "Home")
    assert current(sheet) == 3
    press(sheet, "ArrowDown")
    assert current(sheet) == 4
    press(sheet, "End")
    press(sheet, "ArrowUp")
    assert current(sheet) == 0


def click(page, row, modifiers=0):
    x, y = page.eval(
        f"(() => {{ const n = document.querySelector('#tile-{row}'); n.scrollIntoView({{block: 'center'}}); const b = n.getBoundingClientRect(); return [b.x + 20, b.y + 20] }})()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        page.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1, modifiers=modifiers)
    page.eval("new Promise(done => setTimeout(done, 20))")


def test_several_are_selected_by_mouse(sheet):
    click(sheet, 4)
    assert selected(sheet) == [4]
    click(sheet, 1, modifiers=8)  # shift
    assert selected(sheet) == [4, 2, 1]
    click(sheet, 2, modifiers=2)  # control
    assert selected(sheet) == [4, 1]
    assert text(sheet, "selected") == "2 selected"
    sheet.eval("document.getElementById('unknown').click()")
    assert [named(sheet, row) for row in (4, 2, 1)] == ["unknown", "Raven", "unknown"]
    sheet.eval("localStorage.clear()")


def test_an_image_that_cannot_be_read_is_not_accepted(sheet):
    sheet.eval("document.querySelector('#tile-5').focus()")
    press(sheet, "a")
    assert text(sheet, "summary") == "6 images · 0 reviewed"
    press(sheet, "u")
    assert text(sheet, "summary") == "6 images · 1 reviewed · 0 of them right"


def test_verdicts_of_a_file_outlast_the_page(sheet):
    sheet.eval("document.querySelector('#tile-4').focus()")
    press(sheet, "a")
    sheet.send("Page.reload")
    sheet.wait("document.querySelectorAll('.tile.right').length")
    assert state(sheet, 4) == "tile right"
    sheet.eval("localStorage.clear()")


def test_filters(sheet):
    choose(sheet, "which", "unknown")
    assert rows(sheet) == [3]
    choose(sheet, "which", "error")
    assert rows(sheet) == [5]
    choose(sheet, "which", "all")
    choose(sheet, "class", "roo")
    assert rows(sheet) == [1, 0]
    choose(sheet, "below", "70")
    assert rows(sheet) == [1]
    choose(sheet, "class", "nobody")
    assert sheet.eval("document.querySelector('.empty').textContent") == "No image matches."
    choose(sheet, "class", "")
    choose(sheet, "below", "")
    sheet.eval("document.querySelector('#tile-0').focus()")
    press(sheet, "a")
    choose(sheet, "which", "open")
    assert 0 not in rows(sheet)
    choose(sheet, "which", "done")
    assert rows(sheet) == [0]
    sheet.eval("localStorage.clear()")


def test_the_csv_of_a_file_is_the_exported_one(sheet, tmp_path):
    sheet.eval("document.querySelector('#tile-0').focus()")
    press(sheet, "a")
    sheet.eval("document.querySelector('#tile-2').focus()")
    press(sheet, "u")
    sheet.eval(
        "{ const make = URL.createObjectURL; window.saved = new Promise(done => { URL.createObjectURL = (blob) => { done(blob.text()); return make(blob) } }); 0 }"
    )
    sheet.eval("document.getElementById('save').click()")
    found = sheet.eval("window.saved")
    from unseen.review import export_review

    with Review(tmp_path / "review") as review:
        review.decide([0], Verdict("Rook"))
        review.decide([2], Verdict(None))
        wanted = export_review(review, tmp_path / "r.csv").read_text()
    assert found.replace("\r\n", "\n").replace("'=Jay", "=Jay") == wanted
    sheet.eval("localStorage.clear()")


def test_the_measured_accuracy_is_the_commands(sheet, tmp_path):
    order = np.random.default_rng(0).permutation(6).tolist()
    choose(sheet, "order", "sample")
    sheet.eval(f"document.querySelector('#tile-{order[0]}').focus()")
    for key in ("a", "u", "u"):
        press(sheet, key)
    with Review(tmp_path / "review") as review:
        answers = [review.items[row].answer for row in order[:3]]
        verdicts = [answers[0], Verdict(None), Verdict(None)]
        for row, verdict in zip(order, verdicts, strict=False):
            if verdict is not None:
                review.decide([row], verdict)
        found = review.estimated()
    assert f"a random sample of {found.reviewed}: " in text(sheet, "measured")
    assert f"interval {100 * found.low:.0f}% to {100 * found.high:.0f}%" in text(sheet, "measured").replace(".0%", "%")
    sheet.eval("localStorage.clear()")


def test_a_served_review_is_kept_on_disk_and_explained(browser, tiny_backbone, images, tmp_path):
    pytest.importorskip("fastapi", reason="needs unseen[app]")
    from unseen.review.begin import begin
    from unseen.serve.reviewing import create_review_app
    from unseen.serve.settings import Settings

    recognizer = model(tiny_backbone)
    app = create_review_app(recognizer, begin(recognizer, images, tmp_path / "r"))
    with listening(app, Settings()) as url:
        browser.go(url)
        browser.wait("document.querySelectorAll('.tile').length")
        first = rows(browser)[0]
        browser.eval(f"document.querySelector('#tile-{first}').focus()")
        press(browser, "a")
        browser.wait("!document.getElementById('undo').disabled")
        press(browser, "o")
        browser.wait("document.querySelectorAll('#reasons button').length === 3")
        browser.eval("document.querySelector('#reasons button').click()")
        browser.wait("!document.getElementById('canvas').hidden")
        assert browser.eval("document.getElementById('canvas').width") == 70
    with Review(tmp_path / "r") as review:
        assert list(review.verdicts) == [first]
        assert review.is_right(first)


def test_five_thousand_images_stay_quick(browser, images, tmp_path):
    rng = np.random.default_rng(2)
    classes = tuple(f"class {i}" for i in range(40))
    answers = [(classes[int(rng.integers(40))], float(rng.random())) for _ in range(MANY)]
    folder = made_up(tmp_path / "review", answers, classes=classes, image=str(images[0]).replace("{", ""))
    page = write_sheet(read_items(folder / "predictions.jsonl"), classes, tmp_path / "many.html")
    browser.go(page.as_uri())
    browser.wait("document.querySelectorAll('.tile').length === 5000", seconds=60)
    took = browser.eval(
        """(async () => { const frame = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
        const timed = async (work) => { const start = performance.now(); work(); await frame(); return performance.now() - start };
        document.querySelector('.tile').focus(); await frame();
        const key = (k, more) => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: k, bubbles: true, ...more}));
        const times = {accept: [], move: []};
        for (let i = 0; i < 15; i++) { times.accept.push(await timed(() => key('a'))); times.move.push(await timed(() => key('ArrowDown'))) }
        const filter = await timed(() => { const c = document.getElementById('which'); c.value = 'open'; c.dispatchEvent(new Event('change')) });
        const all = await timed(() => { key('a', {ctrlKey: true}); });
        localStorage.clear();
        const middle = (list) => list.sort((a, b) => a - b)[7];
        return {accept: middle(times.accept), move: middle(times.move), filter, all} })()"""
    )
    # far above what an idle machine takes: it fails where a step grows with the square of the images
    assert took["accept"] < 1000, took
    assert took["move"] < 1000, took
    assert took["filter"] < 10000, took
