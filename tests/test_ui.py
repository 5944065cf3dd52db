"""What users see in Prefect's own pages, in a real browser; screenshots are kept for review."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
def shown(finished):
    """The server's address, and two runs it knows of: one that computed, one of cached stages."""
    command, first = finished
    address = command("ui").stdout.split()[1]
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


@pytest.mark.parametrize("key", ["learning-curves", "confusion-matrix", "accuracy-by-cut"])
def test_a_figures_page_shows_the_picture(page, shown, key):
    open_latest(page, shown[1], key)
    picture = page.locator("img[src^='data:image/png']")
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 300
    keep(page, key)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("run-summary", ["train-scratch", "from scratch", "cached"]),
        ("results", ["softmax on pixels", "head on hidden5", "accuracy"]),
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
    deployment = command.prefect("deployments/name/transfer-learning/full")
    page.goto(f"{address}/deployments/deployment/{deployment['id']}/run")
    page.get_by_text("Learning rate").first.wait_for()
    keep(page, "deployment-form")
    for words in ("Classes the trunk is pretrained on", "Training images for each target class"):
        page.get_by_text(words).first.wait_for()
