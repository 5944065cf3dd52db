"""What users see in Prefect's pages and in the report, in a real browser; screenshots are kept."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from artifacts.runs import report_path
from artifacts.store import Store

ROOT = Path(__file__).resolve().parent.parent
SCREENSHOTS = ROOT / "artifacts" / "screenshots"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to look at Prefect's UI"),
]


@pytest.fixture(scope="module")
def shown(headstart_at, tmp_path_factory):
    """A server's address, and the two runs it knows of: one that computed, one of cached stages."""
    command = headstart_at(tmp_path_factory.mktemp("shown"))
    address = command("ui").stdout.split()[1]
    first = command.json("run", "--tiny")
    return command, address, first, command.json("run", "--tiny", "--record")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=CHROMIUM,
            args=QUIET,
            viewport={"width": 1400, "height": 1000},
        )
        yield opened
        opened.close()


@pytest.fixture
def page(browser):
    tab = browser.new_page()
    tab.set_default_timeout(30_000)
    yield tab
    tab.close()


def open_latest(page, address, key):
    """From an artifact's page, which lists its versions, to the youngest one."""
    page.goto(f"{address}/artifacts/key/{key}")
    page.get_by_role("link", name=re.compile("^[0-9a-f]{8}$")).first.click()


def keep(page, name):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(1000)  # The graph and the images fade in.
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


@pytest.mark.parametrize(("which", "state"), [(2, "Completed"), (3, "Cached")])
def test_a_runs_page_shows_its_tasks_and_their_states(page, shown, which, state):
    _, address, *_ = shown
    page.goto(f"{address}/runs/flow-run/{shown[which]['flow_run_id']}")
    page.get_by_text("0 1 2 3 4 to 5 6 7 8 9, first 2000 rows, seed 42").first.wait_for()
    page.get_by_text("Task Runs", exact=True).click()
    page.get_by_text("pretrain 5x20 elu, seed 42").first.wait_for()
    assert page.get_by_text(state, exact=True).count() >= 8
    keep(page, f"run-{state.lower()}")


def test_a_run_can_be_found_by_its_tags(shown):
    command, _, first, _ = shown
    tags = {"tags": {"all_": ["headstart", "seed-42", "data-mnist", "to-5-6-7-8-9"]}}
    found = command.prefect("flow_runs/filter", flow_runs=tags)
    assert first["flow_run_id"] in {run["id"] for run in found}


def test_no_task_asks_the_server_about_limits_of_its_tags(shown):
    assert not [run for run in shown[0].prefect("task_runs/filter", limit=200) if run["tags"]]


def published(shown):
    """What the stage publish says of its figures."""
    manifest = Store(shown[0].store).latest("publish")
    return manifest.ref.metrics["figures"]


def test_every_figures_page_shows_the_picture_and_says_what_is_on_it(page, shown):
    names = {figure["name"] for figure in published(shown)}
    assert names >= {"learning-curves", "confusion-matrix", "calibration", "mistakes"}
    for name in names:
        open_latest(page, shown[1], name)
        picture = page.locator("img[src^='data:image/png']")
        picture.wait_for()
        assert picture.evaluate("image => image.naturalWidth") > 300, name
        keep(page, name)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("run-summary", ["train-scratch", "from scratch", "cached"]),
        ("results", ["softmax on pixels", "head on hidden5", "accuracy"]),
        ("mistakes-table", ["taken for", "Sure, %"]),
        ("per-class", ["precision, %", "recall, %", "f1, %", "images"]),
        ("lineage", ["load-dataset --> split-source", "evaluate --> publish"]),
        ("files", ["model-card.md", "history.csv", "saved_model/", ".html"]),
    ],
)
def test_a_tables_page_shows_the_figures(page, shown, key, words):
    open_latest(page, shown[1], key)
    for word in words:
        page.get_by_text(word).first.wait_for()
    keep(page, key)


def test_a_deployments_form_shows_the_settings_with_their_descriptions(page, shown, tmp_path):
    command, address, *_ = shown
    shutil.copy(ROOT / "prefect.yaml", tmp_path)
    environment = command.environment | {"PREFECT_API_URL": f"{address}/api"}
    # The tests of the deployments have made the same pool in the same server, if they ran before.
    pool = ["work-pool", "create", "local", "--type", "process", "--overwrite"]
    for words in (pool, ["deploy", "--all"]):
        arguments = [sys.executable, "-m", "prefect", "--no-prompt", *words]
        subprocess.run(arguments, cwd=tmp_path, env=environment, check=True, capture_output=True)
    deployment = command.prefect("deployments/name/transfer-learning/transfer-learning")
    page.goto(f"{address}/deployments/deployment/{deployment['id']}/run")
    page.get_by_text("Learning rate").first.wait_for()
    keep(page, "deployment-form")
    for words in ("Classes the trunk is pretrained on", "Training images for each target class"):
        page.get_by_text(words).first.wait_for()


@pytest.mark.parametrize("stage", ["pretrain", "fine-tune", "train-scratch"])
def test_a_training_stages_progress_is_there_and_ends_at_the_end(page, shown, stage):
    command, address, *_ = shown
    found = command.prefect("artifacts/filter", artifacts={"key": {"any_": [f"progress-{stage}"]}})
    assert [artifact["data"] for artifact in found] == [100.0]
    open_latest(page, address, f"progress-{stage}")
    page.get_by_text(f"{stage}: ran").first.wait_for()
    keep(page, f"progress-{stage}")


# --- the report ---------------------------------------------------------------------------

SERIOUS = {"serious", "critical"}
views = pytest.mark.parametrize("scheme", ["light", "dark"])


@pytest.fixture
def report(page, shown):
    """Opens a run's report, as wide as is said and in light or dark colours."""
    command, _, first, _ = shown

    def open_report(width, scheme="light"):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        page.goto(report_path(command.store, first["run"]).as_uri())
        return page

    return open_report


@views
@pytest.mark.parametrize("width", [360, 1000])
def test_axe_finds_no_serious_fault_in_the_report(report, width, scheme):
    axe = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
    page = report(width, scheme)
    page.evaluate((Path(axe.__path__[0]) / "axe.min.js").read_text(encoding="utf-8"))
    faults = page.evaluate("axe.run()")["violations"]
    assert [fault["help"] for fault in faults if fault["impact"] in SERIOUS] == []
    keep(page, f"report-{width}-{scheme}")


@pytest.mark.parametrize("width", [320, 360, 800])
def test_the_report_never_scrolls_sideways(report, width):
    page = report(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_report_shows_every_figure_and_asks_nobody_for_anything(report, shown, page):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    faults = []
    page.on("console", lambda message: faults.append(message.text))
    report(1000)
    assert len(asked) == 1
    assert faults == []
    drawings = page.locator("svg[role=img]")
    assert drawings.count() == len(published(shown))
    assert all(box["width"] > 300 for box in (d.bounding_box() for d in drawings.all()))


@views
def test_a_figures_letters_stand_out_from_the_page(report, scheme):
    page = report(1000, scheme)
    ink, paper = page.evaluate(
        """() => {
            const style = (element, name) => getComputedStyle(element)[name];
            const letter = document.querySelector("svg[role=img] g[id*=text] g");
            return [style(letter, "fill"), style(document.body, "backgroundColor")];
        }"""
    )
    dark, light = sorted(sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper))
    assert light - dark > 3 * 150


def test_the_report_prints_in_ink_on_white(report, page):
    report(1000, "dark")
    page.emulate_media(media="print", color_scheme="dark")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    keep(page, "report-print")
