"""``unseen serve``: a trained model as a web page and a JSON API."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unseen.cli.common import DeviceOption, EngineOption, SeedOption, app, err, long_work, out
from unseen.errors import UnseenError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from unseen.serve.settings import Settings

TRIES = 50
CHANGES = "use this page and change classes"
AllowHostOption = Annotated[
    list[str] | None, typer.Option(help="Host name to accept, for use behind a proxy (repeatable).")
]


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at the port, or at the next free one.

    Raises:
        UnseenError: this machine does not have the address, or all ports tried are taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except socket.gaierror:
        raise UnseenError(
            "unknown host", where=f"--host {host}", hint="use 127.0.0.1, or this machine's address"
        ) from None
    for candidate in range(port, min(port + TRIES, 65536)):
        # asyncio turns off Nagle's algorithm only if TCP is named; otherwise every answer waits 40 ms
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(1024)
        except PermissionError:
            listener.close()
            raise UnseenError("permission denied", where=f"--port {candidate}", hint="use a port above 1023") from None
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise UnseenError(error.strerror or str(error), where=f"--host {host}", hint="127.0.0.1") from None
        else:
            return listener
    raise UnseenError(f"ports {port} to {candidate} are taken", hint="choose another --port")


def is_public(host: str) -> bool:
    """Whether other machines can reach this address."""
    try:
        return not ipaddress.ip_address(socket.gethostbyname(host) if ":" not in host else host).is_loopback
    except (OSError, ValueError):
        return True


@app.command()
def serve(
    run: Annotated[
        Path,
        typer.Argument(
            help="Run folder, saved model, or hf:OWNER/NAME[@REVISION].",
            show_default=False,
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 accepts connections from other machines.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; the next free one if it is taken.", min=1, max=65535)] = 8000,
    max_upload_mb: Annotated[int, typer.Option(help="Largest request, in MB.", min=1, max=2000)] = 20,
    max_megapixels: Annotated[float, typer.Option(help="Largest image, in megapixels.", min=0.1, max=89)] = 50,
    queue: Annotated[int, typer.Option(help="Concurrent requests; further ones get status 429.", min=1)] = 64,
    threads: Annotated[int, typer.Option(help="CPU threads for the model; 0 uses torch's default.", min=0)] = 0,
    allow_host: AllowHostOption = None,
    save: Annotated[bool, typer.Option("--save", help="Save added and changed classes in the folder.")] = False,
    prior: Annotated[
        Path | None,
        typer.Option(help="Table of how likely each class is by place and month.", show_default=False),
    ] = None,
    place: Annotated[str | None, typer.Option(help="Place that the page starts with [default: all].")] = None,
    month: Annotated[str | None, typer.Option(help="Month that the page starts with [default: all].")] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = None,
) -> None:
    """Serve a model as a web page and a JSON API, by default on this machine only.

    Example: `unseen serve runs/msdnpp-fieldguide --open`
    """
    from unseen.ground.progress import quiet_libraries

    away = str(run).startswith("hf:")
    if prior is None and (place is not None or month is not None):
        given = "--place" if place is not None else "--month"
        raise UnseenError("there is no prior", where=given, hint="pass --prior FILE")
    if away and save:
        raise UnseenError("classes cannot be saved in a model on the hub", where="--save", hint="serve a local folder")
    try:
        from unseen.serve.app import create_app
    except ModuleNotFoundError as error:
        raise UnseenError(f"{error.name} is not installed", hint="pip install 'unseen[app]'") from None
    import torch

    from unseen.classes.prior import ANY, Prior
    from unseen.recognizer import Recognizer
    from unseen.serve.about import metrics_of
    from unseen.serve.settings import Settings

    if threads:
        torch.set_num_threads(threads)
    settings = Settings(
        prior=None if prior is None else Prior.read(prior).at(place, month),
        max_upload=max_upload_mb * 2**20,
        max_pixels=round(max_megapixels * 1e6),
        queue=queue,
        hosts=tuple(name.lower() for name in allow_host or ()),
        save=run if save else None,
        watch=None if away else run,
        folder=None if away or is_public(host) else run,
    )
    with quiet_libraries():
        recognizer = Recognizer.load(run, seed=seed, device=device, engine=engine)
        if not recognizer.method.end_to_end:
            recognizer.backbone.ready()  # not in the first request
        if settings.prior is not None:
            summed = settings.prior.at(ANY if settings.prior.places else None, ANY if settings.prior.months else None)
            summed.named_now(recognizer.table).weights(recognizer.classes)
        application = create_app(
            recognizer,
            settings,
            name=str(run).removeprefix("hf:") if away else run.resolve().name,
            metrics=metrics_of(run),
        )
    serve_application(application, settings, host, port, str(run), open_page)


def serve_application(
    application: FastAPI, settings: Settings, host: str, port: int, what: str, open_page: bool, warning: str = CHANGES
) -> None:
    """Print the address and serve until Ctrl-C."""
    from unseen.serve.server import Server, configure

    listener = listen(host, port)
    found = listener.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    url = f"http://{shown}:{found}/"
    if found != port:
        err.print(f"port {port} is taken; using {found}", highlight=False)
    if is_public(host):
        err.print(
            f"[bold yellow]warning:[/] there is no password: anyone who can reach this machine can {warning}",
            highlight=False,
            soft_wrap=True,
        )
    out.print(f"serving {what} at {url}   (press Ctrl-C to stop)", highlight=False, soft_wrap=True)
    if open_page:
        typer.launch(url)
    long_work()
    server = Server(configure(application, settings))
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(listener):
        server.run(sockets=[listener])
    out.print("stopped", highlight=False)
