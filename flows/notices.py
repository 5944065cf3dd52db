"""Telling people, through whatever apprise knows; a notice that fails never fails a night."""

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from models.config import Config, ConfigError

if TYPE_CHECKING:
    import apprise

# Addresses often hold a secret, and settings are kept with every run; this is not.
VARIABLE = "HEADSTART_NOTIFY"


@dataclass(frozen=True)
class Notice:
    """Something that a person wants to know.

    Attributes:
        kind: How apprise marks it.
        title: One line.
        text: The rest.
    """

    kind: Literal["success", "info", "warning", "failure"]
    title: str
    text: str


def addresses(config: Config) -> tuple[str, ...]:
    """Whom to tell: those in the settings, then those in the environment."""
    named = os.environ.get(VARIABLE, "").split()
    return (*config.nightly.notify, *named)


def check_addresses(urls: Iterable[str]) -> None:
    """Refuses addresses before a night relies on them.

    Raises:
        ConfigError: If apprise has no service for one. It names its beginning only.
    """
    problems = [
        f"nightly.notify = {_shown(url)}: no service takes this address; "
        "see https://appriseit.com/services"
        for url in urls
        if _service(url) is None
    ]
    if problems:
        raise ConfigError(problems)


def send(notice: Notice, urls: Iterable[str]) -> None:
    """Sends a notice to each address; what fails is logged."""
    logger = logging.getLogger("headstart")
    for url in urls:
        try:
            service = _service(url)
            sent = service is not None and service.notify(
                title=notice.title, body=notice.text, notify_type=notice.kind
            )
        except Exception as error:  # noqa: BLE001 - a foreign service may fail in any way
            logger.warning("notice to %s: %s", _shown(url), type(error).__name__)
        else:
            if not sent:
                logger.warning("notice to %s was not taken", _shown(url))


def _service(url: str) -> "apprise.Apprise | None":
    # Imported here: it takes a moment, and most commands tell nobody.
    import apprise

    service = apprise.Apprise()
    return service if service.add(url) else None


def _shown(url: str) -> str:
    """An address without what it may keep secret."""
    return f"{url.partition('://')[0]}://..."
