import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flows.notices import Notice, addresses, check_addresses, send
from models.config import Config, ConfigError, load_config

# Apprise 1.13 looks for a module that Python 3.13 no longer has.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
NOTICE = Notice("success", "a title", "a text")


@pytest.fixture
def receiver():
    """The address of a server on this machine, and what it has been sent."""
    received = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            received.append(json.loads(self.rfile.read(length)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words):
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"json://127.0.0.1:{server.server_port}", received
        server.shutdown()


def test_a_notice_arrives(receiver):
    url, received = receiver
    send(NOTICE, [url])
    assert [(m["title"], m["message"], m["type"]) for m in received] == [
        ("a title", "a text", "success")
    ]


def test_a_notice_that_fails_keeps_no_other_and_raises_nothing(receiver, caplog):
    url, received = receiver
    send(NOTICE, ["json://127.0.0.1:1/secret", "nosuch://secret", url])
    assert len(received) == 1
    assert "json://..." in caplog.text
    assert "secret" not in "".join(r.getMessage() for r in caplog.records if r.name == "headstart")


def test_addresses_come_from_the_settings_and_the_environment(monkeypatch):
    monkeypatch.setenv("HEADSTART_NOTIFY", "json://b json://c")
    config = load_config(None, ["nightly.notify=json://a"])
    assert addresses(config) == ("json://a", "json://b", "json://c")
    monkeypatch.delenv("HEADSTART_NOTIFY")
    assert addresses(Config()) == ()


def test_an_address_that_no_service_takes_is_refused_without_its_secret():
    check_addresses(["json://127.0.0.1"])
    with pytest.raises(ConfigError, match="nightly.notify = nosuch://...: no service") as caught:
        check_addresses(["nosuch://secret"])
    assert "secret" not in str(caught.value)
