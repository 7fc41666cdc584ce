"""Images from users and attackers: every format and mode, truncated, flipped, misleading, or not images at all."""

from __future__ import annotations

import csv
import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from faults.fuzz.model import small_recognizer
from faults.fuzz.target import Case, Target, WrongResultError
from unseen.errors import UnseenError

Recipe = Callable[[Random], bytes]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def drawn(rng: Random, width: int | None = None, height: int | None = None, mode: str = "RGB") -> Image.Image:
    """Coarse noise of a random size in a mode."""
    size = (width or rng.randint(8, 160), height or rng.randint(8, 160))
    pixels = np.frombuffer(rng.randbytes(8 * 8 * 4), np.uint8).reshape(8, 8, 4)
    image = Image.fromarray(pixels).resize(size)
    if mode in ("I;16", "I", "F"):
        values = np.asarray(image.convert("L"))
        return Image.fromarray(values.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]) * 257)
    return image.convert(mode)


# valid ones: each of these must be readable


def jpeg(rng: Random) -> bytes:
    mode = rng.choice(["RGB", "L", "CMYK"])
    options = {"quality": rng.randint(1, 95), "progressive": rng.random() < 0.5, "optimize": rng.random() < 0.3}
    return encoded(drawn(rng, mode=mode), "JPEG", **options)


def png(rng: Random) -> bytes:
    mode = rng.choice(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
    options = {"transparency": rng.randrange(256)} if mode in ("P", "L") and rng.random() < 0.5 else {}
    return encoded(drawn(rng, mode=mode), "PNG", **options)


OTHERS = (  # noqa: SIM905
    "BMP:RGB BMP:1 BMP:P DIB:RGB TGA:RGBA PPM:L PPM:I;16 PCX:P SGI:RGB GIF:P WEBP:RGBA WEBP:RGB AVIF:RGB ICO:RGBA "
    "TIFF:CMYK TIFF:I;16 TIFF:1 TIFF:YCbCr TIFF:LA JPEG2000:RGB JPEG2000:I;16"
).split()


def other(rng: Random) -> bytes:
    kind, mode = rng.choice(OTHERS).split(":")
    return encoded(drawn(rng, mode=mode), kind)


def moving(rng: Random) -> bytes:
    frames = [drawn(rng, 40, 30) for _ in range(rng.randint(2, 5))]
    kind = rng.choice(["GIF", "WEBP", "PNG", "TIFF", "MPO", "AVIF"])
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def turned(rng: Random) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = rng.randrange(10)  # 1 to 8 are defined
    return encoded(drawn(rng), rng.choice(["JPEG", "PNG", "WEBP", "TIFF"]), exif=exif)


def thin(rng: Random) -> bytes:
    width, height = rng.choice([(1, 1), (1, 50), (50, 1), (2, 100), (1, 2), (3, 3)])
    return encoded(drawn(rng, width, height), rng.choice(["PNG", "BMP", "WEBP", "JPEG"]))


def profiled(rng: Random) -> bytes:
    """A color profile, valid or not, which does not matter."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    broken = bytearray(profile)
    for _ in range(rng.randint(0, 20)):
        broken[rng.randrange(len(broken))] = rng.randrange(256)
    data = rng.choice([profile, bytes(broken), b"", rng.randbytes(200), profile[:100]])
    return encoded(drawn(rng), rng.choice(["JPEG", "PNG", "WEBP", "TIFF"]), icc_profile=data)


def gif_with_transparency(rng: Random) -> bytes:
    return encoded(drawn(rng, mode="P"), "GIF", transparency=rng.randrange(256), interlace=rng.randrange(2))


# may be read or refused


def cut(rng: Random) -> bytes:
    data = rng.choice(SOUND)(rng)
    return data[: rng.randint(1, len(data) - 1)]


def flipped(rng: Random) -> bytes:
    """Some bytes changed anywhere."""
    data = bytearray(rng.choice(SOUND)(rng))
    for _ in range(rng.choice([1, 1, 4, 30, 200])):
        data[rng.randrange(len(data))] = rng.choice([0, 255, 128, rng.randrange(256)])
    return bytes(data)


def bad_header(rng: Random) -> bytes:
    """Some of the first bytes changed, which hold sizes, offsets and counts."""
    data = bytearray(rng.choice(SOUND)(rng))
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(4, min(120, len(data)))
        width = rng.choice([1, 2, 4])
        value = rng.choice([0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, rng.getrandbits(32)])
        data[at : at + width] = (value & (256**width - 1)).to_bytes(width, rng.choice(["big", "little"]))
    return bytes(data)


def spliced(rng: Random) -> bytes:
    """The beginning of one image and the end of another."""
    a, b = rng.choice(SOUND)(rng), rng.choice(SOUND)(rng)
    return a[: rng.randrange(len(a))] + b[rng.randrange(len(b)) :]


def trailing(rng: Random) -> bytes:
    return rng.choice(SOUND)(rng) + rng.choice([rng.randbytes(5000), b"<script>alert(1)</script>", b"PK\x03\x04" * 99])


def huffman(rng: Random) -> bytes:
    """A JPEG with changed tables."""
    data = bytearray(jpeg(rng))
    marks = [i for i in range(len(data) - 1) if data[i] == 0xFF and data[i + 1] in (0xC4, 0xDB, 0xC0, 0xC2, 0xDA)]
    at = rng.choice(marks)
    for _ in range(rng.randint(1, 20)):
        data[min(at + rng.randint(2, 60), len(data) - 1)] = rng.randrange(256)
    return bytes(data)


def scans(rng: Random) -> bytes:
    """A progressive JPEG with scans repeated many times."""
    data = encoded(drawn(rng, 64, 64), "JPEG", progressive=True)
    first = data.index(b"\xff\xda")
    second = data.index(b"\xff\xda", first + 2)
    return data[:first] + data[first:second] * rng.choice([2, 100, 3000]) + data[first:]


def chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc & 0xFFFFFFFF)


def png_of(width: int, height: int, data: bytes, *before: bytes, colour: int = 2, depth: int = 8) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def png_chunks(rng: Random) -> bytes:
    """A PNG with a false checksum, endless text, a bomb in a text or profile, chunks twice or out of order."""
    body = zlib.compress(bytes(30 * (1 + 90)))
    zeros = zlib.compress(bytes(rng.choice([1000, 2_000_000, 80_000_000])))
    strange = rng.choice(
        [
            chunk(b"tEXt", b"Comment\0" + b"x" * rng.choice([10, 3_000_000])),
            chunk(b"iTXt", b"Comment\0\1\0\0\0" + zeros),
            chunk(b"zTXt", b"Comment\0\0" + zeros),
            chunk(b"iCCP", b"name\0\0" + zeros),
            chunk(b"iCCP", b"name\0\0" + rng.randbytes(30)),
            chunk(b"tEXt", b"Comment\0x", crc=1),
            chunk(b"PLTE", b"\0\0\0" * 300),
            chunk(b"tRNS", rng.randbytes(rng.randrange(12))),
            chunk(b"eXIf", b"MM\0*" + rng.randbytes(60)),
            chunk(b"acTL", struct.pack(">II", rng.choice([0, 1, 2**31]), 0)),
            chunk(b"fcTL", rng.randbytes(26)),
            chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0)),
            chunk(b"XYZW", rng.randbytes(10)),
            b"".join(chunk(b"tEXt", b"k%d\0v" % i) for i in range(5000)),
        ]
    )
    return png_of(30, 30, body, strange)


def bomb(rng: Random) -> bytes:
    """A small file that claims or holds a great many pixels."""
    side = rng.choice([20_000, 60_000, 2**31 - 1])
    kind = rng.randrange(8)
    if kind == 0:
        return png_of(side, side, zlib.compress(bytes(1000)))
    if kind == 1:  # it holds what it claims, 225 million pixels with one bit each
        return png_of(15_000, 15_000, zlib.compress(bytes(1876 * 15_000), 9), colour=0, depth=1)
    if kind == 2:
        return (
            b"GIF89a"
            + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0)
            + b"\0\0\0\xff\xff\xff"
            + b","
            + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
            + b"\x02\x02\x4c\x01\0;"
        )
    if kind == 3:
        header = struct.pack("<IiiHHIIiiII", 40, side, -side, 1, 24, 0, 0, 0, 0, 0, 0)
        return b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54) + header + bytes(1000)
    if kind == 4:
        return b"P6 %d %d 255\n" % (side, side) + bytes(1000)
    if kind == 5:
        data = bytearray(encoded(drawn(rng, 16, 16), "JPEG"))
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
        return bytes(data)
    if kind == 6:
        header = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + (16383).to_bytes(3, "little") * 2
        anim = b"ANIM" + struct.pack("<I", 6) + bytes(6)
        body = b"WEBP" + header + anim + encoded(drawn(rng, 16, 16), "WEBP")[12:]
        return b"RIFF" + struct.pack("<I", len(body)) + body
    tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    tags += [(277, 3, 1, 1), (278, 4, 1, side), (279, 4, 1, 100)]
    return (
        b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags) + bytes(4)
    )


def long_bomb(rng: Random) -> bytes:
    """Few pixels, but with sides so unequal that resizing would need a great many."""
    width, height = rng.choice([(1, 10_000), (60_000, 1), (1, 51), (2, 65_000)])
    return encoded(Image.new("L", (width, height), 9), "PNG")


def tiff_loops(rng: Random) -> bytes:
    """A TIFF whose directories form a circle, or whose entries point nowhere."""
    data = bytearray(encoded(drawn(rng, 20, 20), "TIFF"))
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    kind = rng.randrange(3)
    if kind == 0:
        struct.pack_into("<I", data, first + 2 + 12 * count, first)
    elif kind == 1:
        at = first + 2 + 12 * rng.randrange(count)
        struct.pack_into("<I", data, at + 4, rng.choice([0, 2**31, 2**32 - 1, 10**6]))
    else:
        at = first + 2 + 12 * rng.randrange(count)
        struct.pack_into("<I", data, at + 8, rng.choice([0, 2**31, 2**32 - 1, len(data) - 1]))
    return bytes(data)


def exif_of(rng: Random) -> bytes:
    """A JPEG with a damaged EXIF block."""
    exif = rng.choice([b"Exif\0\0", b""]) + rng.choice([b"MM\0*", b"II*\0", b""]) + rng.randbytes(rng.randrange(200))
    return encoded(drawn(rng), "JPEG", exif=exif or b"x")


def floats(rng: Random) -> bytes:
    image = drawn(rng, mode="F")
    values = np.array(image)
    values[0, 0] = rng.choice([np.nan, np.inf, -1e30, 0.5])
    return encoded(Image.fromarray(values), "TIFF")


def wide_integers(rng: Random) -> bytes:
    return encoded(drawn(rng, mode="I"), rng.choice(["TIFF", "PPM"]))


# no images


def nothing(rng: Random) -> bytes:
    return b""


def noise(rng: Random) -> bytes:
    magic = rng.choice(
        [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF", b"8BPS", b"\0\0\1\0"]
    )
    return magic + rng.randbytes(rng.choice([1, 10, 100, 5000]))


def no_image(rng: Random) -> bytes:
    """Named like an image but not one; a careless reader would run or download some of it."""
    return rng.choice(
        [
            b"\0" * 1000,
            b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
            b"%PDF-1.4\n%%EOF",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/tmp/made-by-eps) (w) file\n%%EOF\n",
            b"\xc5\xd0\xd3\xc6" + struct.pack("<IIIIIIH", 30, 40, 0, 0, 0, 0, 0xFFFF) + b"%!PS-Adobe-3.0 EPSF-3.0\n",
            b"PK\x03\x04" + bytes(100),
            b"\x89HDF\r\n\x1a\n" + bytes(100),
            b"BUFR" + bytes(100),
            b"GRIB\0\0\0\1" + bytes(100),
            b"push graphic-context\nviewbox 0 0 9 9\nimage over 0,0 0,0 'https://127.0.0.1/x'\npop graphic-context",
            b"#define x_width 10000000\n#define x_height 10000000\nstatic char x_bits[] = {0};",
            b'/* XPM */\nstatic char *x[] = {\n"3 3 1 1",\n"a c red",\n"aaa",\n"aaa",\n"aaa"\n};',
            b"SIMPLE  =                    T" + b" " * 50,
            b"class,red\nemu,1\n",
            "\ufeffimage".encode(),
        ]
    )


SOUND: tuple[Recipe, ...] = (jpeg, png, other, moving, turned, thin, profiled, gif_with_transparency)
DAMAGED: tuple[Recipe, ...] = (
    *(cut, flipped, bad_header, spliced, trailing, huffman, scans, png_chunks, bomb, long_bomb, tiff_loops, exif_of),
    *(floats, wide_integers),
)
NONE: tuple[Recipe, ...] = (nothing, noise, no_image)
RECIPES = SOUND + DAMAGED + NONE
NAMES = (
    *(
        "a.jpg",
        "a b.jpg",
        "a\nb.jpg",
        "a\tb.png",
        "=1+1.jpg",
        "\u202egnp.jpg",
        "\u00e4.JPG",
        "e\u0301.jpg",
        "\U0001f426.png",
        "[bold]x.jpg",
    ),
    *(
        "x.jpg.exe",
        "noending",
        ".hidden.jpg",
        "-r.jpg",
        "a,b.jpg",
        'a"b.jpg',
        "a;b|c&d.jpg",
        "$(id).jpg",
        "%2e%2e.jpg",
        "*.jpg",
    ),
    *(
        "\x1b[31mred.jpg",
        "\x7f.jpg",
        "\udcff\udcfe.jpg",
        "x" * 250 + ".jpg",
        "con.jpg",
        "a\\b.jpg",
        "{0}.jpg",
        "wrong.txt",
    ),
)


def put(data: bytes, folder: Path, rng: Random) -> Path:
    """A file, mostly plain; sometimes with an odd name or behind a link."""
    path = folder / (rng.choice(NAMES) if rng.random() < 0.3 else rng.choice(["x.jpg", "x.png", "x.gif", "x.tif"]))
    if rng.random() < 0.1:
        (folder / "kept").write_bytes(data)
        path.symlink_to("kept")
    else:
        path.write_bytes(data)
    return path


def shown(path: Path) -> str:
    """The part of a file's name that a message about it must contain."""
    return max("".join(c if c.isalnum() and c.isascii() else " " for c in path.name[:100]).split() or [""], key=len)


class Images(Target):
    """An image through every entry point; all of them must agree on whether it can be read."""

    name = "images"
    weight = 2.0
    seconds = 20.0
    megabytes = 1500.0

    def warm(self, folder: Path) -> None:
        """Load the model and the formats."""
        self.recognizer = small_recognizer()
        _warm_pillow()

    def make(self, rng: Random, folder: Path) -> Case:
        """Make one or several files."""
        recipe = rng.choice(RECIPES)
        path = put(recipe(rng), folder, rng)
        must = "accepted" if recipe in SOUND else "refused" if recipe in (*NONE, long_bomb) else None
        return Case(f"{recipe.__name__} {path.name!a}", (shown(path),), must, path)  # type: ignore[arg-type]

    def run(self, case: Case, folder: Path) -> None:
        """Run every entry point."""
        from unseen.data.checks.images import scan_image
        from unseen.ground.images import open_image, upright_size
        from unseen.serve.settings import Refusal
        from unseen.serve.uploads import Upload, decode

        found: dict[str, Any] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found["predict"] = self.recognizer.predict([case.data], workers=0)[0].candidates
            except UnseenError as error:
                found["predict"] = error
            scan = scan_image(case.data)
            try:
                image = decode(Upload("x", case.data.read_bytes()), 50_000_000)
                found["sent"] = self.recognizer.predict([image], workers=0)[0].candidates
            except (UnseenError, Refusal) as error:
                found["sent"] = error
        refused = isinstance(found["predict"], UnseenError)
        if refused != any(level == "error" for level, *_ in scan.found):
            raise WrongResultError(f"check says {scan.found}, predict {found['predict']}")
        if not isinstance(found["sent"], Exception) and found["sent"] != found["predict"]:
            raise WrongResultError(f"sent {found['sent']}, from a file {found['predict']}")
        if refused:
            raise found["predict"]
        if upright_size(case.data) != open_image(case.data).size:
            raise WrongResultError("two sizes")


NO_FILES: tuple[Callable[[Path], None], ...] = (
    *(os.mkfifo, os.mkdir, lambda path: path.symlink_to(path.name), lambda path: path.symlink_to("/dev/zero")),
    lambda path: None,
)


class Batches(Target):
    """Many files, valid, broken or not images, as a list, a folder or one by one: one row each, in order."""

    name = "image batches"
    weight = 0.3
    seconds = 40.0
    megabytes = 1500.0

    def warm(self, folder: Path) -> None:
        """Load the model and the formats."""
        self.recognizer = small_recognizer()
        _warm_pillow()

    def make(self, rng: Random, folder: Path) -> Case:
        """Make one or several files."""
        place = folder / "images"
        place.mkdir()
        paths, sound = [], []
        for i in range(rng.randint(1, 12)):
            path = place / f"{i:02d}{rng.choice(['.jpg', '.PNG', '.tiff'])}"
            if rng.random() < 0.8:
                recipe = rng.choice(RECIPES)
                path.write_bytes(recipe(rng))
                sound += [path] * (recipe in SOUND)
            else:
                rng.choice(NO_FILES)(path)
            paths.append(path)
        by_list = rng.random() < 0.7
        if by_list:
            lines = [str(p) for p in paths]
            (folder / "list.txt").write_text("\n".join(lines) + "\n")
        else:
            paths = [p for p in paths if os.path.lexists(p) and not p.is_dir()]  # a pipe has a row that says so
            if not paths:
                paths = [place / "zz.jpg"]
                paths[0].write_bytes(b"")
        return Case(
            f"{len(paths)} by {'list' if by_list else 'folder'}", ("",), "accepted", (paths, set(sound), by_list)
        )

    def run(self, case: Case, folder: Path) -> None:
        """Run every entry point."""
        from unseen.data.finding import FoundImages
        from unseen.recognizer.stream import Options, predict_to_file

        paths, sound, by_list = case.data
        found = FoundImages([], [folder / "list.txt"]) if by_list else FoundImages([folder / "images"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            predict_to_file(self.recognizer, found, folder / "out.csv", Options(batch_size=4), workers=0)
        with (folder / "out.csv").open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        if [r["image"] for r in rows] != [str(p) for p in paths]:
            raise WrongResultError(f"{len(rows)} rows for {len(paths)} images")
        for path, row in zip(paths, rows, strict=True):
            if bool(row["error"]) == bool(row["best_class"]) or (path in sound and row["error"]):
                raise WrongResultError(f"{path.name}: {row}")


def _warm_pillow() -> None:
    """Load what Pillow loads with its first image."""
    from unseen.ground.images import open_image  # noqa: F401

    Image.init()
