"""``unseen stores``: verify stored features."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unseen.cli.common import CacheOption, JsonFlag, app, out, print_json, print_table, with_bars
from unseen.errors import StoreError
from unseen.ground.words import counted

if TYPE_CHECKING:
    from unseen.features.store import StoreState
    from unseen.ground.progress import Progress


@app.command()
def stores(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Region store, cache folder or dataset folder [default: the cache folder]."),
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Drop damaged chunks; the next extraction computes only those again.")
    ] = False,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Verify the checksums of stored features.

    Exits with status 1 if something is damaged and --fix is not given. Example: `unseen stores --fix`
    """
    from unseen.features.store import find_stores, inspect
    from unseen.ground.cache import cache_folder

    place = folder or cache_folder(cache)
    folders = find_stores(place)
    if not folders and folder is not None:
        raise StoreError("no region stores", where=place, hint="pass a store, a cache folder or a dataset folder")

    def check(progress: Progress) -> list[StoreState]:
        return [inspect(store, fix, partial(progress, f"checking {store.name}")) for store in folders]

    found = with_bars(check)
    if as_json:
        print_json([{**vars(state), "folder": str(state.folder), "whole": state.whole} for state in found])
    else:
        print_table([_row(state, fix) for state in found])
        out.print(f"{len(found)} stores in {place}", highlight=False, soft_wrap=True)
    if any(state.problem or state.damaged for state in found) and not fix:
        raise typer.Exit(1)


def _row(state: StoreState, fixed: bool) -> dict[str, str]:
    parts = [state.problem] if state.problem else []
    parts += [f"{counted(len(state.damaged), 'image')} damaged"] if state.damaged else []
    if state.finished < state.images and not state.problem:
        parts.append(f"unfinished: {state.finished} of {counted(state.images, 'image')}")
    says = "; ".join(parts) or "whole"
    if fixed and (state.damaged or state.problem):
        says += " (dropped)"
    return {
        "store": str(state.folder),
        "features of": state.backbone,
        "images": f"{state.images:,}",
        "GB": f"{state.nbytes / 1e9:,.2f}",
        "state": says,
    }
