"""The recipes as a plain function: which stages make each, and what is made of all of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from artifacts.reference import Ref
from flows.pipeline import Runner
from flows.trials import find_best
from models.config import Config, Network, Pretrain, Run
from models.datasets import find_dataset
from models.images import DatasetError
from models.recipe import Recipe, load_recipes
from models.sources import Source
from models.strategies import Phase, Strategy
from tasks.answer import answer
from tasks.assess import assess
from tasks.cache_activations import cache_activations
from tasks.compare import Absent, compare
from tasks.load_dataset import load_dataset
from tasks.pretrain import pretrain
from tasks.pretrain_pairs import pretrain_pairs
from tasks.split import split_images
from tasks.stage import Stage, Untracked
from tasks.time_caching import time_caching
from tasks.train import train

# Where the documents' images cannot be had.
STAND_INS = {"notmnist": "letters"}
# The same head, from images and from cached activations.
UNCACHED, CACHED = "transfer-frozen5", "transfer-cached5"


@dataclass(frozen=True)
class Trained:
    """One seed of a recipe."""

    network: Ref
    activations: Ref | None


def reproduce(config: Config, source: Source, call: Runner) -> Ref:
    """Trains every recipe over its seeds and compares the figures with what was printed."""
    return Reproduction(config, call).go()


class Reproduction:
    """The recipes under way: what several of them share is asked for once."""

    def __init__(self, config: Config, call: Runner) -> None:
        self.config, self.call = config, call
        self.recipes = {recipe.id: recipe for recipe in load_recipes(config.reproduce.recipes)}
        self.absent: dict[str, str] = {}
        self.trained: dict[tuple[str, int], Trained] = {}
        # What was found by a dataset's name: telling what it is takes time.
        self.datasets: dict[str, Ref] = {}

    def go(self) -> Ref:
        """Runs all of them."""
        assessed = tuple(ref for each in self.recipes.values() for ref in self._assess(each))
        self.call(
            answer,
            assessed=assessed,
            caching=self._time_caching(),
            confidence=self.config.evaluate.confidence,
        )
        return self.call(
            compare,
            recipes=tuple(self.recipes.values()),
            assessed=assessed,
            absent=tuple(Absent(recipe=id, reason=why) for id, why in self.absent.items()),
        )

    def _assess(self, recipe: Recipe) -> Iterator[Ref]:
        if recipe.kind == "picture":
            return
        try:
            dataset = self._load(recipe)
        except DatasetError as error:
            self.absent[recipe.id] = str(error)
            return
        trained = [self._train(recipe, seed) for seed in self._seeds(recipe)]
        yield self.call(
            assess.named(recipe.id),
            recipe=recipe.id,
            trained=tuple(each.network for each in trained),
            activations=tuple(each.activations for each in trained if each.activations),
            dataset=dataset,
            split=self._split(recipe),
            strategy=make_strategy(recipe) if recipe.start else None,
            threads=self.config.run.threads,
        )

    def _seeds(self, recipe: Recipe) -> range:
        first = self.config.run.seed
        return range(first, first + (self.config.reproduce.seeds or recipe.seeds))

    def _name(self, recipe: Recipe) -> str:
        given = {"notmnist": self.config.reproduce.notmnist}
        name = recipe.data.dataset
        return given.get(name) or STAND_INS.get(name, name)

    def _load(self, recipe: Recipe) -> Ref:
        name = self._name(recipe)
        if name not in self.datasets:
            source, limit = find_dataset(name), self.config.data.limit
            self.datasets[name] = self.call(
                load_dataset, source=source, location=Untracked(name), limit=limit
            )
        return self.datasets[name]

    def _split(self, recipe: Recipe) -> Ref:
        return self.call(split_images, dataset=self._load(recipe), images=recipe.data)

    def _train(self, recipe: Recipe, seed: int) -> Trained:
        place = recipe.same_as or recipe.id, seed
        if place not in self.trained:
            self.trained[place] = self._train_anew(self.recipes[place[0]], seed)
        return self.trained[place]

    def _train_anew(self, recipe: Recipe, seed: int) -> Trained:
        run = self.config.run.model_copy(update={"seed": seed})
        if recipe.kind == "search":
            return Trained(self._search(recipe, run), None)
        if recipe.kind == "pairs":
            return Trained(self._pair(recipe, run), None)
        if not recipe.start:
            network = self.call(
                pretrain.named(recipe.id),
                dataset=self._load(recipe),
                split=self._split(recipe),
                network=recipe.network,
                pretrain=_pretraining(recipe),
                augmentation=None,
                run=run,
                trunk=None,
            )
            return Trained(network, None)
        return self._train_on(recipe, recipe.start.recipe, run)

    def _train_on(self, recipe: Recipe, base: str, run: Run) -> Trained:
        strategy = make_strategy(recipe)
        checkpoint = self._train(self.recipes[base], run.seed).network
        activations = self._cache(recipe, checkpoint, strategy) if strategy.above else None
        network = self.call(
            train.named(recipe.id),
            checkpoint=checkpoint,
            dataset=self._load(recipe),
            split=self._split(recipe),
            network=recipe.network,
            strategy=strategy,
            augmentation=None,
            run=run,
            activations=activations,
        )
        return Trained(network, activations)

    def _pair(self, recipe: Recipe, run: Run) -> Ref:
        return self.call(
            pretrain_pairs,
            dataset=self._load(recipe),
            split=self._split(recipe),
            network=recipe.network,
            pairs=recipe.pairs,
            run=run,
        )

    def _search(self, recipe: Recipe, run: Run) -> Ref:
        def call(stage: Stage, /, **arguments: Any) -> Ref:
            return self.call(stage.named(recipe.id), **arguments)

        settings = self._searched(recipe, run)
        return find_best(settings, self._load(recipe), self._split(recipe), call)

    def _searched(self, recipe: Recipe, run: Run) -> Config:
        """The settings of a search: what the recipe says, laid over the defaults."""
        return Config(
            network=Network.model_validate(recipe.network.model_dump()),
            pretrain=_pretraining(recipe),
            search=recipe.search,
            run=run,
        )

    def _cache(self, recipe: Recipe, checkpoint: Ref, strategy: Strategy) -> Ref:
        return self.call(
            cache_activations,
            checkpoint=checkpoint,
            dataset=self._load(recipe),
            split=self._split(recipe),
            layers=(f"hidden{strategy.above}",),
            threads=self.config.run.threads,
        )

    def _time_caching(self) -> Ref | None:
        frozen, cached = self.recipes.get(UNCACHED), self.recipes.get(CACHED)
        if not (frozen and cached and cached.start):
            return None
        seed = self.config.run.seed
        made = self._train(cached, seed)
        return self.call(
            time_caching,
            base=self._train(self.recipes[cached.start.recipe], seed).network,
            dataset=self._load(cached),
            split=self._split(cached),
            activations=made.activations,
            network=cached.network,
            frozen=make_strategy(frozen),
            cached=make_strategy(cached),
            seed=seed,
            threads=self.config.run.threads,
        )


def _pretraining(recipe: Recipe) -> Pretrain:
    """How a recipe trains, as the stages take it: images as they are, no classes but its own."""
    plain = {"augment": False, "forged": 0.0}
    return Pretrain.model_validate({**recipe.training.model_dump(), **plain})


def make_strategy(recipe: Recipe) -> Strategy:
    """How a recipe goes on from another one's network, as stage ``train`` takes it."""
    start = recipe.start
    if start is None:
        msg = f"recipe {recipe.id} starts from nothing"
        raise ValueError(msg)
    trained = len(recipe.network.sizes) - start.frozen
    return Strategy(
        name="reuse",
        title=recipe.title,
        pretrained=True,
        reused=start.layers,
        head=start.head,
        above=start.frozen if start.cached else 0,
        phases=(Phase(name="tune", layers=trained, epochs=recipe.training.max_epochs),),
        ensemble=1,
        training=recipe.training,
        epoch_images=0,
    )
