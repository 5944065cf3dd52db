"""A runner whose stages are others: their names, keys and inputs stay, their bodies do not."""

from collections.abc import Callable
from typing import Any

from artifacts.reference import Ref
from flows.pipeline import SideRunner, Stages
from tasks.stage import Stage


class ImitatedBeside:
    """Calls imitated stages, some of them beside others, as the runner it is given does."""

    def __init__(self, imitate: Callable[[Stage], Stage], call: SideRunner) -> None:
        self.imitate, self.call = imitate, call

    def __call__(self, stage: Stage, /, **arguments: Any) -> Ref:
        return self.call(self.imitate(stage), **arguments)

    def beside(self, stages: Stages, /) -> Stages:
        return self.call.beside(stages)
