"""Commands about nights: ``nightly`` runs one, ``nights`` lists them, ``serve`` waits for them."""

import sys
from typing import Annotated

from cyclopts import App, Parameter

from artifacts.summary import percent
from flows import server
from flows.champion_commands import KEY_LENGTH, make_table
from flows.importing import import_libraries
from flows.night import list_nights, summarise
from flows.options import (
    DONE,
    ConfigFile,
    Json,
    Seed,
    Settings,
    StorePath,
    Tiny,
    open_store,
    print_json,
    read_config,
)
from flows.terminal import Screen


def register(app: App) -> None:
    """Adds the commands to the command line."""
    for command in (nightly, nights, serve):
        app.command(command)


def nightly(
    *,
    config: ConfigFile = None,
    set_: Settings = None,
    seed: Seed = None,
    tiny: Tiny = False,
    store: StorePath = None,
    as_json: Json = False,
) -> int:
    """Run one night now: take in new images, retrain, promote the better model, tidy up."""
    settings, place = read_config(config, set_, seed, tiny), open_store(store)
    server.settle_environment()
    with server.connection() as prefect_server:
        from artifacts.nights import NightRecord
        from flows.nightly import nightly_retrain

        import_libraries()
        prefect_server.wait()
        with server.used_by_prefect(prefect_server.url):
            record = nightly_retrain(config=settings, store=str(place.root))
    if not isinstance(record, NightRecord):
        sys.stdout.write(f"{record}\n")
    elif as_json:
        print_json(record.model_dump(mode="json"))
    else:
        for name, text in summarise(record).items():
            sys.stdout.write(f"{name}: {text}\n")
    return DONE


def nights(*, store: StorePath = None, as_json: Json = False) -> int:
    """List the nights, youngest first: what came in and what was decided."""
    place = open_store(store)
    found = list_nights(place)
    if as_json:
        return print_json({"nights": found})
    screen = Screen()
    if not found:
        screen.print(f"no nights in {place.root}", markup=False, soft_wrap=True)
        return DONE
    table = make_table("night", "", "in", "refused", "champion", "%", "why")
    for row in found:
        accuracy = "" if row["accuracy"] is None else percent(row["accuracy"])
        counts = str(row["accepted"]), str(row["rejected"])
        decision = "promoted" if row["promoted"] else "kept"
        status = decision if row["status"] == "completed" else row["status"]
        why = row["why"] or row["error"]
        champion = row["champion"][:KEY_LENGTH]
        table.add_row(row["started"][:16], status, *counts, champion, accuracy, why)
    screen.print(table)
    return DONE


def serve(
    *,
    config: ConfigFile = None,
    set_: Settings = None,
    seed: Seed = None,
    tiny: Tiny = False,
    cron: Annotated[
        str, Parameter(help="When the nightly retrain runs.", show_default=True)
    ] = "0 2 * * *",
    timezone: Annotated[str, Parameter(help="Of --cron.", show_default=True)] = "UTC",
    store: StorePath = None,
) -> int:
    """Run what is scheduled or started from Prefect's pages, without a work pool or worker."""
    settings, place = read_config(config, set_, seed, tiny), open_store(store)
    server.settle_environment()
    with server.connection() as prefect_server:
        prefect_server.wait()
        with server.used_by_prefect(prefect_server.url):
            from flows.serving import serve_deployments

            serve_deployments(settings, place, cron, timezone)
    return DONE
