"""The settings of a run: one frozen tree of typed, described values.

Sources, later wins: the defaults below, a TOML file, ``section.field=value`` overrides.
Imports neither TensorFlow nor Prefect, so anything may import it.
"""

import difflib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

Activation = Literal["elu", "relu", "leaky_relu", "selu", "gelu", "tanh", "sigmoid"]
Initializer = Literal[
    "he_normal",
    "he_uniform",
    "glorot_uniform",
    "glorot_normal",
    "lecun_normal",
    "truncated_normal",
]
OptimizerName = Literal["adam", "sgd", "momentum", "nesterov", "rmsprop", "adagrad"]
Schedule = Literal["constant", "exponential", "staircase", "cosine"]
StrategyName = Literal[
    "probe", "top", "full", "probe-then-tune", "gradual", "discriminative", "l2-sp"
]
BaselineName = Literal["pixels", "scratch"]


class ConfigError(ValueError):
    """The settings are wrong; holds one line for every problem found."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def _split_commas(value: object) -> object:
    if isinstance(value, str):
        # With or without the brackets and quotes of TOML.
        inner = value.strip().removeprefix("[").removesuffix("]")
        return [part.strip(" \t\"'") for part in inner.split(",") if part.strip()]
    return value


def _refuse_repeats(values: tuple[object, ...]) -> tuple[object, ...]:
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        named = {"twice": ", ".join(twice)}
        raise PydanticCustomError("twice", "names {twice} more than once", named)
    return values


def split_activation(text: str) -> tuple[str, float]:
    """Takes ``leaky_relu:0.01`` apart: the activation's name and its slope, 0 if none is given.

    Raises:
        PydanticCustomError: If there is no such activation, or it has no such slope.
    """
    name, colon, slope = text.partition(":")
    if name not in get_args(Activation):
        known = ", ".join(get_args(Activation))
        message = "unknown activation {name}; there are {known}, and leaky_relu:SLOPE"
        raise PydanticCustomError("activation", message, {"name": name, "known": known})
    try:
        value = float(slope) if colon else 0.0
    except ValueError:
        value = math.nan
    if colon and not (name == "leaky_relu" and 0 < value < 1):
        message = "a slope between 0 and 1 may follow leaky_relu alone, as in leaky_relu:0.01"
        raise PydanticCustomError("activation", message)
    return name, value


def _check_activation(text: str) -> str:
    split_activation(text)
    return text


Classes = Annotated[tuple[int, ...], BeforeValidator(_split_commas)]
Counts = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_split_commas)]
Sizes = Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_split_commas)]
Rates = Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], BeforeValidator(_split_commas)]
Names = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]
# What a search may choose from: each value once.
_ONCE = BeforeValidator(_split_commas), AfterValidator(_refuse_repeats)
SizeChoices = Annotated[tuple[Annotated[int, Field(ge=1)], ...], *_ONCE]
RateChoices = Annotated[tuple[Annotated[float, Field(gt=0)], ...], *_ONCE]
ShareChoices = Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], *_ONCE]
SlopedActivation = Annotated[str, AfterValidator(_check_activation)]
ActivationChoices = Annotated[tuple[SlopedActivation, ...], *_ONCE]
StrategyNames = Annotated[tuple[StrategyName, ...], BeforeValidator(_split_commas)]


class Section(BaseModel):
    """A group of settings: frozen, closed to unknown names, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_bool_for_number(cls, value: object, info: ValidationInfo) -> object:
        # Pydantic reads true as 1: `units = true` is a mistake, not a one-unit network.
        field = cls.model_fields[info.field_name or ""]
        values = value if isinstance(value, (list, tuple)) else (value,)
        if field.annotation is not bool and any(isinstance(item, bool) for item in values):
            raise PydanticCustomError("bool_for_number", "takes no true or false")
        return value


class Data(Section):
    """Which images, which classes, how many."""

    dataset: str = Field(
        "mnist",
        description="'mnist' (bundled), 'fashion-mnist', 'letters' (drawn from fonts), or a path: "
        "of an .npz file with x_train, y_train, x_test, y_test: images (rows, height, width) or "
        "(rows, columns), labels (rows,); of a folder of IDX files named as MNIST's; of a folder "
        "with train and test, or notMNIST_large and notMNIST_small, of classes of PNG files.",
    )
    source_classes: Classes = Field(
        (0, 1, 2, 3, 4), min_length=2, description="Classes the trunk is pretrained on."
    )
    target_classes: Classes = Field(
        (5, 6, 7, 8, 9), min_length=2, description="Classes the new heads are fine-tuned on."
    )
    validation_rows: int = Field(
        5000, ge=1, description="The first rows of the training file, kept for validation."
    )
    few_shot: int = Field(
        100, ge=0, description="Training images for each target class; 0 is all there are."
    )
    few_shot_validation: int = Field(
        30, ge=0, description="Validation images for each target class; 0 is all there are."
    )
    limit: int = Field(
        0, ge=0, description="Use only the first rows of the training and test files; 0 is all."
    )

    @model_validator(mode="after")
    def _classes_make_sense(self) -> Self:
        for name in ("source_classes", "target_classes"):
            classes = getattr(self, name)
            twice = sorted({c for c in classes if classes.count(c) > 1})
            if twice:
                raise PydanticCustomError(
                    "classes", "{name} names {twice} more than once", {"name": name, "twice": twice}
                )
        both = sorted(set(self.source_classes) & set(self.target_classes))
        if both:
            raise PydanticCustomError(
                "classes",
                "source_classes and target_classes overlap in {both}; "
                "a class can be pretrained on or transferred to, not both",
                {"both": both},
            )
        return self


class Network(Section):
    """The trunk: a stack of hidden layers. The heads are softmax layers on top."""

    hidden_layers: int = Field(5, ge=0, le=100, description="Hidden layers: hidden1, hidden2, ...")
    units: int = Field(100, ge=1, description="Units of each hidden layer.")
    widths: Sizes = Field(
        (),
        max_length=100,
        description="Units of each hidden layer, the lowest first, such as 300,100; instead of "
        "hidden_layers times units.",
    )
    filters: Sizes = Field(
        (),
        description="Filters of 3x3 convolutions below the hidden layers, the lowest first; "
        "images must be square.",
    )
    strides: Sizes = Field((), description="Stride of each convolution; empty is 1 for all.")
    inputs: Literal["unit", "centered", "standardized"] = Field(
        "unit",
        description="Pixels as the first layer sees them: from 0 to 1, from -0.5 to 0.5, or each "
        "with mean 0 and deviation 1 over the training images.",
    )
    outputs: Literal["softmax", "sigmoid"] = Field(
        "softmax",
        description="Activation and loss of the source head: one cross-entropy over the classes, "
        "or one for each class.",
    )
    activation: Activation = Field("elu", description="Activation of each hidden layer.")
    slope: float = Field(0.2, ge=0, description="Of leaky_relu below 0.")
    initializer: Initializer = Field("he_normal", description="Initialiser of hidden kernels.")
    head_initializer: Initializer = Field(
        "glorot_uniform", description="Initialiser of the source head's kernel."
    )
    initial_scale: float = Field(
        1.0,
        gt=0,
        description="Factor of the deviation of all initial kernels, which for truncated_normal is "
        "1 (before cutting off at 2).",
    )
    batch_norm: bool = Field(True, description="Batch normalisation of each hidden layer.")
    norm_place: Literal["before", "after"] = Field(
        "before", description="Batch normalisation before or after each activation."
    )
    norm_momentum: float = Field(
        0.99, ge=0, lt=1, description="Share of batch normalisation's statistics kept at a step."
    )
    norm_bias: bool = Field(
        False, description="Keep the biases, which normalisation before activations cancels."
    )
    norm_head: bool = Field(False, description="Normalise the source head's logits too.")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout rate after each hidden layer in pretraining."
    )
    dropouts: Rates = Field(
        (),
        description="Dropout rate after each hidden layer, the lowest first; instead of dropout.",
    )
    input_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout rate of the pixels.")
    alpha_dropout: float = Field(
        0.0, ge=0, lt=1, description="AlphaDropout rate, made for selu, before the source head."
    )
    l1: float = Field(0.0, ge=0, description="Factor of the sum of |weights| in the loss.")
    l2: float = Field(0.0, ge=0, description="Factor of the sum of squared weights in the loss.")
    max_norm: float = Field(
        0.0, ge=0, description="Longest a column of a hidden kernel may be; 0 is no limit."
    )
    max_norm_axis: Literal[0, 1] = Field(
        0, description="What is limited: 0 the weights into a unit, 1 those out of an input."
    )
    mixed_precision: bool = Field(
        False,
        description="Hidden layers multiply in bfloat16, which GPUs do quickly; weights and "
        "activations stay in float32.",
    )

    @model_validator(mode="after")
    def _lists_fit(self) -> Self:
        for name, layers, kind in (
            ("dropouts", self.sizes, "hidden layers"),
            ("strides", self.filters, "convolutions"),
        ):
            given = getattr(self, name)
            if given and len(given) != len(layers):
                raise PydanticCustomError(
                    "lengths",
                    "network.{name} has {given} values for {there} {kind}",
                    {"name": name, "given": len(given), "there": len(layers), "kind": kind},
                )
        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of each hidden layer, the lowest first."""
        return self.widths or (self.units,) * self.hidden_layers

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the hidden layers, bottom first: where the trunk can be cut."""
        return tuple(f"hidden{i + 1}" for i in range(len(self.sizes)))

    @property
    def dropout_rates(self) -> tuple[float, ...]:
        """Dropout rate after each hidden layer, the lowest first."""
        return self.dropouts or (self.dropout,) * len(self.sizes)

    @property
    def shape(self) -> str:
        """The layers in a word: ``5x100``, ``300-100``."""
        sizes = self.sizes
        if len(sizes) > 1 and len(set(sizes)) == 1:
            return f"{len(sizes)}x{sizes[0]}"
        parts = [f"{len(self.filters)} convolutions", *map(str, sizes)]
        return "-".join(parts if self.filters else parts[1:]) or "softmax"

    def up_to(self, layers: int) -> Self:
        """The lowest hidden layers alone."""
        changed: dict[str, Any] = {"hidden_layers": layers, "widths": self.widths[:layers]}
        return self.model_copy(update={**changed, "dropouts": self.dropouts[:layers]})


class HeadTraining(Section):
    """How a network is trained, as far as many heads at once know it too."""

    optimizer: OptimizerName = Field("adam", description="Update rule.")
    learning_rate: float = Field(0.001, gt=0, description="Learning rate (at step 0).")
    momentum: float = Field(0.9, ge=0, lt=1, description="For momentum, nesterov and rmsprop.")
    schedule: Schedule = Field("constant", description="How the learning rate falls with steps.")
    decay_steps: int = Field(
        0,
        ge=0,
        description="Steps for one factor decay_rate (exponential, staircase) or to 0 (cosine); 0 "
        "is all steps of max_epochs.",
    )
    decay_rate: float = Field(
        0.1, gt=0, le=1, description="Factor of the exponential and staircase schedules."
    )
    clip_value: float = Field(
        0.0, ge=0, description="Largest absolute value of any part of a gradient; 0 is no limit."
    )
    batch_size: int = Field(20, ge=1, description="Images in a step.")
    max_epochs: int = Field(1000, ge=1, description="Stop after so many epochs at the latest.")
    patience: int = Field(
        20, ge=0, description="Stop when the validation loss has not fallen for more epochs."
    )

    def over(self, rows: int) -> Self:
        """The settings with ``decay_steps`` worked out for so many rows an epoch."""
        steps = self.decay_steps or self.max_epochs * math.ceil(rows / self.batch_size)
        return self.model_copy(update={"decay_steps": max(1, steps)})


class Training(HeadTraining):
    """How one network is trained."""

    min_delta: float = Field(
        0.0, ge=0, description="Fall of the validation loss that counts as one."
    )
    max_steps: int = Field(
        0, ge=0, description="Stop after so many batches, within an epoch too; 0 is no limit."
    )
    order: Literal["shuffled", "sequential"] = Field(
        "shuffled", description="Order of the images: drawn anew for each epoch, or as they lie."
    )
    keep: Literal["best", "last"] = Field(
        "best", description="Weights kept: of the epoch of the lowest validation loss, or the last."
    )

    def over(self, rows: int) -> Self:
        """The settings with ``decay_steps`` and what ``max_steps`` leaves of ``max_epochs``."""
        if not self.max_steps:
            return super().over(rows)
        epochs = math.ceil(self.max_steps / math.ceil(rows / self.batch_size))
        steps = self.decay_steps or self.max_steps
        changed = {"max_epochs": min(self.max_epochs, epochs), "decay_steps": steps}
        return self.model_copy(update=changed)


class Pretrain(Training):
    """Training of the trunk and its source head."""

    task: Literal["classes", "pairs"] = Field(
        "classes",
        description="What the trunk learns from: the classes, or same/different pairs as section "
        "pairs says, after which it is frozen and the source head alone is trained.",
    )
    learning_rate: float = Field(0.002, gt=0, description="Learning rate (at step 0).")
    schedule: Schedule = Field("cosine", description="How the learning rate falls with steps.")
    batch_size: int = Field(100, ge=1, description="Images in a step.")
    max_epochs: int = Field(25, ge=1, description="Stop after so many epochs at the latest.")
    augment: bool = Field(True, description="Change the images anew in every epoch.")
    forged: float = Field(
        1.0,
        ge=0,
        description="For each image so many forged ones, put together from images of two classes; "
        "each two classes and way of cutting are one more class to tell apart. 0 forges none.",
    )


class Pairs(Training):
    """Pretraining of the trunk on pairs of source images, of the same class or not."""

    optimizer: OptimizerName = Field("nesterov", description="Update rule.")
    learning_rate: float = Field(0.01, gt=0, description="Learning rate (at step 0).")
    momentum: float = Field(0.95, ge=0, lt=1, description="For momentum, nesterov and rmsprop.")
    batch_size: int = Field(500, ge=1, description="Pairs in a step.")
    max_epochs: int = Field(100, ge=1, description="Stop after so many epochs at the latest.")
    patience: int = Field(
        100, ge=0, description="Stop when the validation loss has not fallen for more epochs."
    )
    epoch_pairs: int = Field(
        55_000, ge=2, description="Pairs of an epoch, drawn anew in each; half are the same."
    )
    validation_pairs: int = Field(
        5_000, ge=2, description="Pairs of validation images, always the same."
    )
    test_pairs: int = Field(10_000, ge=2, description="Pairs of test images, always the same.")
    joint_units: int = Field(
        10, ge=1, description="Units of the layer that joins the two stacks of hidden layers."
    )


class Activations(Section):
    """Which hidden layers' activations are cached for the heads."""

    layers: Names = Field(
        (), description="Hidden layers to cache, such as hidden1,hidden5; empty is all of them."
    )


class FineTune(Training):
    """Training of one new softmax head for each cached layer."""

    learning_rate: float = Field(0.01, gt=0, description="Learning rate (at step 0).")
    hidden: Sizes = Field(
        (),
        description="Units of a head's hidden layers, the lowest first, such as 50,20; empty is a "
        "linear head.",
    )
    activation: Activation = Field("elu", description="Activation of a head's hidden layers.")


class Transfer(Training):
    """Training of whole networks on the target classes, from the trunk and from scratch."""

    strategies: StrategyNames = Field(
        ("full", "probe-then-tune"),
        description="How the trunk is trained on; the lowest validation loss, heads on cached "
        "activations included, is chosen. Of probe (head alone), top, full, probe-then-tune, "
        "gradual, discriminative, l2-sp.",
    )
    cut: str = Field(
        "", description="The last hidden layer that is kept, such as hidden3; empty is all."
    )
    top: int = Field(2, ge=1, description="Hidden layers that strategy top trains.")
    rate_decay: float = Field(
        2.6,
        ge=1,
        description="Each layer learns so much slower than the one above it, with "
        "strategies gradual and discriminative.",
    )
    anchor: float = Field(
        0.01, ge=0, description="Pull back to the pretrained weights, with strategy l2-sp."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout rate after each hidden layer.")
    adapt_statistics: bool = Field(
        False, description="Take batch norm's statistics from the target images first."
    )
    ensemble: int = Field(
        1, ge=1, le=100, description="Networks with different seeds whose answers are averaged."
    )
    learning_rate: float = Field(0.003, gt=0, description="Learning rate (at step 0).")
    schedule: Schedule = Field("cosine", description="How the learning rate falls with steps.")
    batch_size: int = Field(50, ge=1, description="Images in a step.")
    max_epochs: int = Field(10, ge=1, description="Stop after so many epochs at the latest.")
    keep: Literal["best", "last"] = Field(
        "last",
        description="Weights kept: of the last epoch, when the rate has fallen to 0; or of the "
        "lowest validation loss, which a few images tell too badly to choose an epoch by.",
    )
    augment: bool = Field(True, description="Change the images anew in every epoch.")
    epoch_images: int = Field(
        10_000,
        ge=1,
        description="Few images come in so many changed copies that an epoch has about as many.",
    )


class Augmentation(Section):
    """How far training images may change, where training says so."""

    shift: float = Field(2.0, ge=0, description="Pixels up, down, left and right.")
    rotation: float = Field(15.0, ge=0, le=180, description="Degrees either way.")
    scale: float = Field(0.15, ge=0, description="0.1: from 1/1.1 to 1.1 times the size.")
    shear: float = Field(0.15, ge=0, description="0.1: a tenth of the height sideways.")
    elastic: float = Field(
        34.0, ge=0, description="Pixels by which smoothed noise from -1 to 1 is multiplied."
    )
    smoothness: float = Field(4.0, gt=0, description="Pixels of the noise's Gaussian deviation.")

    @property
    def is_on(self) -> bool:
        """Whether anything changes."""
        return any((self.shift, self.rotation, self.scale, self.shear, self.elastic))


class Evaluate(Section):
    """How the results are stated."""

    confidence: float = Field(0.95, gt=0, lt=1, description="Level of the intervals.")
    views: int = Field(
        0,
        ge=0,
        description="Changed copies of each test image whose answers are averaged with its own.",
    )


class Run(Section):
    """What holds for every stage that computes."""

    seed: int = Field(42, ge=0, lt=2**31, description="Seed of every random draw.")
    threads: int = Field(
        2,
        ge=1,
        description="Threads of TensorFlow's arithmetic. Part of the result: 1 thread and several "
        "give different last bits, so the machine does not choose. Steps of a few dozen rows are "
        "too short to share: 1 thread is as quick for them, or quicker.",
    )
    # Left out when settings are written down, so it is of no training stage's key.
    tensorboard: bool = Field(
        False, exclude=True, description="Also publish the learning curves as TensorBoard logs."
    )


class Study(Section):
    """Which cells a study has: every strategy for each of these numbers of images and seeds."""

    labels: Counts = Field(
        (10, 30, 100, 300, 1000, 0),
        min_length=1,
        description="Training images for each target class; 0 is all there are.",
    )
    seeds: Counts = Field((0, 1, 2, 3, 4), min_length=1, description="Seeds of whole runs.")
    cuts: Names = Field(
        (),
        description="Also train whole networks cut at these hidden layers, such as hidden3; heads "
        "on cached activations are trained at every cut anyway.",
    )


class Reproduce(Section):
    """Which experiments of the source documents are run, and how often."""

    recipes: Names = Field(
        (), description="Ids of recipes or their beginnings, such as 002; empty is all of them."
    )
    seeds: int = Field(
        0, ge=0, description="Seeds of each recipe; 0 is as many as the recipe says."
    )
    notmnist: str = Field(
        "",
        description="Folder of notMNIST; without it letters drawn from fonts stand in for it, and "
        "their figures are not comparable.",
    )


class Search(Section):
    """Random search for the trunk's settings: which are tried, and how each is measured.

    What a candidate does not vary is as sections network and pretrain say.
    """

    trials: int = Field(
        10, ge=1, description="Candidates drawn at random; all there are if they are fewer."
    )
    folds: int = Field(
        3, ge=2, le=20, description="Parts of the training images, each held out once."
    )
    units: SizeChoices = Field(
        (10, 30, 50, 70, 90, 100, 120, 140, 160),
        min_length=1,
        description="For network.units, with as many hidden layers as there are.",
    )
    activations: ActivationChoices = Field(
        ("relu", "elu", "leaky_relu:0.01", "leaky_relu:0.1"),
        min_length=1,
        description="For network.activation, with the slope of a leaky_relu.",
    )
    batch_sizes: SizeChoices = Field(
        (10, 50, 100, 500), min_length=1, description="For pretrain.batch_size."
    )
    learning_rates: RateChoices = Field(
        (0.01, 0.02, 0.05, 0.1), min_length=1, description="For pretrain.learning_rate."
    )
    momentums: ShareChoices = Field(
        (0.9, 0.95, 0.98, 0.99, 0.999),
        description="For network.norm_momentum, if network.batch_norm is on; empty: as it is.",
    )
    dropouts: ShareChoices = Field(
        (0.2, 0.3, 0.4, 0.5, 0.6),
        description="For network.dropout, if there is any; empty: as it is.",
    )
    max_epochs: int = Field(10, ge=1, description="Of each fold, instead of pretrain's.")
    patience: int = Field(2, ge=0, description="Of each fold, instead of pretrain's.")


class Limits(Section):
    """How long to try. No part of any result, so of no stage's key."""

    retries: int = Field(
        3, ge=0, description="Further tries at a stage after a fault that may pass, such as I/O."
    )
    stage_seconds: float = Field(
        0.0, ge=0, description="Longest one try at a stage may take; the next goes on. 0: no limit."
    )


class Nightly(Section):
    """The nightly retrain: what comes in, what replaces the champion, who is told."""

    inbox: str = Field(
        "", description="Folder or fsspec URL where new labelled images arrive; empty: none do."
    )
    settle_seconds: float = Field(
        60.0, ge=0, description="Leave what has changed since for the next night."
    )
    class_drift: float = Field(
        0.25, ge=0, description="Notice above this population stability index of class shares."
    )
    # Sixty images in a row of MNIST, a few writers' hands, lie up to 0.35 from the rest; at half
    # the brightness they lie 0.9 from it.
    pixel_drift: float = Field(
        0.5, ge=0, le=1, description="Refuse above this gap (Kolmogorov-Smirnov) of brightness."
    )
    max_class_share: float = Field(
        1.0, gt=0, le=1, description="Refuse a delivery with a larger share of one class."
    )
    label_agreement: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Refuse labels the champion agrees with less than this part of its accuracy.",
    )
    significance: float = Field(
        0.01, gt=0, lt=1, description="Promote only below this p of the paired test."
    )
    max_class_loss: float = Field(
        0.02, ge=0, le=1, description="Promote only if no class loses more of its F1."
    )
    patience: int = Field(7, ge=1, description="Notice after so many nights without promotion.")
    notify: Names = Field(
        (), description="Apprise URLs to notify; HEADSTART_NOTIFY keeps them out of the records."
    )
    keep_champions: int = Field(5, ge=1, description="Champions that rollback can return to.")
    keep_runs: int = Field(10, ge=0, description="Latest runs whose results stay.")
    keep_days: int = Field(30, ge=0, description="Younger results stay, whatever run made them.")


class Config(Section):
    """Everything one run of the pipeline depends on."""

    data: Data = Data()
    network: Network = Network()
    pretrain: Pretrain = Pretrain()
    pairs: Pairs = Pairs()
    activations: Activations = Activations()
    fine_tune: FineTune = FineTune()
    transfer: Transfer = Transfer()
    augmentation: Augmentation = Augmentation()
    evaluate: Evaluate = Evaluate()
    study: Study = Study()
    reproduce: Reproduce = Reproduce()

    search: Search = Search()
    run: Run = Run()
    limits: Limits = Limits()
    nightly: Nightly = Nightly()

    @model_validator(mode="after")
    def _layers_exist(self) -> Self:
        known = self.network.layer_names
        if not known:
            msg = "network.hidden_layers = 0: there is nothing to transfer; 1 or more"
            raise PydanticCustomError("layers", "{msg}", {"msg": msg})
        cuts = (self.transfer.cut,) if self.transfer.cut else ()
        for field, layers in {
            "study.cuts": self.study.cuts,
            "activations.layers": self.activations.layers,
            "transfer.cut": cuts,
        }.items():
            unknown = [name for name in layers if name not in known]
            if unknown:
                raise PydanticCustomError(
                    "layers",
                    "{field}: unknown {unknown}; this trunk has {first} to {last}",
                    {
                        "field": field,
                        "unknown": ", ".join(unknown),
                        "first": known[0],
                        "last": known[-1],
                    },
                )
        return self

    @property
    def cuts(self) -> tuple[str, ...]:
        """The hidden layers whose activations are cached, bottom first."""
        chosen = self.activations.layers or self.network.layer_names
        return tuple(name for name in self.network.layer_names if name in chosen)

    @property
    def target_network(self) -> Network:
        """What is trained on the target classes: the trunk's layers up to the cut."""
        names = self.network.layer_names
        kept = self.network.up_to(names.index(self.transfer.cut or names[-1]) + 1)
        plain = {"outputs": "softmax", "norm_head": False, "alpha_dropout": 0.0}
        changed = {"dropout": self.transfer.dropout, "dropouts": (), **plain}
        return kept.model_copy(update=changed)

    @property
    def follows_published_protocol(self) -> bool:
        """Whether network and pretraining are those of the published figures."""
        return (
            self.network == Network(**PUBLISHED["network"])
            and self.pretrain.task == "classes"
            and not self.pretrain.augment
            and not self.pretrain.forged
            and not self.fine_tune.hidden
            and not self.transfer.augment
        )


_AS_PUBLISHED: Mapping[str, Any] = {
    "learning_rate": 0.001,
    "schedule": "constant",
    "batch_size": 20,
    "max_epochs": 1000,
    "augment": False,
}
# What the original notebook did, but for its learning rate, at which training collapses on some
# seeds: a frozen trunk without batch norm, heads on cached activations, images as they are. Steps
# of 20 rows are short: two threads gain little where cores share a cache, lose much where not.
PUBLISHED: Mapping[str, Any] = {
    "run": {"threads": 1},
    "network": {"batch_norm": False, "dropout": 0.0},
    "pretrain": {**_AS_PUBLISHED, "forged": 0.0},
    "transfer": {**_AS_PUBLISHED, "strategies": (), "keep": "best"},
    "search": {"trials": 50, "max_epochs": 1000, "patience": 20},
}
PRESETS: Mapping[str, Mapping[str, Any]] = {"published": PUBLISHED}

# The same stages and code on a few hundred rows: for tests and a first look.
TINY: Mapping[str, Any] = {
    "data": {"limit": 2000, "validation_rows": 400, "few_shot": 20, "few_shot_validation": 5},
    "network": {"units": 20},
    "pretrain": {"max_epochs": 3},
    "pairs": {"max_epochs": 3, "epoch_pairs": 1000, "validation_pairs": 200, "test_pairs": 200},
    "fine_tune": {"max_epochs": 5},
    "transfer": {"max_epochs": 5, "epoch_images": 300},
    "study": {"labels": (5, 0), "seeds": (0, 1)},
    "search": {"trials": 3, "folds": 2, "units": (10, 20), "max_epochs": 2},
}


def load_config(
    file: Path | None = None,
    overrides: Iterable[str] = (),
    tiny: bool = False,
    preset: str = "",
) -> Config:
    """Merges the defaults, a preset, ``TINY`` if asked for, a TOML file and overrides.

    Args:
        file: A TOML file with one table for each section.
        overrides: Texts of the form ``section.field=value``.
        tiny: Shrinks data, network and epochs.
        preset: Name of one of ``PRESETS``.

    Raises:
        ConfigError: With every problem of every source.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    if preset and preset not in PRESETS:
        problems.append(f"unknown preset {preset!r}; there is {', '.join(PRESETS)}")
    _merge(values, PRESETS.get(preset, {}))
    if tiny:
        _merge(values, TINY)
    if file is not None:
        _merge(values, _read_toml(file))
    for text in overrides:
        name, equals, value = text.partition("=")
        section, dot, field = name.strip().partition(".")
        if not (equals and dot and section and field):
            problems.append(f"--set {text}: not of the form section.field=value")
            continue
        _merge(values, {section: {field: value.strip()}})
    return _validate(values, problems)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise ConfigError([f"config file {file}: {reason}"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"config file {file}: not TOML: {error}"]) from None


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Lays sections of settings over others; a section that is none stays, to be reported."""
    for section, fields in values.items():
        below = into.get(section, {})
        if isinstance(below, Mapping):
            into[section] = {**below, **fields} if isinstance(fields, Mapping) else fields


def _validate(values: dict[str, Any], problems: list[str]) -> Config:
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        problems += [_describe(problem) for problem in error.errors(include_url=False)]
    if problems:
        raise ConfigError(problems)
    return config


def _describe(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"] if not isinstance(part, int))
    if problem["type"] == "extra_forbidden":
        return _describe_unknown(where)
    if not where or problem["type"] == "classes":
        return ": ".join(part for part in (where, problem["msg"]) if part)
    message = problem["msg"][:1].lower() + problem["msg"][1:]
    if problem["type"] == "model_type":
        message = f"a section, not a setting; it has {_listed(where)}"
    given = problem["input"]
    shown = given if isinstance(given, str) else json.dumps(given, default=str)
    return f"{where} = {shown}: {message}"


def _describe_unknown(where: str) -> str:
    section, _, field = where.rpartition(".")
    sections = _sections()
    own = difflib.get_close_matches(field, sections.get(section, Config).model_fields, n=1)
    everywhere: dict[str, str] = {}
    for key, inner in sections.items():
        for name in inner.model_fields:
            everywhere.setdefault(name, key)
    other = difflib.get_close_matches(field, everywhere, n=1)
    if own:
        hint = f"did you mean {section + '.' if section else ''}{own[0]}?"
    elif other:
        hint = f"did you mean {everywhere[other[0]]}.{other[0]}?"
    else:
        hint = f"{section or 'a config'} has {_listed(section)}"
    return f"{where}: no such setting; {hint}"


def _listed(section: str) -> str:
    sections = _sections()
    return ", ".join(sections[section].model_fields if section in sections else sections)


def _sections() -> dict[str, type[Section]]:
    annotations = {name: field.annotation for name, field in Config.model_fields.items()}
    return {
        name: inner
        for name, inner in annotations.items()
        if isinstance(inner, type) and issubclass(inner, Section)
    }


def to_toml(config: Config, sections: Iterable[str] = Config.model_fields) -> str:
    """Some or all settings as a TOML text that ``load_config`` reads, with their descriptions."""
    lines: list[str] = []
    for section in sections:
        group = getattr(config, section)
        lines += [f"[{section}]"]
        for name, field in type(group).model_fields.items():
            # A JSON string, number, bool or list of them is also a TOML value.
            value = json.dumps(getattr(group, name))
            choices = get_args(field.annotation)
            hint = " One of: " + ", ".join(map(str, choices)) + "." if _is_literal(choices) else ""
            lines += [f"# {field.description}{hint}", f"{name} = {value}"]
        lines.append("")
    return "\n".join(lines)


def _is_literal(choices: tuple[Any, ...]) -> bool:
    return bool(choices) and all(isinstance(choice, str) for choice in choices)
