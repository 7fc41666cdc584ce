"""Byte-level mutations shared by all targets."""

from __future__ import annotations

from random import Random

_ODD = (0x00, 0x01, 0x7F, 0x80, 0xFF, 0x22, 0x27, 0x2C, 0x09, 0x0A, 0x0D, 0xEF, 0xFE)


def spoil(content: bytes, rng: Random, most: int = 8) -> tuple[bytes, str]:
    """Content with 1 to `most` random changes, and their names."""
    found, done = bytearray(content), []
    for _ in range(1 + min(most - 1, int(rng.expovariate(0.6)))):
        how = rng.choice(_WAYS)
        how(found, rng)
        done.append(how.__name__.strip("_"))
    return bytes(found), ", ".join(done)


def _at(found: bytearray, rng: Random) -> int:
    return rng.randrange(len(found)) if found else 0


def _flip(found: bytearray, rng: Random) -> None:
    if found:
        found[_at(found, rng)] ^= 1 << rng.randrange(8)


def _set(found: bytearray, rng: Random) -> None:
    if found:
        found[_at(found, rng)] = rng.choice((*_ODD, rng.randrange(256)))


def _number(found: bytearray, rng: Random) -> None:
    """Change a number: lengths and offsets are where parsers break."""
    width = rng.choice((1, 2, 4, 8))
    value = rng.choice(
        (0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), 2 ** (8 * width - 1) - 1, len(found), len(found) + 1)
    )
    at = _at(found, rng)
    found[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, rng.choice(("little", "big")))


def _cut(found: bytearray, rng: Random) -> None:
    del found[_at(found, rng) :]


def _drop(found: bytearray, rng: Random) -> None:
    at = _at(found, rng)
    del found[at : at + rng.choice((1, 2, 4, 16, 256))]


def _insert(found: bytearray, rng: Random) -> None:
    at = _at(found, rng)
    found[at:at] = bytes(rng.choice(_ODD) for _ in range(rng.choice((1, 2, 8, 64))))


def _repeat(found: bytearray, rng: Random) -> None:
    at = _at(found, rng)
    piece = found[at : at + rng.choice((1, 8, 64, 512))]
    found[at:at] = piece * rng.choice((1, 2, 50))


def _swap(found: bytearray, rng: Random) -> None:
    one, other, size = _at(found, rng), _at(found, rng), rng.choice((1, 4, 32))
    found[one : one + size], found[other : other + size] = found[other : other + size], found[one : one + size]


def _empty(found: bytearray, rng: Random) -> None:
    if rng.random() < 0.2:
        found.clear()


def _append(found: bytearray, rng: Random) -> None:
    found += bytes(rng.randrange(256) for _ in range(rng.choice((1, 16, 512))))


_WAYS = (_flip, _set, _number, _cut, _drop, _insert, _repeat, _swap, _empty, _append)
