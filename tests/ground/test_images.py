"""Image files: what may be opened at all, and what of it comes out."""

from __future__ import annotations

import os
import shlex
import threading
import warnings

import numpy as np
import pytest
from PIL import Image

from deep_images import png_of_16_bits, tiff_of_16_bits
from unseen.data.checks.images import scan_image
from unseen.errors import DataError
from unseen.ground.images import (
    ELONGATION,
    eight_bit,
    image_of_bytes,
    open_image,
    upright_rgb,
    upright_size,
    used_bits,
)


def refused(path, match):
    done = []

    def read():
        with pytest.raises(DataError, match=match):
            open_image(path)
        done.append(path)

    thread = threading.Thread(target=read, daemon=True)  # what never ends must not hold the tests
    thread.start()
    thread.join(20)
    assert done, f"{path} was not refused in time"


def test_only_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to("/dev/zero")
    (tmp_path / "c.jpg").mkdir()
    (tmp_path / "d.jpg").symlink_to("d.jpg")
    refused(tmp_path / "a.jpg", "a.jpg: a pipe or a device")
    refused(tmp_path / "b.jpg", "b.jpg: a pipe or a device")
    refused(tmp_path / "c.jpg", "c.jpg: a folder")
    refused(tmp_path / "d.jpg", "d.jpg: broken image: .*symbolic links")


@pytest.mark.parametrize(
    "data",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n",  # which starts Ghostscript
        b"#define x_width 2\n#define x_height 2\nstatic char x_bits[] = {0x01, 0x02};",
        b"SIMPLE  =                    T" + b" " * 2850,
    ],
)
def test_other_formats_of_pillow_are_no_images(tmp_path, data):
    (tmp_path / "a.jpg").write_bytes(data)
    refused(tmp_path / "a.jpg", "a.jpg: Pillow cannot read this image")


@pytest.mark.parametrize("name", ["a.csv", "my b.TXT"])
def test_a_list_given_as_an_image_is_one_for_the_option(tmp_path, name):
    (tmp_path / name).write_text("image\na.jpg\n")
    with pytest.raises(DataError) as told:
        open_image(tmp_path / name)
    assert told.value.problem == "not an image"
    assert told.value.hint == f"if it lists images: unseen predict RUN --list {shlex.quote(str(tmp_path / name))}"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_told_is_that_of_the_image(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (40, 20)).save(tmp_path / "a", kind, exif=exif)
    expected = (20, 40) if orientation in (6, 8) else (40, 20)
    assert upright_size(tmp_path / "a") == open_image(tmp_path / "a").size == expected


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_in_bands_is_that_of_the_whole(mode):
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 255, (600, 7, 4), dtype=np.uint8)).convert(mode)
    if mode == "P":
        image.info["transparency"] = 3
    white = Image.new("RGBA", image.size, "white")
    whole = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    np.testing.assert_array_equal(np.asarray(upright_rgb(image)), np.asarray(whole))


@pytest.mark.parametrize(("dtype", "greys"), [(np.uint16, [0, 0, 1, 255]), (np.int32, [0, 0, 1, 255])])
def test_sixteen_bits_become_eight(dtype, greys):
    image = Image.fromarray(np.array([[0, 255, 256, 65535]], dtype))
    np.testing.assert_array_equal(np.asarray(eight_bit(image))[0], greys)


@pytest.mark.parametrize(("largest", "bits"), [(255, 8), (1023, 10), (4095, 12), (16383, 14), (16384, 16)])
def test_greys_are_scaled_by_the_bits_that_are_used(tmp_path, largest, bits):
    greys = np.array([[0, largest // 2, largest]], np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(greys).save(tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert used_bits(image) == bits
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = np.asarray(open_image(tmp_path / name))[0, :, 0]
        np.testing.assert_array_equal(found, greys[0] >> (bits - 8))
        assert [str(w.message) for w in said] == (
            [] if bits == 16 else [f"16-bit greys that use {bits} bits are scaled to 8 bits"]
        )


COLOURS = {
    "png": png_of_16_bits,
    "little-endian TIFF": tiff_of_16_bits,
    "big-endian TIFF": lambda values: tiff_of_16_bits(values, ">"),
    "deflated TIFF": lambda values: tiff_of_16_bits(values, deflated=True),
    "deflated big-endian TIFF": lambda values: tiff_of_16_bits(values, ">", deflated=True),
}


@pytest.mark.parametrize("kind", COLOURS)
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_colours_of_16_bits_are_scaled_by_the_bits_that_are_used(tmp_path, kind, bits):
    values = np.random.default_rng(bits).integers(0, 1 << bits, (20, 30, 3))
    values[3, 4, 1] = (1 << bits) - 1
    data = COLOURS[kind](values)
    (tmp_path / "a").write_bytes(data)
    said = [] if bits == 16 else [f"16-bit colors that use {bits} bits are scaled to 8 bits"]
    for read in (lambda: open_image(tmp_path / "a"), lambda: image_of_bytes(data, "a")):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = np.asarray(read())
        np.testing.assert_array_equal(found, values >> (bits - 8))
        assert [str(w.message) for w in caught] == said
    scan = scan_image(tmp_path / "a")
    notes = [f"16-bit color with {bits} bits in use, scaled to 8 bits"] * (bits != 16)
    assert [what for _, group, what, _ in scan.found if group == "converted images"] == notes
    assert scan.thumb is not None


@pytest.mark.filterwarnings("ignore::unseen.ground.images.ImageWarning")
def test_colours_of_16_bits_are_turned_and_stand_on_white(tmp_path):
    values = np.random.default_rng(0).integers(0, 4096, (20, 30, 3))
    (tmp_path / "a.tif").write_bytes(tiff_of_16_bits(values, orientation=6))
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "a.tif")), np.rot90(values, -1) >> 4)
    opaque = np.full((20, 30, 1), 65535)
    opaque[0] = 0
    (tmp_path / "a.png").write_bytes(png_of_16_bits(np.concatenate([values, opaque], axis=2)))
    found = np.asarray(open_image(tmp_path / "a.png"))
    np.testing.assert_array_equal(found[1:], values[1:] >> 4)
    assert (found[0] == 255).all()


def test_broken_images_in_memory_are_named():
    data = png_of_16_bits(np.full((20, 30, 3), 100))
    with pytest.raises(DataError, match=r"^here: broken image"):
        image_of_bytes(data[:60], "here")
    with pytest.raises(DataError, match=r"^here: too large: 30 x 20 pixels"):
        image_of_bytes(data, "here", max_pixels=599)


def test_check_and_reading_agree_on_long_images(tmp_path):
    from unseen.backbones.transform import Transform

    transform = Transform(8, (0.5,) * 3, (0.5,) * 3)
    for length, fits in ((ELONGATION, True), (ELONGATION + 1, False)):
        path = tmp_path / f"{length}.png"
        Image.new("L", (1, length)).save(path)
        assert [level for level, *_ in scan_image(path).found].count("error") == (not fits)
        if fits:
            assert transform(path).shape == (3, 8, 8)
        else:
            with pytest.raises(DataError, match=f"1 x {length} pixels is too narrow"):
                transform(path)
