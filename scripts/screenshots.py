"""Make the screenshots of the documentation and the README.

    python scripts/screenshots.py RUN IMAGE [--output docs/images]

RUN is a finished run, IMAGE one of its images; the docs use

    unseen train fieldguide --method msdnpp --recipe epochs=6 --draws 1
    python scripts/screenshots.py runs/msdnpp-fieldguide ~/.cache/unseen/datasets/fieldguide-v2/images/SPECIES/003.jpg

Needs Chromium. Every image is 1280 pixels wide (390 for the phone), in light mode, and has at most 300 KB. `--check
FOLDER` also writes each page in dark mode and at phone width, to look at; they are not part of the docs.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from chromium import Chromium  # noqa: E402 - the driver of the browser tests

LARGEST = 300_000
"""Bytes of a screenshot."""


def main() -> None:
    """Make them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--check", type=Path, default=None, help="folder for dark mode and phone width")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as profile, Chromium(Path(profile)) as browser:
        shots = Shots(browser, options.output)
        report(shots, options.run, options.check)
        with serving(options.run) as url:
            page(shots, url, options.image, options.check)


class Shots:
    """Takes and stores screenshots."""

    def __init__(self, browser: Chromium, folder: Path) -> None:
        self.browser, self.folder = browser, folder
        folder.mkdir(parents=True, exist_ok=True)

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """A page in a window of that size."""
        self.browser.go("about:blank")
        self.browser.go(url, width=width, height=height, dark=dark)
        self.browser.wait("document.readyState === 'complete'")

    def take(self, name: str, *, full: bool = False, folder: Path | None = None, photos: bool = True) -> Path:
        """What the window shows, or the whole page, as JPEG, or as PNG where there are no photos."""
        with tempfile.TemporaryDirectory() as scratch:
            image = Image.open(self.browser.shot(Path(scratch) / "shot.png", full=full)).convert("RGB")
        target = folder or self.folder
        target.mkdir(parents=True, exist_ok=True)
        if folder is not None:
            image.save(target / f"{name}.png")
            return target / f"{name}.png"
        for quality in (93, 85, 75, 60) if photos else (None,):
            data = io.BytesIO()
            if quality is None:
                image.quantize(256, dither=Image.Dither.NONE).save(data, "PNG", optimize=True)
            else:
                image.save(data, "JPEG", quality=quality, optimize=True, progressive=True)
            if data.tell() <= LARGEST:
                break
        path = target / f"{name}.{'png' if quality is None else 'jpg'}"
        for old in target.glob(f"{name}.*"):
            old.unlink()
        path.write_bytes(data.getvalue())
        print(f"{path.name}: {image.width} x {image.height}, {path.stat().st_size // 1000} KB")
        return path


def report(shots: Shots, run: Path, check: Path | None) -> None:
    """The report of the run: its top, and an example with a mix-up."""
    from unseen import Run
    from unseen.report.page import write_report

    page = write_report(Run(run), path=shots.folder / "report.html", examples=2)
    try:
        url = page.resolve().as_uri()
        shots.open(url)
        shots.take("report-summary", photos=False)
        shots.browser.eval("document.querySelector('#examples').scrollIntoView({behavior: 'instant'})")
        shots.take("report-examples")
        if check is not None:
            for name, width, dark in (("light", 1280, False), ("dark", 1280, True), ("phone", 390, False)):
                shots.open(url, width=width, height=900 if width > 600 else 844, dark=dark)
                shots.take(f"report-{name}", full=True, folder=check)
    finally:
        page.unlink()


def page(shots: Shots, url: str, image: Path, check: Path | None) -> None:
    """The web page: an image with its explanation, the classes, and the phone."""
    browser = shots.browser

    def show(width: int = 1280, height: int = 900, dark: bool = False) -> None:
        shots.open(url, width=width, height=height, dark=dark)
        browser.wait("document.querySelectorAll('#class-list li').length")
        browser.choose("#file", image)
        browser.wait("document.querySelectorAll('#attributes .attribute').length")
        browser.eval("document.querySelector('#attributes .show').click()")
        browser.wait("!document.querySelector('#legend').hidden")

    show(height=1250)
    shots.take("serve-image")
    browser.eval("document.querySelector('#tab-classes').click()")
    shots.take("serve-classes", photos=False)
    browser.choose("#files", *sorted(image.parents[1].glob(f"*/{image.name}"))[:24])
    browser.wait("!document.querySelector('#batch-review').disabled && document.querySelector('#batch-stop').disabled")
    browser.eval("document.querySelector('#batch-review').click()")
    sheet = "document.querySelector('#review-sheet').shadowRoot"
    browser.wait(f"{sheet}?.querySelectorAll('.tile').length")
    order = f"{sheet}.getElementById('order')"
    browser.eval(f"{order}.value = 'doubt'; {order}.dispatchEvent(new Event('change'))")
    browser.wait(f"[...{sheet}.querySelectorAll('.tile img')].filter(i => i.naturalWidth).length === 24")
    browser.eval("window.scrollTo(0, 0)")
    shots.take("serve-review")
    show(width=390, height=844)
    shots.take("serve-phone")
    if check is not None:
        windows = (("light", 1280, False), ("dark", 1280, True), ("phone", 390, False), ("phone-dark", 390, True))
        for name, width, dark in windows:
            show(width=width, height=900 if width > 600 else 844, dark=dark)
            for tab in ("image", "batch", "review", "classes", "about"):
                browser.eval(f"document.querySelector('#tab-{tab}').click()")
                shots.take(f"page-{tab}-{name}", full=True, folder=check)


@contextmanager
def serving(run: Path):
    """The address of a server of the run, in this process."""
    from unseen import Recognizer
    from unseen.cli.serving import listen
    from unseen.serve.about import metrics_of
    from unseen.serve.app import create_app
    from unseen.serve.server import Server, configure
    from unseen.serve.settings import Settings

    listener = listen("127.0.0.1", 8123)
    settings = Settings()
    recognizer = Recognizer.load(run, device="cpu")
    server = Server(configure(create_app(recognizer, settings, name=run.name, metrics=metrics_of(run)), settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(10)


if __name__ == "__main__":
    main()
