"""The page about a run: whole without a network, true to the store, safe whatever a name holds."""

import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from artifacts import figures
from artifacts.card import Checkpoint, checkpoint_card, results_card
from artifacts.pictures import draw
from artifacts.report import render, save_report
from artifacts.runs import RunRecord, StageRecord, report_path
from artifacts.store import Store
from artifacts.summary import brief, results_markdown, results_table, table

ROOT = Path(__file__).parent.parent
HISTORY = {"loss": [0.9, math.nan], "val_loss": [0.8, math.nan], "accuracy": [0.5, 0.6]}
EVALUATION = {
    "results": [
        {"name": "pretrained", "accuracy": 0.99, "low": 0.98, "high": 0.995, "rows": 200},
        {"name": "head on hidden1", "accuracy": 0.9, "low": 0.85, "high": 0.93, "rows": 200},
        {
            "name": "softmax on pixels",
            **{"accuracy": 0.8, "low": 0.74, "high": 0.85, "rows": 200},
            **{"published_low": 0.7, "published_high": 0.75},
        },
        {"name": "from scratch", "accuracy": 0.7, "low": 0.63, "high": 0.76, "rows": 200},
    ],
    "chosen": "head on hidden1",
    "baselines": ["softmax on pixels", "from scratch"],
    "gain": {
        **{"baseline": "softmax on pixels", "removed": 0.5, "low": 0.3, "high": 0.65},
        **{"p_value": 0.0123, "method": "paired", "sentence": "Transfer pays: 50% fewer errors."},
    },
    "calibration": {
        **{"temperature": 1.31, "ece_before": 0.05, "ece_after": 0.01},
        "bins": [{"confidence": 0.6, "accuracy": 0.5, "rows": 40}],
    },
    "mistakes": [{"row": 17, "label": 0, "predicted": 1, "confidence": 0.991}],
    "image_shape": [4, 4],
    "source_classes": [0, 1],
    "target_classes": [5, 6],
    "few_shot": 100,
    "confidence": 0.95,
    "confusion": [[90, 10], [10, 90]],
    "per_class": [
        {"class": name, "precision": 0.9, "recall": 0.9, "f1": 0.9, "rows": 100} for name in (5, 6)
    ],
}
IMAGES = np.linspace(0, 255, 16).reshape(1, 16)
FIGURES = ["learning-curves", "confusion-matrix", "accuracy-by-cut", "calibration", "mistakes"]
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


class Page(HTMLParser):
    """What a browser would make of a page: its elements, ids and headings."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def commit(store, stage, metrics, contents=None, **facts):
    with store.draft(stage, f"{stage}-key") as draft:
        for name, content in (contents or {}).items():
            (draft.path / name).write_bytes(content)
        draft.metrics = metrics
        return store.commit(draft, seconds=1.0, **facts)


def make_run(store, evaluation=EVALUATION, run="20261122-000000-abcd", status="completed", **more):
    pictures = list(draw(evaluation, {"pretraining": HISTORY}, IMAGES))
    drawn = {f"{p.name}.svg": figures.render(p.figure, "svg") for p in pictures}
    told = [{"name": p.name, "title": p.title, "alt": p.alt} for p in pictures]
    settings = {"source.kind": "mnist", "source.files": {"images": "abc123"}}
    host = {"python": "3.11", "processors": 2}
    refs = [
        commit(store, "load-dataset", {}, settings=settings, host=host),
        commit(store, "evaluate", evaluation, versions={"keras": "3.15"}),
        commit(store, "publish", {"figures": told}, drawn | {"results.md": b"# Results"}),
    ]
    stages = [
        StageRecord(name=r.stage, state="ran", key=r.key, digest=r.digest, seconds=1, why=("new",))
        for r in refs
    ]
    record = RunRecord(run=run, started="2026-11-22T00:00:00.000+00:00", status=status)
    settings = {"data": {"dataset": "mnist", "target_classes": [5, 6]}, "run": {"seed": 42}}
    return record.model_copy(update={"stages": tuple(stages), "settings": settings} | more)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_the_page_shows_what_many_trainings_gave_together(store):
    candidate = {"number": 1, "accuracy": 0.98, "low": 0.97, "high": 0.99, "failure": ""}
    good = {**candidate, "settings": {"learning_rate": 0.01}}
    bad = {
        "number": 2,
        "failure": f"{EVIL}: nan",
        "settings": {"learning_rate": 9.0, "dropout": 0.5},
    }
    ref = commit(store, "rank", {"candidates": [good, bad], "failed": 1})
    stage = StageRecord(name="rank", state="ran", key=ref.key, digest=ref.digest, seconds=1)
    html = render(store, RunRecord(run="r", started="2026-11-22T00:00:00", stages=(stage,)))
    page = Page(html)
    for words in ("2 candidates", "1 failed", "98.0 (97.0 to 99.0)", "learning rate", "dropout"):
        assert words in html
    assert not page.all("script")
    assert not page.all("img")
    assert {"results"} == {link["href"][1:] for link in page.all("a")} & {"results", "figures"}


def test_the_page_says_what_the_run_found(store):
    html = render(store, make_run(store, EVALUATION))
    for words in (
        *(
            "Transfer pays: 50% fewer errors.",
            "85.0 to 93.0",
            "70.0 to 75.0",
            "p = 0.012",
            "abc123",
        ),
        *("new", "keras", "3.15", "processors", "5, 6", "99.1", "SHA-256", "results.md", "17"),
    ):
        assert words in html, words


def test_the_page_needs_nothing_but_itself(store):
    html = render(store, make_run(store))
    page = Page(html)
    assert not page.all("script") + page.all("link") + page.all("iframe") + page.all("img")
    outside = re.findall(r'(?:href|src)="((?:[a-z]+:)?//[^"]*)"', html)
    assert not outside
    assert "@import" not in html
    addresses = re.findall(r"url\(([^)]*)\)", html)
    assert all(address.startswith("#") for address in addresses)


def test_the_pages_ids_are_unique_and_what_they_refer_to_is_there(store):
    html = render(store, make_run(store))
    ids = [attributes["id"] for _, attributes in Page(html).elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    named = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)|aria-\w+by="([^"]+)"', html)
    assert {name for names in named for name in names if name} <= set(ids)


def test_headings_come_in_order_and_tables_say_what_they_hold(store):
    page = Page(render(store, make_run(store, EVALUATION)))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert len(page.all("table")) == len(page.all("caption")) > 3
    assert all(cell.get("scope") in ("row", "col") for cell in page.all("th"))
    drawings = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    assert len(drawings) == len(FIGURES)


def test_names_cannot_smuggle_in_markup(store):
    evaluation = {**EVALUATION, "chosen": EVIL, "target_classes": [EVIL, 6]}
    evaluation["results"] = [{**EVALUATION["results"][1], "name": EVIL}, *EVALUATION["results"][2:]]
    evaluation["per_class"] = [{**row, "class": EVIL} for row in EVALUATION["per_class"]]
    settings = {"data": {EVIL: EVIL}}
    page = render(store, make_run(store, evaluation, settings=settings, flow_run_id=EVIL))
    assert "<script" not in page
    assert "<img" not in page
    assert "<script" not in results_table(evaluation)


@pytest.mark.parametrize("status", ["failed", "interrupted", "died", "running"])
def test_a_run_that_did_not_finish_says_so_and_shows_what_there_is(store, status):
    whole = make_run(store, status=status, error="pretrain: <no> memory")
    html = render(store, whole.model_copy(update={"stages": whole.stages[:1]}))
    assert "It ended with: pretrain: &lt;no&gt; memory" in html
    assert "what it had finished" in html or "still going on" in html
    assert "load-dataset" in html
    assert "<svg" not in html


def test_a_run_without_any_stage_has_a_page(store):
    assert "No stage was finished" in render(store, make_run(store, stages=(), status="failed"))


def test_a_run_that_published_nothing_says_so(store):
    whole = make_run(store)
    html = render(store, whole.model_copy(update={"stages": whole.stages[:2]}))
    assert "No figures" in html
    assert "85.0 to 93.0" in html


def test_another_releases_evaluation_is_not_shown(store):
    before = {name: value for name, value in EVALUATION.items() if name != "gain"}
    html = render(store, make_run(store, before))
    assert "Interval" not in html
    assert "learning-curves" in html


def test_figures_of_a_stand_in_say_so(store):
    noted = EVALUATION | {"note": "stand-in; not comparable"}
    for text in (render(store, make_run(store, noted)), results_markdown(noted)):
        assert "The dataset is a stand-in; not comparable." in text
    plain = render(store, make_run(store, EVALUATION)), results_markdown(EVALUATION)
    for text in plain:
        assert "The dataset is" not in text


def test_damage_is_named_and_the_rest_is_shown(store):
    record = make_run(store)
    entry = store.entry_path("publish", "publish-key")
    (entry / "confusion-matrix.svg").write_bytes(b"<svg onload='alert(1)'>")
    (entry / "learning-curves.svg").unlink()
    (store.entry_path("load-dataset", "load-dataset-key") / "manifest.json").write_bytes(b"{}")
    html = render(store, record)
    assert html.count("The drawing is damaged or missing") == 2
    assert "onload" not in html
    assert "No longer in the store, or damaged: load-dataset." in html
    assert html.count('role="img"') == len(FIGURES) - 2


def test_the_page_lies_beside_the_record_in_any_folder(tmp_path):
    store = Store(tmp_path / "ein Lager mit Ümläuten & <b>")
    record = make_run(store)
    path = save_report(store, record)
    assert path == report_path(store.root, record.run)
    links = [a["href"] for a in Page(path.read_text()).all("a") if a["href"].startswith("../")]
    assert links
    assert all((path.parent / link).is_file() for link in links)


def test_a_store_that_cannot_be_written_gets_its_page_elsewhere(store, monkeypatch, tmp_path):
    record = make_run(store)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (store.root / "runs").write_text("a file where the folder should be")
    path = save_report(store, record)
    assert not path.is_relative_to(store.root)
    assert f'href="{store.root.as_uri()}/publish/publish-key/results.md"' in path.read_text()


def test_the_same_run_has_the_same_page(store):
    record = make_run(store)
    assert render(store, record) == render(store, record)


def test_making_a_page_imports_nothing_heavy():
    heavy = ("tensorflow", "matplotlib", "prefect")
    code = f"import sys, artifacts.report; sys.exit(any(n in sys.modules for n in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_many_reasons_are_cut_short():
    assert brief(("a", "b")) == "a; b"
    assert brief(tuple("abcdef")) == "a; b; c; d; and 2 more"


def test_a_cell_ends_no_cell():
    assert table(("a",), [("x|y\n<b>",)]).splitlines()[-1] == "| x\\|y &lt;b> |"


def test_pictures_are_drawn_of_all_that_was_measured():
    every = list(draw(EVALUATION, {"pretraining": HISTORY}, IMAGES))
    assert [p.name for p in every] == FIGURES
    assert "5 taken for 6, 99.1 % sure" in every[-1].alt
    assert "Lowest validation loss: pretraining 0.8 at epoch 1 of 2." in every[0].alt


@pytest.mark.parametrize("changed", [{"mistakes": []}, {"image_shape": [16]}])
def test_no_mistakes_and_rows_that_are_no_pictures_are_not_drawn(changed):
    assert [p.name for p in draw(EVALUATION | changed, {}, IMAGES)] == FIGURES[:-1]


CARD_HEADINGS = [
    *("Model details", "Intended use", "Training data", "Evaluation data"),
    *("Metrics", "Limits", "How it was made"),
]


def test_the_cards_have_the_fields_headings_and_say_what_was_measured_on_what():
    training = {
        **{"validation_accuracy": 0.991, "validation_loss": 0.03, "epochs": 9, "best_epoch": 4},
        "forged_classes": 10,
    }
    checkpoint = Checkpoint("d1g35t", ["`head`: Dense"], [0, 1], 784, 1234, training)
    first = checkpoint_card(checkpoint)
    second = results_card(EVALUATION, {"evaluate": "d1g35t"})
    for card in (first, second):
        assert re.findall(r"^## (.*)$", card, re.MULTILINE) == CARD_HEADINGS
        assert "d1g35t" in card
    assert "99.1 %" in first
    assert "10 forged classes" in " ".join(first.split())
    assert "chosen on the same validation images" in " ".join(first.split())
    assert "| 5 | 90.0 | 90.0 | 90.0 | 100 |" in second
