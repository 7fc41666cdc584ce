"""``unseen vectors``: attribute vectors from word vectors or a text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unseen.cli.common import CacheOption, JsonFlag, app, err, out, plain_text, print_json, with_bars
from unseen.cli.configuring import pairs
from unseen.errors import UnseenError
from unseen.ground.words import counted

SHOWN = 12


@app.command()
def vectors(
    names: Annotated[
        str,
        typer.Argument(
            help="`fieldguide`, a dataset folder, or a text file with one attribute name per line.", show_default=False
        ),
    ],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="word2vec file (binary or text), GloVe file (also .gz), text:MODEL (CLIP, SigLIP) or sentence:MODEL.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help=".npy file to write [default: attribute_vectors.npy in the dataset folder]."
        ),
    ] = None,
    combine: Annotated[
        str, typer.Option(help="Combine a name's word vectors by sum (as in the published files) or mean.")
    ] = "sum",
    instead: Annotated[
        list[str] | None, typer.Option(help="Replace a word: toughskin='tough skin' (repeatable).")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Use a zero vector for attributes without any known word.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list unknown words.")] = False,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make attribute vectors from word vectors or a text encoder, and list unknown words.

    Example: `unseen vectors my-folder --from glove.6B.300d.txt`
    """
    from unseen.classes.naming import attribute_words
    from unseen.vectors.sources import make_vectors, write_vectors

    attributes, target = _attributes(names, cache)
    target = output or target
    if not dry_run:
        if target is None:
            raise UnseenError("no output file", where=names, hint="pass --output FILE.npy")
        if target.suffix != ".npy":
            raise UnseenError("not a .npy file", where=target, hint="pass --output NAME.npy")
        if target.exists() and not force:
            raise UnseenError(
                "the file already exists", where=target, hint="pass --force to overwrite it, or another --output"
            )
    others = pairs(instead or [], "--instead")
    used = {word for name in attributes for word in attribute_words(name)}
    for word in others:
        if word not in used:
            raise UnseenError(
                f'no attribute has the word "{word}"', where="--instead", hint="spell it as in the attribute names"
            )
    made = with_bars(lambda bars: make_vectors(attributes, source, combine=combine, instead=others, progress=bars))
    if made.empty and not (allow_missing or dry_run):
        _say_lacking(made.lacking)
        raise UnseenError(
            f'no word vector for any word of "{made.empty[0]}"'
            + (f" (and {counted(len(made.empty) - 1, 'more attribute')})" if len(made.empty) > 1 else ""),
            where=source,
            hint=f"pass --instead {next(iter(made.lacking))}='OTHER WORDS', a larger file, or --allow-missing",
        )
    written = None if dry_run or target is None else write_vectors(target, made)
    summary = {
        "written": None if written is None else str(written),
        "shape": list(made.values.shape),
        "lacking": made.lacking,
        "empty": made.empty,
        **{k: v for k, v in made.about.items() if k not in ("attributes", "lacking")},
    }
    if as_json:
        print_json(summary)
        return
    _say_lacking(made.lacking)
    for name in made.empty:
        err.print(f'[yellow]note:[/] "{plain_text(name)}" gets a zero vector: it has no known word', highlight=False)
    rows, dim = made.values.shape
    out.print(
        f"{counted(rows, 'attribute')}, {counted(dim, 'dimension')}: {plain_text(made.about['label'])}", highlight=False
    )
    if written is not None:
        out.print(f"written: {written}", highlight=False, soft_wrap=True)


def _attributes(names: str, cache: Path | None) -> tuple[tuple[str, ...], Path | None]:
    """Attribute names, and the place of vectors in a dataset folder."""
    from unseen.data.catalogue import load_dataset
    from unseen.vectors.sources import read_names

    if Path(names).is_file():
        return read_names(Path(names)), None
    attributes = load_dataset(names, cache=cache).table.attributes.names
    if all(name.isdigit() for name in attributes):
        raise UnseenError("the attributes have no names", where=names, hint="train with --vectors random")
    return attributes, Path(names) / "attribute_vectors.npy" if Path(names).is_dir() else None


def _say_lacking(lacking: dict[str, list[str]]) -> None:
    for word, own in list(lacking.items())[:SHOWN]:
        more = f" and {len(own) - 3} more" if len(own) > 3 else ""
        text = f'[yellow]unknown word:[/] "{plain_text(word)}" in {plain_text(", ".join(own[:3]))}{more}'
        err.print(text, highlight=False, soft_wrap=True)
    if len(lacking) > SHOWN:
        err.print(f"... and {counted(len(lacking) - SHOWN, 'more word')} (--json shows all)", highlight=False)
