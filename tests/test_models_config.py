"""Settings: where they come from, what is refused and how it is said."""

import tomllib

import pytest
from pydantic import ValidationError

from models.config import TINY, Config, ConfigError, load_config, to_toml


def problems(*overrides: str, **options) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=overrides, **options)
    return caught.value.problems


@pytest.fixture
def toml(tmp_path):
    def write(text: str | bytes):
        path = tmp_path / "config.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def test_defaults_are_the_published_network_on_the_published_classes():
    config = load_config()
    assert config == Config()
    assert config.data.source_classes == (0, 1, 2, 3, 4)
    assert config.data.target_classes == (5, 6, 7, 8, 9)
    assert (config.data.validation_rows, config.data.few_shot) == (5000, 100)
    assert (config.network.hidden_layers, config.network.units) == (5, 100)
    assert config.cuts == ("hidden1", "hidden2", "hidden3", "hidden4", "hidden5")


def test_a_file_wins_over_defaults_and_overrides_over_the_file(toml):
    file = toml(
        "[network]\nunits = 50\nactivation = 'relu'\n[data]\nsource_classes = [7, 8]\n"
        "target_classes = [1, 2]\n"
    )
    config = load_config(file, ["network.units=30", "network.units = 20"])
    assert config.network.units == 20
    assert config.network.activation == "relu"
    assert config.network.hidden_layers == 5
    assert config.data.source_classes == (7, 8)


def test_tiny_wins_over_defaults_only(toml):
    config = load_config(toml("[network]\nunits = 7\n"), ["data.limit=900"], tiny=True)
    assert config.network.units == 7
    assert config.data.limit == 900
    assert config.data.few_shot == TINY["data"]["few_shot"]


def test_tiny_is_not_changed_by_use(toml):
    before = {section: dict(fields) for section, fields in TINY.items()}
    load_config(toml("[data]\nlimit = 3\n"), ["network.units=4"], tiny=True)
    assert before == TINY


def test_texts_become_the_types_of_their_settings():
    config = load_config(
        overrides=[
            "data.source_classes=3, 1",
            "network.batch_norm=true",
            "pretrain.learning_rate=1e-2",
            "activations.layers=hidden5,hidden1",
        ]
    )
    assert config.data.source_classes == (3, 1)
    assert config.network.batch_norm is True
    assert config.pretrain.learning_rate == 0.01
    assert config.cuts == ("hidden1", "hidden5")


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("network.unit=3", "network.unit: no such setting; did you mean network.units?"),
        ("pretrian.patience=3", "pretrian: no such setting; did you mean pretrain?"),
        ("data.units=3", "data.units: no such setting; did you mean network.units?"),
        ("run.xyzzy=3", "run.xyzzy: no such setting; run has seed, threads, tensorboard"),
        (
            "xyzzy.a=3",
            "xyzzy: no such setting; a config has data, network, pretrain, pairs, activations, "
            "fine_tune, transfer, augmentation, evaluate, study, reproduce, search, run, limits, "
            "nightly",
        ),
    ],
)
def test_an_unknown_name_gets_the_nearest_one_suggested(override, problem):
    assert problems(override) == (problem,)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("network.units=0", "network.units = 0: input should be greater than or equal to 1"),
        ("network.dropout=1", "network.dropout = 1: input should be less than 1"),
        ("network.dropout=nan", "network.dropout = nan: input should be a finite number"),
        ("pretrain.learning_rate=inf", "input should be a finite number"),
        ("data.few_shot=ten", "data.few_shot = ten: input should be a valid integer"),
        ("network.activation=rleu", "network.activation = rleu: input should be 'elu', 'relu'"),
        ("data.source_classes=1", "at least 2 items"),
        ("fine_tune.hidden=50,0", "fine_tune.hidden = 0: input should be greater than or equal"),
        ("pretrain.task=pair", "pretrain.task = pair: input should be 'classes' or 'pairs'"),
        ("data.source_classes=1,2,x", "data.source_classes = x: input should be a valid integer"),
        ("units=3", "--set units=3: not of the form section.field=value"),
        ("network.units", "--set network.units: not of the form section.field=value"),
        ("network.=3", "--set network.=3: not of the form section.field=value"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_wrong(override, problem):
    (found,) = problems(override)
    assert problem in found


def test_all_problems_of_all_sources_are_stated_at_once(toml):
    file = toml("units = 2\n[data]\nlimits = 1\nfew_shot = true\n")
    found = problems("network.units=0", "nonsense", file=file)
    assert sorted(found) == [
        "--set nonsense: not of the form section.field=value",
        "data.few_shot = true: takes no true or false",
        "data.limits: no such setting; did you mean data.limit?",
        "network.units = 0: input should be greater than or equal to 1",
        "units: no such setting; did you mean network.units?",
    ]


def test_the_text_of_an_error_has_a_line_for_each_problem():
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=["network.units=0", "run.seed=-1"])
    assert len(str(caught.value).splitlines()) == 2


def test_true_is_not_taken_for_one(toml):
    file = toml("[network]\nunits = true\n[data]\nsource_classes = [true, false]\n")
    assert problems(file=file) == (
        "data.source_classes = [true, false]: takes no true or false",
        "network.units = true: takes no true or false",
    )


@pytest.mark.parametrize("overrides", [[], ["network.units=3"]])
def test_a_section_given_as_a_value_is_refused(toml, overrides):
    (found,) = problems(*overrides, file=toml("network = 3\n"), tiny=True)
    assert found.startswith("network = 3: a section, not a setting; it has hidden_layers, units")


def test_a_setting_given_as_a_section_is_refused(toml):
    (found,) = problems(file=toml("[data.few_shot]\na = 1\n"), tiny=True)
    assert found.startswith('data.few_shot = {"a": 1}: input should be a valid integer')


def test_overlapping_classes_are_refused():
    assert problems("data.target_classes=4,5") == (
        "data: source_classes and target_classes overlap in [4]; "
        "a class can be pretrained on or transferred to, not both",
    )


def test_a_class_named_twice_is_refused():
    assert problems("data.source_classes=1,1,2") == (
        "data: source_classes names [1] more than once",
    )


def test_a_layer_the_trunk_lacks_is_refused():
    assert problems("activations.layers=hidden2,hidden7") == (
        "activations.layers: unknown hidden7; this trunk has hidden1 to hidden5",
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[network\n", "not TOML"),
        ("[network]\nunits = 1\nunits = 2\n", "not TOML"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(toml, content, reason):
    file = toml(content)
    (found,) = problems(file=file)
    assert found.startswith(f"config file {file}: ")
    assert reason in found


def test_a_missing_file_is_named(tmp_path):
    file = tmp_path / "none.toml"
    assert problems(file=file) == (f"config file {file}: No such file or directory",)


@pytest.mark.parametrize("tiny", [False, True])
def test_a_config_written_as_toml_reads_back_the_same(toml, tiny):
    config = load_config(
        overrides=['data.dataset=a "b" é.npz', "activations.layers=hidden2"], tiny=tiny
    )
    assert load_config(toml(to_toml(config))) == config


def test_the_toml_text_describes_every_setting():
    text = to_toml(Config())
    comments = [line for line in text.splitlines() if line.startswith("# ")]
    settings = [name for section in tomllib.loads(text).values() for name in section]
    assert len(comments) == len(settings)
    assert "One of: adam, sgd, momentum, nesterov, rmsprop, adagrad." in text


@pytest.mark.parametrize(
    ("override", "follows"),
    [
        ("run.seed=3", True),
        ("pretrain.task=pairs", False),
        ("fine_tune.hidden=50", False),
        ("pretrain.augment=true", False),
    ],
)
def test_what_the_published_figures_hold_for(override, follows):
    config = load_config(overrides=[override], preset="published")
    assert config.follows_published_protocol == follows


def test_a_config_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Config().network.units = 3
