"""The modules of the page: all are served and loaded at once, and none imports one that imports it."""

# ruff: noqa: E501 - scripts for the page

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import PurePosixPath

import pytest

import chromium
from serve_tools import served

IMPORT = re.compile(r'^(?:import|\} from)\b[^"\n]*"([^"]+)";$', re.MULTILINE)


def imports(name, text):
    """Addresses of what a module imports."""
    for found in IMPORT.findall(text):
        assert found.startswith(("/", "./")), found
        yield found if found.startswith("/") else str(PurePosixPath(name).parent / found)


def graph_from(client, start):
    """Addresses of the modules that a page needs, with those that each imports."""
    graph, open_ = {}, [start]
    while open_:
        name = open_.pop()
        answer = client.get(name)
        assert answer.status_code == 200, name
        assert answer.headers["content-type"].startswith("text/javascript")
        assert answer.headers["cache-control"] == "no-cache"
        unchanged = client.get(name, headers={"If-None-Match": answer.headers["etag"]})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        graph[name] = list(imports(name, answer.text))
        open_ += [other for other in graph[name] if other not in graph]
    return graph


def test_all_modules_are_loaded_at_once_and_in_layers(client):
    page = client.get("/").text
    (start,) = re.findall(r'<script type="module" src="([^"]+)">', page)
    graph = graph_from(client, start)
    assert len(graph) > 15
    preloaded = re.findall(r'<link rel="modulepreload" href="([^"]+)">', page)
    assert sorted(preloaded) == sorted(graph)  # neither one too late nor one for nothing
    list(TopologicalSorter(graph).static_order())  # raises for a circle


def test_every_module_uses_what_it_imports(client):
    for name in graph_from(client, "/page/start.js"):
        text = client.get(name).text
        for names in re.findall(r"^import \{ (.*?) \} from", text, re.MULTILINE):
            for one in names.split(", "):
                assert len(re.findall(rf"(?<!\w)(?<!\w\.){re.escape(one)}(?!\w)", text)) > 1, (name, one)


def test_one_function_makes_all_requests(client):
    """Its errors are sentences to show."""
    callers = [
        name for name in graph_from(client, "/page/start.js") if re.search(r"(?<!\w)fetch\(", client.get(name).text)
    ]
    assert callers == ["/common.js"]


# ---------------------------------------------------------------- without a page


@pytest.fixture(scope="module")
def run(recognizer, tmp_path_factory):
    """Evaluate a script in the browser, with some modules."""
    if chromium.PATH is None:
        pytest.skip("no Chromium")
    with served(recognizer) as url, chromium.Chromium(tmp_path_factory.mktemp("profile")) as browser:
        browser.go(f"{url}/?")
        browser.wait("document.querySelectorAll('#class-list li').length")
        modules = ("words", "uploads", "review")
        loaded = ", ".join(f"import('/page/{name}.js')" for name in modules)
        yield lambda script: browser.eval(f"Promise.all([{loaded}]).then(([{', '.join(modules)}]) => {script})")
        assert browser.console == []


@pytest.mark.browser
def test_words(run):
    assert run("[0.12345, 120.04, 1].map(words.plain)") == ["0.123", "120", "1"]
    assert run("words.wordsOf('  Crown  RED ')") == ["crown", "red"]
    assert run("[words.hasAll('crown: Red', ['red', 'crown']), words.hasAll('crown', ['red'])]") == [True, False]
    assert run("[words.firstOf(['a', 'b'], 2), words.firstOf(['a', 'b', 'c'], 2)]") == ["a, b", "a, b, …"]
    assert run("[{}, {images: 1, image_weight: 1}, {images: 3, image_weight: 0.75}].map(words.restsOn)") == [
        "its attributes alone",
        "1 image, no attributes",
        "3 images (75%) and its attributes (25%)",
    ]
    ranks = "[{rank: 'family', name: 'Ardeidae', probably: 'Night Heron'}]"
    assert run(f"words.coarser({{answer: 'Ardeidae', answer_rank: 'family', ranks: {ranks}}})") == (
        "Ardeidae (family), probably Night Heron"
    )
    assert run("words.coarser({answer: 'emu'}) === undefined")


@pytest.mark.browser
def test_notes_on_images_that_were_left_out(run):
    given = "{known: ['a', 'b'], failed: [{error: 'c: no image', hint: 'send a JPEG'}, {error: 'too large.'}, {error: null}], warnings: ['w']}"
    assert run(f"words.leftOut({given})") == [
        "Already in the class: a, b.",
        "c: no image. To fix it: send a JPEG.",
        "too large.",
        "w",
    ]
    many = "{failed: Array.from({length: 9}, (_, i) => ({error: `${i}`}))}"
    assert run(f"words.leftOut({many})") == ["0.", "1.", "2.", "3.", "4.", "4 more were left out."]


@pytest.mark.browser
def test_what_separates_two_classes_in_words(run):
    found = "{today: [{attribute: 'a', first_value: 0.5, second_value: 1}], refine: [{attribute: 'b'}]}"
    first, second = run(f"words.separation({found}, 'emu', 'gull', (name) => name.toUpperCase())")
    assert first == "emu and gull differ most in A (0.5 and 1)."
    assert "whether they differ in B:" in second
    assert run("words.separation({today: [], refine: []}, 'emu', 'gull')")[0] == "emu and gull have equal attributes."


@pytest.mark.browser
def test_images_are_sent_in_parcels_within_the_limits(run):
    limits = "{upload_bytes: 20000, images: 3}"
    files = "[5000, 5000, 5000, 100, 100, 100, 100].map((size, i) => ({size, name: `${i}`}))"
    # each is sent with 4,096 bytes around it: two of 5,000 fit, then three by number
    sent = run(f"uploads.parcels({files}, {limits}).map((parcel) => parcel.map((f) => f.name).join(''))")
    assert sent == ["01", "234", "56"]
    assert run(f"uploads.tooLarge({{size: 15904, name: 'a'}}, {limits})") is None
    big = "{size: 30 * 2 ** 20, name: 'a.tif'}"
    assert run(f"uploads.tooLarge({big}, {{upload_bytes: 20 * 2 ** 20}})") == "a.tif has 30.0 MB; the limit is 20 MB."


@pytest.mark.browser
def test_the_order_of_results(run):
    rows = """[{image: 'B', classes: [{name: 'emu', confidence: 0.5}]}, {image: 'a', unknown: true, classes: [{name: 'gull', confidence: 0.25}]},
        {image: 'c', error: 'no image'}].map((found) => ({found}))"""
    order = "[['image', false], ['image', true], ['class', false], ['confidence', false]]"
    script = f"{order}.map(([key, down]) => {rows}.sort(words.byColumn(key, down)).map((r) => r.found.image).join(''))"
    assert run(script) == ["aBc", "cBa", "Bac", "caB"]


@pytest.mark.browser
def test_places_in_the_random_order_are_stable(run):
    def place(text):
        value = 2166136261
        for char in text:
            value = (value ^ ord(char)) * 16777619 % 2**32
        value = (value ^ value >> 16) * 0x85EBCA6B % 2**32
        return value ^ value >> 13

    names = ["a.png|10|1", "b.png|10|1", "ä|2|3"]
    assert run(f"{names}.map(review.placeOf)") == [place(name) for name in names]
