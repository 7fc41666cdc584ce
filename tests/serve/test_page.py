"""The page in a headless browser: by mouse, by keyboard, as a screen reader is told of it, and at phone width."""

# ruff: noqa: E501 - scripts for the page

from __future__ import annotations

import base64
import json
import time

import pytest

import chromium
from serve_tools import drawn, encoded, served
from unseen.recognizer.advice import separate

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium.PATH is None, reason="no Chromium"),
]
CONTROLS = {
    "button",
    "link",
    "textbox",
    "searchbox",
    "combobox",
    "slider",
    "tab",
    "checkbox",
    "img",
    "progressbar",
    "table",
}


@pytest.fixture(scope="module")
def url(recognizer):
    with served(recognizer) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium.Chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(3):
        (folder / f"{i}.png").write_bytes(encoded(drawn(i + 1)))
    (folder / "=x.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def page(browser, url):
    browser.console.clear()
    browser.go(f"{url}/?")
    browser.wait("document.querySelectorAll('#class-list li').length")
    yield browser
    assert browser.console == []


def look(page, file):
    page.choose("#file", file)
    page.wait("document.querySelectorAll('#ranking li').length")


def texts(page, selector):
    return page.eval(f"[...document.querySelectorAll({json.dumps(selector)})].map(n => n.textContent)")


def slide(page, attribute, end):
    page.eval(
        f"""(() => {{ const r = document.querySelector('input[data-attribute="{attribute}"]');
        r.value = r.{end}; r.dispatchEvent(new Event('input')); r.dispatchEvent(new Event('change')) }})()"""
    )


def test_a_image_gets_classes_reasons_and_heat_maps(page, files, recognizer):
    look(page, files / "0.png")
    expected = recognizer.predict(files / "0.png", top=5)[0].candidates
    assert texts(page, "#ranking .name span:first-child") == [c.name for c in expected]
    assert texts(page, "#ranking .chip") == ["seen" if c.seen else "unseen" for c in expected]
    assert texts(page, "#ranking .percent")[0] == f"{100 * expected[0].confidence:.0f}%"
    assert expected[0].name in page.eval("document.querySelector('#status').textContent")
    why = recognizer.explain(files / "0.png")
    strongest = max(why.reasons, key=lambda r: abs(r.evidence))
    assert texts(page, ".attribute .show span:first-child")[0] == strongest.attribute.replace("::", ": ")
    plain = page.eval("document.querySelector('#canvas').toDataURL()")
    page.eval("document.querySelector('.attribute .show').click()")
    assert page.eval("document.querySelector('#canvas').toDataURL()") != plain
    assert "heat map of" in page.eval("document.querySelector('#canvas').getAttribute('aria-label')")
    page.eval("document.querySelector('.attribute .show').click()")
    assert page.eval("document.querySelector('#canvas').toDataURL()") == plain


def test_moving_an_attribute_moves_the_ranking(page, files):
    look(page, files / "0.png")
    state = "document.querySelector('#ranking').innerHTML"
    before = page.eval(state)
    slide(page, "crown::red", "max")
    page.wait(f"{state} !== {json.dumps(before)}")
    one = page.eval(state)
    assert len(texts(page, ".undo")) == 1
    slide(page, "crown::red", "min")
    page.wait(f"{state} !== {json.dumps(one)}")
    page.eval("document.querySelector('#reset').click()")
    page.wait(f"!document.querySelector('.undo') && {state} === {json.dumps(before)}")


def test_another_class_and_rival(page, files, recognizer):
    look(page, files / "0.png")
    page.eval("[...document.querySelectorAll('#ranking button')].find(b => b.dataset.name === 'gull').click()")
    page.wait("document.querySelector('#why-title').textContent === 'Why gull'")
    page.eval(
        """(() => { const r = document.querySelector('#rival'); r.value = 'emu'; r.dispatchEvent(new Event('change'));
        const m = document.querySelector('#measure'); m.value = 'against'; m.dispatchEvent(new Event('change')) })()"""
    )
    page.wait("document.querySelector('#why-hint').textContent.includes('favor emu')")
    why = recognizer.explain(files / "0.png", target="gull", rival="emu")
    shown = dict(
        zip(texts(page, ".attribute .show span:first-child"), texts(page, ".attribute:not(.term) .number"), strict=True)
    )
    for reason in why.reasons:
        text = shown[reason.attribute.replace("::", ": ")].replace("−", "-")
        assert float(text) == pytest.approx(reason.against, abs=0.0051)


def test_bars_and_offset_add_up(page, files, recognizer):
    look(page, files / "0.png")
    why = recognizer.explain(files / "0.png")
    page.eval(
        "(() => { const m = document.querySelector('#measure'); m.value = 'evidence'; m.dispatchEvent(new Event('change')) })()"
    )
    numbers = [float(text.replace("−", "-")) for text in texts(page, ".attribute .number")]
    assert sum(numbers) == pytest.approx(why.target.score, abs=0.03)
    assert texts(page, ".term > span:first-child") == [t.name for t in why.terms if t.evidence]
    absent = texts(page, ".attribute .absent")
    shown = texts(page, ".attribute .show span:first-child")
    below = {r.attribute.replace("::", ": ") for r in why.reasons if r.score < r.typical}
    assert {name for name, text in zip(shown, absent, strict=True) if text} == below


def test_an_attribute_that_was_not_learned_has_no_reading(page, files):
    look(page, files / "0.png")
    texts_of = dict(zip(texts(page, ".attribute .show span:first-child"), texts(page, ".slide output"), strict=True))
    assert [name for name, text in texts_of.items() if text == "?"] == ["size: small"]
    slide(page, "size::small", "max")
    page.wait("document.querySelectorAll('.undo').length === 1")


def test_nearest_training_images(page, files, recognizer, tmp_path):
    expected = [n.name for n in recognizer.explain(files / "0.png").nearest]
    (tmp_path / "a class").mkdir()
    for i in range(30):
        (tmp_path / "a class" / f"{i}.png").write_bytes((files / "1.png").read_bytes())
    recognizer.about["data"] = {"images": str(tmp_path)}
    look(page, files / "0.png")
    page.wait("document.querySelectorAll('#nearest li').length === 6")
    assert texts(page, "#nearest li span") == expected
    page.wait("[...document.querySelectorAll('#nearest img')].filter(i => i.naturalWidth === 100).length === 6")


def test_what_tells_two_classes_apart(page, files, recognizer):
    look(page, files / "0.png")
    why = recognizer.explain(files / "0.png")
    page.eval("document.querySelector('#separate').click()")
    page.wait("!document.querySelector('#separation').hidden")
    told = page.eval("document.querySelector('#separation').textContent")
    advice = separate(recognizer, why.target.name, why.rival.name)
    assert (
        f"{why.target.name} and {why.rival.name} differ most in {advice.today[0].attribute.replace('::', ': ')}" in told
    )
    choose = "(() => { const r = document.querySelector('#rival'); r.selectedIndex = 3; r.dispatchEvent(new Event('change')) })()"
    page.eval(choose)  # it is about another pair then
    page.wait("document.querySelector('#separation').hidden")


def test_a_model_that_cannot_be_corrected_has_no_sliders(browser, recognizer, files):
    recognizer.references = None
    with served(recognizer) as url:
        browser.go(url)
        browser.wait("document.querySelectorAll('#class-list li').length")
        look(browser, files / "0.png")
        assert "cannot be corrected here" in browser.eval("document.querySelector('#no-corrections').textContent")
        assert browser.eval("document.querySelectorAll('.slide input').length") == 0
        assert browser.eval("document.querySelector('#nearest-card').hidden")


def test_search_finds_attributes(page, files):
    look(page, files / "0.png")
    page.eval(
        "(() => { const s = document.querySelector('#search'); s.value = 'CROWN'; s.dispatchEvent(new Event('input')) })()"
    )
    assert sorted(texts(page, ".attribute .show span:first-child")) == ["crown: blue", "crown: red"]


GIVE = """((kind, selector, names, pixels) => {
    const data = new DataTransfer();
    names.forEach((name, i) => data.items.add(new File([Uint8Array.from(atob(pixels[i]), c => c.charCodeAt(0))], name, {type: 'image/png'})));
    const event = kind === 'paste' ? new ClipboardEvent('paste', {clipboardData: data, bubbles: true})
        : new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true});
    document.querySelector(selector).dispatchEvent(event) })"""


def give(page, kind, selector, files, *names):
    """Drop or paste files."""
    pixels = [base64.b64encode((files / name).read_bytes()).decode() for name in names]
    page.eval(f"{GIVE}({json.dumps(kind)}, {json.dumps(selector)}, {json.dumps(names)}, {json.dumps(pixels)})")


def test_images_are_dropped_on_a_class(page, files, recognizer):
    look(page, files / "0.png")
    before = page.eval("document.querySelector('#ranking').innerHTML")
    page.eval("document.querySelector('#tab-classes').click()")
    gull = '#class-list li[data-name="gull"]'
    told = f"document.querySelector('{gull} .done')?.textContent"
    give(page, "drop", gull, files, "0.png", "1.png", "=x.png")
    page.wait(told)
    assert page.eval(told) == "2 images added. Scores of gull now use 2 images (67%) and its attributes (33%). Undo"
    assert texts(page, f"{gull} .note") == [
        "=x.png: not an image. To fix it: send a JPEG, PNG, WebP, TIFF or another image file."
    ]
    assert "Scores of gull now use 2 images" in page.eval("document.querySelector('#status').textContent")
    thumbs = f"[...document.querySelectorAll('{gull} .thumbs img')].filter(i => i.naturalWidth === 100).length"
    page.wait(f"{thumbs} === 2")
    page.wait(f"document.querySelector('#ranking').innerHTML !== {json.dumps(before)}")  # the image is ranked again
    give(page, "paste", "body", files, "2.png")  # on the class that is open
    page.wait(f"{told}?.includes('now use 3 images (75%)')")
    page.wait(f"{thumbs} === 3")
    page.eval(f"document.querySelector('{gull} .done button').click()")
    page.wait(f"{told}?.startsWith('1 image removed')")
    page.wait(f"{thumbs} === 2")
    page.eval(f"document.querySelector('{gull} .thumbs button').click()")
    page.wait(f"{thumbs} === 1")
    assert [i.file for i in recognizer.support["gull"].images] == ["1.png"]
    assert "1 image" in texts(page, f"{gull} .chip")
    page.eval(f"document.querySelector('{gull} .thumbs button').click()")
    page.wait(f"{told}?.endsWith('now use its attributes alone.')")
    page.wait(f"document.querySelector('#ranking').innerHTML === {json.dumps(before)}")


def test_images_come_from_the_camera(page, recognizer):
    page.eval("document.querySelector('#camera-look').click()")
    page.wait("document.querySelector('#video').videoWidth")
    page.eval("document.querySelector('#camera-take').click()")
    page.wait("document.querySelector('#caption').textContent.startsWith('camera-')")
    assert page.eval("document.querySelector('#video').srcObject === null")  # it is off again
    page.eval("document.querySelector('#tab-classes').click()")
    gull = '#class-list li[data-name="gull"]'
    page.eval(f"document.querySelector('{gull} [aria-expanded]').click()")
    page.eval(f"document.querySelector('{gull} .own-images > button').click()")
    page.wait("document.querySelector('#video').videoWidth")
    for n in ("1 image", "2 images"):
        page.eval("document.querySelector('#camera-take').click()")
        page.wait(f"document.querySelector('#camera-said').textContent === '{n} taken.'")
    page.eval("document.querySelector('#camera-done').click()")
    page.wait(f"document.querySelector('{gull} .done')")
    taken = len(recognizer.support["gull"].images)
    assert 1 <= taken <= 2  # frames may be equal
    page.wait(f"[...document.querySelectorAll('{gull} .thumbs img')].filter(i => i.naturalWidth).length === {taken}")


def test_a_class_is_added_by_images_alone(page, files, recognizer):
    page.eval("document.querySelector('#tab-classes').click()")
    give(page, "drop", "#add-drop", files, "0.png")
    give(page, "paste", "body", files, "1.png", "=x.png")
    assert "3 images: 0.png, 1.png, =x.png" in page.eval("document.querySelector('#add-chosen').textContent")
    page.eval("document.querySelector('#add-name').value = 'spoonbill'; document.querySelector('#add').requestSubmit()")
    page.wait("document.querySelector('#added .done')")
    assert page.eval("document.querySelector('#added .done').textContent").startswith(
        "spoonbill is added. Its scores use 2 images, no attributes."
    )
    assert "=x.png: not an image" in page.eval("document.querySelector('#added .note').textContent")
    assert not recognizer.support["spoonbill"].attributes
    page.eval("fetch('/api/classes/spoonbill', {method: 'DELETE'})")


def test_a_class_is_added_with_attributes_and_images(page, files, recognizer):
    page.eval("document.querySelector('#tab-classes').click()")
    page.choose("#add-files", files / "0.png")
    page.eval("document.querySelector('#add-name').value = 'wren'")
    set_number(page, "crown::red", "0.5")
    page.eval("document.querySelector('#add').requestSubmit()")
    page.wait("document.querySelector('#added .done')")
    assert "Its scores use 1 image (50%) and its attributes (50%)." in page.eval(
        "document.querySelector('#added .done').textContent"
    )
    assert page.eval("document.querySelector('#add-chosen').hidden")
    page.eval("fetch('/api/classes/wren', {method: 'DELETE'})")


class Held:
    """Requests whose address matches a pattern wait until they are let go."""

    def __init__(self, page, pattern):
        self.page, self.pattern = page, pattern

    def __enter__(self):
        self.page.events.clear()
        self.page.send("Fetch.enable", patterns=[{"urlPattern": self.pattern}])
        return self

    def __exit__(self, *_):
        self.page.send("Fetch.disable")

    def wait(self, count, seconds=30):
        """The first ``count`` requests, by number."""
        end = time.monotonic() + seconds
        while True:
            self.page.eval("0")  # reads events
            found = [e["params"]["requestId"] for e in self.page.events if e["method"] == "Fetch.requestPaused"]
            if len(found) >= count:
                return found
            assert time.monotonic() < end
            time.sleep(0.05)

    def go(self, request):
        self.page.send("Fetch.continueRequest", requestId=request)

    def fail(self, request):
        self.page.send("Fetch.failRequest", requestId=request, errorReason="ConnectionFailed")


def set_select(page, name, value):
    page.eval(
        f"(() => {{ const s = document.querySelector('#{name}'); s.value = {json.dumps(value)}; s.dispatchEvent(new Event('change')) }})()"
    )


def test_images_chosen_while_the_page_loads_are_answered(browser, url, files):
    browser.console.clear()
    with Held(browser, "*/api/about") as about:
        browser.go(f"{url}/?early")
        (request,) = about.wait(1)
        browser.wait("document.readyState === 'complete'")
        browser.choose("#file", files / "0.png")
        browser.choose("#files", files / "0.png", files / "1.png")
        browser.eval("document.querySelector('#add-search').dispatchEvent(new Event('input'))")
        browser.choose("#add-files", files / "2.png")
        browser.eval(
            "document.querySelector('#add-name').value = 'early'; document.querySelector('#add').requestSubmit()"
        )
        browser.eval("new Promise((done) => setTimeout(done, 200))")
        about.go(request)
        browser.send("Fetch.disable")
        browser.wait("document.querySelectorAll('#ranking li').length")
        browser.wait("document.querySelectorAll('#batch-table tbody tr').length === 2")
        browser.wait("document.querySelector('#batch-stop').disabled && document.querySelector('#added .done')")
    browser.eval("fetch('/api/classes/early', {method: 'DELETE'})")
    assert browser.console == []


def test_the_image_chosen_last_is_shown(page, files):
    with Held(page, "*/api/explain") as explain:
        page.choose("#file", files / "0.png")
        explain.wait(1)
        page.choose("#file", files / "1.png")
        first, second = explain.wait(2)
        explain.go(second)
        page.wait("document.querySelector('#caption').textContent === '1.png'")
        explain.go(first)
        page.eval("new Promise((done) => setTimeout(done, 500))")
    assert page.eval("document.querySelector('#caption').textContent") == "1.png"
    assert not page.eval("document.querySelector('#answer-card').classList.contains('busy')")


def test_a_screen_reader_hears_the_last_ranking(page, files):
    look(page, files / "0.png")
    before = page.eval("document.querySelector('#ranking').innerHTML")
    slide(page, "crown::red", "max")  # asks while it moves, and when it is let go
    page.wait(f"document.querySelector('#ranking').innerHTML !== {json.dumps(before)}")
    page.eval("new Promise((done) => setTimeout(done, 500))")
    best = texts(page, "#ranking .name span:first-child")[0]
    share = texts(page, "#ranking .percent")[0]
    assert f"{best}, {share} confidence" in page.eval("document.querySelector('#status').textContent")


def test_a_correction_outlasts_a_failed_request(page, files):
    look(page, files / "0.png")
    before = page.eval("document.querySelector('#ranking').innerHTML")
    with Held(page, "*/api/rank") as rank:
        slide(page, "crown::red", "max")  # the second request waits for the first
        (first,) = rank.wait(1)
        rank.fail(first)
        rank.go(rank.wait(2)[1])
        page.wait(f"document.querySelector('#ranking').innerHTML !== {json.dumps(before)}")
    assert page.eval("document.querySelector('#alert').hidden")
    page.console.clear()  # the browser logs the failure


def test_a_comparison_is_of_the_chosen_classes(page, files):
    look(page, files / "0.png")
    set_select(page, "measure", "against")  # the account then names the rival
    with Held(page, "*/api/separate*") as separate:
        page.eval("document.querySelector('#separate').click()")
        (request,) = separate.wait(1)
        old = page.eval("document.querySelector('#rival').value")
        set_select(page, "rival", page.eval("document.querySelector('#rival').options[3].value"))
        page.wait(f"!document.querySelector('#account').textContent.includes({json.dumps(f'over {old}.')})")
        separate.go(request)
        separate.go(separate.wait(2)[1])
        page.wait("!document.querySelector('#separation').hidden")
    now = page.eval("document.querySelector('#rival').value")
    assert now != old
    assert f" and {now} " in page.eval("document.querySelector('#separation').textContent")


def test_the_class_chosen_last_is_edited(page):
    page.eval("document.querySelector('#tab-classes').click()")
    with Held(page, "*/api/classes/*") as classes:
        for name in ("gull", "emu"):
            page.eval(f"document.querySelector('[aria-label=\"Edit {name}\"]').click()")
        first, second = classes.wait(2)
        classes.go(second)
        page.wait("document.querySelector('#add-title').textContent === 'Edit emu'")
        classes.go(first)
        page.eval("new Promise((done) => setTimeout(done, 300))")
    assert page.eval("document.querySelector('#add-title').textContent") == "Edit emu"


def test_the_camera_is_opened_once(page):
    page.eval(
        """(() => { const media = navigator.mediaDevices, get = media.getUserMedia.bind(media); window.streams = [];
        media.getUserMedia = async (o) => { const s = await get(o); window.streams.push(s); return s };
        document.querySelector('#camera-look').click(); document.querySelector('#camera-look').click() })()"""
    )
    page.wait("document.querySelector('#video').videoWidth")
    page.eval("document.querySelector('#camera-cancel').click()")
    page.wait("!document.querySelector('#camera').open")
    states = "window.streams.flatMap(s => s.getTracks().map(t => t.readyState))"
    page.wait(f"!{states}.includes('live')")
    assert page.eval(states) == ["ended"]
    page.eval("document.querySelector('#camera-look').click()")
    page.wait("document.querySelector('#camera').open && document.querySelector('#video').videoWidth")
    page.eval("document.querySelector('#camera-cancel').click()")


def test_another_image_gets_its_own_rows_while_a_slider_is_in_use(page, files):
    look(page, files / "0.png")
    slide(page, "crown::red", "max")
    page.wait("document.querySelector('.undo')")
    page.eval(
        "document.querySelector('#attributes input').focus(); window.before = document.querySelector('.attribute')"
    )
    give(page, "paste", "body", files, "1.png")
    page.wait("document.querySelector('#canvas').ariaLabel.includes('1.png')")
    assert not page.eval("window.before.isConnected")
    assert texts(page, ".undo") == []


def test_names_are_text(page, files):
    look(page, files / "0.png")
    assert "<b>d</b>" in texts(page, "#target option")
    assert page.eval("document.querySelectorAll('main b').length") == 0


def test_drop_and_paste(page, files):
    give(page, "drop", "#drop", files, "0.png")
    page.wait("document.querySelector('#caption').textContent === '0.png'")
    page.eval("document.querySelector('#tab-about').click()")
    give(page, "paste", "body", files, "1.png")
    page.wait("!document.querySelector('#image').hidden")
    page.wait("document.querySelector('#caption').textContent === '1.png'")


def test_what_is_no_image_is_said(page, files):
    page.choose("#file", files / "=x.png")
    page.wait("!document.querySelector('#alert').hidden")
    assert "not an image" in page.eval("document.querySelector('#alert').textContent")
    page.console.clear()  # the browser logs the 415
    page.eval("document.querySelector('#tab-about').click()")
    assert page.eval("document.querySelector('#alert').hidden")  # it says nothing of the other tabs


def test_the_tab_shows_what_was_changed_elsewhere(page):
    body = "JSON.stringify({name: 'tern', like: 'gull', values: {}})"
    page.eval(
        f"fetch('/api/classes', {{method: 'POST', headers: {{'content-type': 'application/json'}}, body: {body}}})"
    )
    assert "tern" not in texts(page, "#class-list .name span:first-child")
    page.eval("document.querySelector('#tab-classes').click()")
    page.wait("[...document.querySelectorAll('#class-list .name span')].some(s => s.textContent === 'tern')")
    page.eval("window.before = document.querySelector('#class-list li')")
    page.eval("document.querySelector('#tab-about').click(); document.querySelector('#tab-classes').click()")
    page.eval("fetch('/api/classes').then(() => new Promise(done => setTimeout(done, 300)))")
    assert page.eval("window.before.isConnected")  # nothing has changed: what is open stays open
    page.eval("fetch('/api/classes/tern', {method: 'DELETE'})")
    page.eval("dispatchEvent(new Event('focus'))")
    page.wait("![...document.querySelectorAll('#class-list .name span')].some(s => s.textContent === 'tern')")


def test_classes_are_added_renamed_and_removed(page, files):
    look(page, files / "0.png")
    page.eval("document.querySelector('#tab-classes').click()")
    page.eval(
        """(() => { document.querySelector('#add-name').value = 'twin';
        const like = document.querySelector('#add-like'); like.value = 'gull'; like.dispatchEvent(new Event('change')) })()"""
    )
    page.wait("[...document.querySelectorAll('#add-attributes input')].some(r => Number(r.value))")
    page.eval("document.querySelector('#add').requestSubmit()")
    page.wait("document.querySelector('#added .note')")
    assert "the model cannot separate them" in page.eval("document.querySelector('#added .note').textContent")
    page.wait("[...document.querySelectorAll('#target option')].some(o => o.value === 'twin')")
    page.eval("document.querySelector('[aria-label=\"Rename twin\"]').click()")
    page.wait("document.querySelector('#dialog').open")
    page.eval("document.querySelector('#dialog-input').value = 'other'; document.querySelector('#dialog-ok').click()")
    page.wait("document.querySelector('[aria-label=\"Remove other\"]')")
    page.eval("document.querySelector('[aria-label=\"Remove other\"]').click()")
    page.wait("document.querySelector('#dialog').open")
    page.press("Escape")
    page.wait("!document.querySelector('#dialog').open")
    assert "added classes don’t" in page.eval("document.querySelector('#dialog-text').textContent")
    assert "other" in texts(page, "#class-list .name span:first-child")
    page.go(f"{page.eval('location.origin')}/?")  # what was added stands first, and is told after a reload too
    page.wait("document.querySelector('#class-list .chip.own')")
    about = texts(page, "#class-list li:first-child .name span")
    assert about[:3] == ["other", "unseen", "added"]
    assert "in classes with images" in about[3]
    page.eval("document.querySelector('#tab-classes').click()")
    page.eval("document.querySelector('[aria-label=\"Remove other\"]').click()")
    page.eval("document.querySelector('#dialog-ok').click()")
    page.wait("!document.querySelector('[aria-label=\"Remove other\"]')")
    page.wait("document.querySelector('#model').textContent === 'tiny'")


def set_number(page, attribute, value):
    page.eval(
        f"""(() => {{ const n = document.getElementById('add-{attribute}').parentElement.querySelector('input[type=number]');
        n.value = {json.dumps(value)}; n.dispatchEvent(new Event('input')); n.dispatchEvent(new Event('blur')) }})()"""
    )


def test_what_is_not_set_is_unknown_and_values_can_be_edited(page, recognizer):
    page.eval("document.querySelector('#tab-classes').click()")
    assert page.eval("document.getElementById('add-bill::hooked').getAttribute('aria-valuetext')") == "not set"
    assert page.eval("document.getElementById('add-bill::hooked').max") == "100"  # one value lies above 1
    page.eval("document.querySelector('#add-name').value = 'wren'")
    set_number(page, "crown::red", "0.5")
    page.eval("document.querySelector('#add').requestSubmit()")
    page.wait("document.querySelector('#added').textContent.includes('Nearest by attributes: ')")
    unknown, mine = recognizer.table.unknown, recognizer.table.values[recognizer.table.index("wren")]
    assert mine.tolist() == pytest.approx([unknown[0], unknown[1], 0.5, unknown[3], unknown[4]])
    page.eval("document.querySelector('[aria-label=\"Edit wren\"]').click()")
    page.wait("document.querySelector('#add-title').textContent === 'Edit wren'")
    set_number(page, "bill::flat", "0.25")
    set_number(page, "crown::red", "")
    page.eval("document.querySelector('#add').requestSubmit()")
    page.wait("document.querySelector('#added').textContent.includes('wren is changed')")
    mine = recognizer.table.values[recognizer.table.index("wren")]
    assert mine.tolist() == pytest.approx([unknown[0], 0.25, unknown[2], unknown[3], unknown[4]])
    assert page.eval("document.querySelector('#add-title').textContent") == "Add a class"
    page.eval("fetch('/api/classes/wren', {method: 'DELETE'})")


def test_results_are_filtered_sorted_and_opened(page, files):
    page.eval("document.querySelector('#tab-batch').click()")
    page.choose("#files", *sorted(files.glob("*.png")))
    page.wait(
        "document.querySelectorAll('#batch-table tbody tr').length === 4 && document.querySelector('#batch-stop').disabled"
    )
    shown = "[...document.querySelectorAll('#batch-table tbody tr')].filter(r => !r.hidden)"
    names = f"{shown}.map(r => r.querySelector('.open span').textContent)"
    page.eval("document.querySelector('[data-sort=confidence]').click()")
    sure = page.eval(f"{shown}.slice(1).map(r => parseInt(r.cells[2].textContent))")
    assert sure == sorted(sure)
    assert page.eval(names)[0] == "=x.png"  # what could not be read comes first
    page.eval("document.querySelector('[data-sort=image]').click()")
    assert page.eval(names) == ["0.png", "1.png", "2.png", "=x.png"]
    page.eval(
        "{ const s = document.querySelector('#batch-which'); s.value = 'error'; s.dispatchEvent(new Event('change')) }"
    )
    assert page.eval(names) == ["=x.png"]
    page.eval(
        "{ const s = document.querySelector('#batch-which'); s.value = 'all'; s.dispatchEvent(new Event('change')) }"
    )
    page.eval(
        "{ const s = document.querySelector('#batch-search'); s.value = '1.png'; s.dispatchEvent(new Event('input')) }"
    )
    assert page.eval(names) == ["1.png"]
    page.eval(f"{shown}[0].querySelector('.open').click()")
    page.wait("document.querySelector('#caption').textContent === '1.png'")
    assert not page.eval("document.querySelector('#image').hidden")


SHEET = "document.querySelector('#review-sheet').shadowRoot"


def in_sheet(page, script):
    return page.eval(f"(root => {script})({SHEET})")


def key(page, name):
    in_sheet(
        page,
        f"root.activeElement.dispatchEvent(new KeyboardEvent('keydown', {{key: {json.dumps(name)}, bubbles: true, composed: true, cancelable: true}}))",
    )


def review_again(page, files):
    """Load the page anew, and review the same images."""
    page.go(f"{page.eval('location.origin')}/?")
    page.wait("document.querySelectorAll('#class-list li').length")
    page.choose("#files", *sorted(files.glob("*.png")))
    page.wait("!document.querySelector('#batch-review').disabled && document.querySelector('#batch-stop').disabled")
    page.eval("document.querySelector('#batch-review').click()")


def test_many_images_are_reviewed_on_the_page(page, files, recognizer, tmp_path):
    page.eval("document.querySelector('#tab-review').click()")
    page.choose("#review-files", *sorted(files.glob("*.png")))
    page.wait(f"{SHEET}?.querySelectorAll('.tile').length === 4")
    assert page.eval("document.querySelector('#review-empty').hidden")
    answers = [found.best.name for found in recognizer.predict(sorted(files.glob("[0-9].png")))]
    named = "Object.fromEntries([...root.querySelectorAll('.tile')].map(n => [n.title.split('\\n')[0], n.querySelector('.name').textContent]))"
    assert in_sheet(page, named) == dict(zip(["0.png", "1.png", "2.png"], answers, strict=True)) | {
        "=x.png": "not readable"
    }
    page.wait(f"[...{SHEET}.querySelectorAll('.tile img')].filter(i => i.naturalWidth === 100).length === 3")
    in_sheet(page, "root.querySelector('[title^=\"0.png\"]').focus()")
    key(page, "o")
    page.wait(f"{SHEET}.querySelectorAll('#reasons button').length === 5")
    in_sheet(page, "root.querySelector('#reasons button').click()")
    page.wait(f"!{SHEET}.getElementById('canvas').hidden")
    in_sheet(page, "root.getElementById('close').click()")
    in_sheet(page, "root.querySelector('[title^=\"0.png\"]').focus()")
    key(page, "a")
    other = next(name for name in recognizer.classes if name != answers[1])
    in_sheet(
        page,
        f"(root.querySelector('[title^=\"1.png\"]').focus(), root.getElementById('correct').value = {json.dumps(other)}, root.getElementById('correct').dispatchEvent(new KeyboardEvent('keydown', {{key: 'Enter'}})))",
    )
    page.wait(f"{SHEET}.getElementById('summary').textContent.startsWith('4 images · 2 reviewed · 1 of them right')")
    page.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    for kind in ("csv", "xlsx"):
        in_sheet(page, f"root.getElementById('{kind}').click()")
        wait_for(tmp_path / f"review.{kind}")
    import pandas as pd

    from unseen.review.export import COLUMNS

    table = pd.read_csv(tmp_path / "review.csv").set_index("image")
    assert ("image", *table.columns) == COLUMNS
    assert (table.loc["1.png", "class"], table.loc["1.png", "right"], table.loc["0.png", "right"]) == (other, 0, 1)
    # what was reviewed becomes images of its class, and measures nothing any more
    in_sheet(page, "root.getElementById('teach').click()")
    page.wait(f"{SHEET}.getElementById('summary').textContent.startsWith('2 images added to')")
    assert {i.file for n in (answers[0], other) for i in recognizer.support[n].images} == {"0.png", "1.png"}
    recognizer.rename_class(other, "Other name")
    review_again(page, files)  # verdicts outlast the page, and a class's name
    page.wait(f"{SHEET}?.querySelectorAll('.tile.right, .tile.changed').length === 2")
    assert "2 used by the model" in in_sheet(page, "root.getElementById('summary').textContent")
    assert "Other name" in in_sheet(page, "root.querySelector('.tile.changed').textContent")
    # two classes swap names: the verdict and the answer stay with theirs
    third = next(name for name in recognizer.classes if name not in ("Other name", answers[1]))
    for old, new in ((third, "between"), ("Other name", third), ("between", "Other name")):
        recognizer.rename_class(old, new)
    review_again(page, files)
    page.wait(f"{SHEET}?.querySelectorAll('.tile.right, .tile.changed').length === 2")
    assert third in in_sheet(page, "root.querySelector('.tile.changed').textContent")
    assert "Other name" not in in_sheet(page, "root.querySelector('.tile.changed').textContent")
    for old, new in (("Other name", "between"), (third, other), ("between", third)):
        recognizer.rename_class(old, new)
    page.eval("localStorage.clear()")


def test_the_sheet_opens_after_a_failure(page, files):
    with Held(page, "*/sheet-part.html") as part:
        page.eval("document.querySelector('#tab-review').click()")
        page.choose("#review-files", files / "0.png")
        part.fail(part.wait(1)[0])
        page.wait("document.querySelector('#alert').textContent.startsWith('The server does not answer')")
    page.console.clear()  # the browser logs the failure
    page.eval("document.querySelector('#tab-image').click(); document.querySelector('#tab-review').click()")
    page.wait(f"{SHEET}?.querySelectorAll('.tile').length === 1")
    page.wait("!document.querySelector('#review-sheet').hidden")
    assert page.eval("document.querySelector('#alert').hidden")


def test_reasons_in_the_review_are_those_of_the_answer(page, files, recognizer):
    best = recognizer.predict(files / "0.png")[0].best
    among = "unseen" if best.seen else "seen"  # so that the answer is another class
    only = [name for name, seen in zip(recognizer.classes, recognizer.table.seen, strict=True) if seen != best.seen]
    answer = recognizer.predict(files / "0.png", only=only)[0].best.name
    set_select(page, "batch-among", among)
    page.eval("document.querySelector('#tab-review').click()")
    page.choose("#review-files", files / "0.png")
    page.wait(f"{SHEET}?.querySelectorAll('.tile').length === 1")
    in_sheet(page, "root.querySelector('.tile').focus()")
    key(page, "o")
    page.wait(f"{SHEET}.querySelectorAll('#reasons button').length === 5")
    shown = in_sheet(
        page, "[...root.querySelectorAll('#reasons button')].map(b => [...b.children].map(n => n.textContent))"
    )
    wanted = {
        r.attribute.replace("::", ": "): r.evidence for r in recognizer.explain(files / "0.png", target=answer).reasons
    }
    for name, evidence in shown:
        assert float(evidence.replace("−", "-")) == pytest.approx(wanted[name], abs=0.0051)


def test_images_are_predicted_again_once_classes_change(page, files, recognizer):
    page.choose("#files", files / "0.png")
    page.wait("!document.querySelector('#batch-again').disabled")
    best = page.eval("document.querySelector('#batch-table tbody td:nth-child(2)').firstChild.data")
    recognizer.remove_class(best)
    page.eval("document.querySelector('#batch-again').click()")
    page.wait(f"document.querySelector('#batch-table tbody td:nth-child(2)').firstChild.data !== {json.dumps(best)}")
    assert page.eval("document.querySelectorAll('#batch-table tbody tr').length") == 1


def test_classes_from_a_table(page, files, tmp_path, recognizer):
    names = recognizer.table.attributes.names
    (tmp_path / "new.csv").write_text(",".join(("class", *names)) + "\nlark,1,0,0,0,0.4\n")
    (tmp_path / "bad.csv").write_text("class,tail\nlark,1\n")
    page.eval("document.querySelector('#tab-classes').click()")
    page.choose("#csv", tmp_path / "new.csv")
    page.wait("document.querySelector('#added').textContent.includes('1 added: lark')")
    page.choose("#csv", tmp_path / "bad.csv")
    page.wait("document.querySelector('#alert').textContent.includes('no attribute \"tail\"')")
    page.console.clear()  # the browser logs the 422
    page.eval("fetch('/api/classes/lark', {method: 'DELETE'})")


def test_many_images_to_a_table(page, files, tmp_path, recognizer):
    page.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.eval("document.querySelector('#tab-batch').click()")
    page.choose("#files", *sorted(files.glob("*.png")))
    page.wait(
        "document.querySelectorAll('#batch-table tbody tr').length === 4 && document.querySelector('#batch-stop').disabled"
    )
    assert page.eval("document.querySelector('#progress').value") == 4
    page.eval("document.querySelector('#batch-csv').click()")
    page.eval("document.querySelector('#batch-json').click()")
    page.eval("document.querySelector('#batch-xlsx').click()")
    for name in ("predictions.csv", "predictions.json", "predictions.xlsx"):
        wait_for(tmp_path / name)
    import pandas as pd

    table = pd.read_csv(tmp_path / "predictions.csv").set_index("image")
    assert list(table.index) == ["0.png", "1.png", "2.png", "'=x.png"]  # no formula in a spreadsheet
    assert "not an image" in table.loc["'=x.png", "error"]
    from unseen.model.predictions import Extent, columns

    assert ["image", *table.columns] == list(columns(Extent(5)))  # as unseen predict writes
    assert (table["best_class"][:3] == table["class"][:3]).all()
    for i in range(3):
        best = recognizer.predict(files / f"{i}.png")[0].best
        assert (table.loc[f"{i}.png", "class"], table.loc[f"{i}.png", "seen"]) == (best.name, best.seen)
        assert table.loc[f"{i}.png", "confidence"] == pytest.approx(best.confidence)
    sheet = pd.read_excel(tmp_path / "predictions.xlsx").set_index("image")
    assert list(sheet.index) == ["0.png", "1.png", "2.png", "=x.png"]
    assert list(sheet.columns) == list(table.columns)
    found = json.loads((tmp_path / "predictions.json").read_text())["predictions"]
    assert [len(p["classes"]) for p in found] == [5, 5, 5, 0] or [bool(p["error"]) for p in found] == [0, 0, 0, 1]


def wait_for(path, seconds=10):
    end = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert path.exists()


def test_everything_works_by_keyboard(page, files):
    look(page, files / "0.png")
    page.eval("document.activeElement.blur(); window.scrollTo(0, 0)")
    here = "(document.activeElement.id || document.activeElement.dataset.role || document.activeElement.className || document.activeElement.dataset.name)"
    order = []
    for _ in range(40):
        page.press("Tab")
        order.append(page.eval(here))
        if order[-1] == "range":
            break
    assert order[0] == "skip"
    wanted = ["tab-image", "file", "among", "target", "rival", "search", "measure", "show", "range"]
    assert [name for name in order if name in wanted] == wanted
    attribute = page.eval("document.activeElement.dataset.attribute")
    assert "heat map of" in page.eval("document.querySelector('#caption').textContent.toLowerCase()")
    lowest = page.eval("document.activeElement.value === document.activeElement.min")
    page.press("End" if lowest else "Home")  # the slider to its other end
    page.wait("document.querySelector('.undo')")
    assert page.eval("document.activeElement.dataset.attribute") == attribute
    assert "corrected" in page.eval("document.activeElement.getAttribute('aria-valuetext')")
    page.press("Tab", shift=True)
    page.press("Enter")
    assert page.eval("document.activeElement.getAttribute('aria-pressed')") == "true"
    page.eval("document.querySelector('#tab-image').focus()")
    for name in ("batch", "review", "classes", "about", "image"):
        page.press("ArrowRight")
        assert page.eval("document.activeElement.id") == f"tab-{name}"
        assert not page.eval(f"document.querySelector('#{name}').hidden")


def test_every_control_has_a_name(page, files):
    look(page, files / "0.png")
    page.eval("document.querySelector('.attribute .show').click()")
    roles = set()
    for tab in ("image", "batch", "review", "classes", "about"):
        page.eval(f"document.querySelector('#tab-{tab}').click()")
        found = page.accessible()
        roles |= {role for role, _ in found}
        nameless = [role for role, name in found if role in CONTROLS - {"table"} and not name.strip()]
        assert not nameless, (tab, nameless)
        names = [name for role, name in found if role in ("button", "slider")]
        assert len(names) == len(set(names)), tab  # none is ambiguous
    assert {"main", "banner", "navigation", "tablist", "tabpanel", "heading", "slider", "searchbox", "status"} <= roles


@pytest.mark.parametrize(("width", "height"), [(390, 844), (320, 640), (1280, 900)])
def test_nothing_is_cut_off(browser, url, files, width, height):
    browser.go(f"{url}/?{width}", width=width, height=height)
    browser.wait("document.querySelectorAll('#class-list li').length")
    look(browser, files / "0.png")
    for tab in ("image", "batch", "review", "classes", "about"):
        browser.eval(f"document.querySelector('#tab-{tab}').click()")
        assert browser.eval("document.documentElement.scrollWidth") <= width, tab
        wide = f"""[...document.querySelectorAll('#{tab} button, #{tab} select, #{tab} input:not([type=file]), h2')]
            .filter(n => n.checkVisibility() && n.getBoundingClientRect().right > {width}).map(n => n.id)"""
        assert browser.eval(wide) == [], tab


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out(browser, url, files, dark):
    """At least 4.5 to 1 between every text and what is behind it (WCAG 2, AA)."""
    browser.go(f"{url}/?{dark}", dark=dark)
    browser.wait("document.querySelectorAll('#class-list li').length")
    look(browser, files / "0.png")
    lowest = """(() => {
        const light = c => { const [r, g, b] = c.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b };
        const parse = s => s.match(/[\\d.]+/g).map(Number);
        const behind = n => { for (; n; n = n.parentElement) { const c = parse(getComputedStyle(n).backgroundColor);
            if (c.length < 4 || c[3] === 1) return c } return [255, 255, 255] };
        const low = [];
        for (const n of document.querySelectorAll('body *')) {
            if (!n.checkVisibility() || n.disabled || n.closest('.hidden, .skip')) continue;
            if (![...n.childNodes].some(c => c.nodeType === 3 && c.data.trim())) continue;
            const [a, b] = [parse(getComputedStyle(n).color), behind(n)].map(c => light(c.slice(0, 3)));
            const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            if (ratio < 4.5) low.push([n.className || n.tagName, n.textContent.slice(0, 30), ratio]) }
        return low })()"""
    for tab in ("image", "batch", "review", "classes", "about"):
        browser.eval(f"document.querySelector('#tab-{tab}').click()")
        assert browser.eval(lowest) == [], tab


def test_nothing_is_loaded_from_elsewhere(browser, url, files):
    browser.events.clear()
    browser.go(f"{url}/?again")
    browser.wait("document.querySelectorAll('#class-list li').length")
    asked = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert asked
    assert all(a.startswith((url, "data:", "blob:")) for a in asked)
