import pytest

from flows.stopping import meant

# A signal that arrives inside one of pydantic's serializers comes out as a ValueError.
HIDDEN = """
import os, signal
from pydantic import BaseModel, model_serializer
from flows import cli

class Settings(BaseModel):
    @model_serializer
    def serialize(self):
        os.kill(os.getpid(), signal.{name})
        return {{}}

cli._config = lambda *_, **__: Settings().model_dump_json()
cli.main(["config"])
"""


@pytest.mark.parametrize(
    ("name", "code", "said"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")]
)
def test_a_signal_that_became_another_error_is_still_told_as_what_it_was(
    headstart, name, code, said
):
    process = headstart.start_python("-c", HIDDEN.format(name=name))
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert err.splitlines() == [
        f"headstart: {said}; the same command goes on where this one stopped"
    ]


# Nothing of Python's own, which a signal could end: so it is while a program is compiled or runs.
COMPUTING = """
import os, signal, time
from flows import cli
from models.interruption import interruptibly

def compute():
    os.kill(os.getpid(), signal.{name})
    time.sleep(600)

def config(*_, **__):
    with interruptibly() as call:
        call(compute)

cli._config = config
cli.main(["config"])
"""


# Python reports what is raised in a weak reference's callback, and goes on.
SWALLOWED = """
import os, signal, time, weakref
from flows import cli

def config(*_, **__):
    class Thing: pass
    thing = Thing()
    reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.{name}))
    del thing
    time.sleep(600)

cli._config = config
cli.main(["config"])
"""


@pytest.mark.parametrize("script", [COMPUTING, SWALLOWED], ids=["computing", "swallowed"])
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_is_heeded_wherever_it_comes(headstart, script, name, code):
    process = headstart.start_python("-c", script.format(name=name))
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert err.endswith("the same command goes on where this one stopped\n")
    assert "ignored" not in err


def test_an_error_without_a_signal_stays_what_it_is():
    error = ValueError("rubbish")
    assert meant(error) is error
