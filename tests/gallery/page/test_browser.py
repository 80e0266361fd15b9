"""The page in a real browser: opened, walked through by keys and clicks, and what it says where something is wrong."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from chromium import CHROMIUM, Chromium
from gallery.opened import open_artifact
from served_page import served

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")

SHOWN = "document.documentElement?.dataset.shown"  # the token of the sample whose pictures are all there
PICTURES = "[...document.querySelectorAll('.tile img')].filter(i => i.naturalWidth > 0).length"
WORDS = "document.querySelector('#panes')?.innerText"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Chromium(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def visit(browser):
    """Open a page with what is chosen in its address, and wait for its pictures or a text."""

    def visit(page, chosen="", until=SHOWN, size=(1400, 900), dark=False):
        browser.open("about:blank")
        browser.resize(*size, dark=dark)
        browser.open(f"{page.link}#{chosen}")
        browser.wait(until)
        return browser

    browser.errors.clear()
    yield visit
    assert browser.errors == []


@pytest.fixture
def evaluated(finished):
    """Of the evaluation: what chooses it, and its samples' tokens in order."""
    path = finished[0].path("evaluate")
    opened = open_artifact(path)
    return f"a=evaluate/{path.name}", [str(token) for token in opened.index.token[opened.samples]]


def test_it_opens_steps_and_opens_the_same_again(page, visit, evaluated):
    chosen, tokens = evaluated
    browser = visit(page, chosen)
    assert browser.run(SHOWN) == tokens[0]
    assert browser.run(PICTURES) == 7
    assert browser.run("location.search") == ""  # the token is in no address
    for key, place in (("ArrowRight", 1), ("ArrowLeft", 0), ("End", -1), ("Home", 0), ("]", 2), ("[", 0)):
        browser.press(key)
        browser.wait(f"{SHOWN} == '{tokens[place]}'")
    browser.click("#next")
    browser.press("m")
    browser.press("-")
    browser.press("l")
    browser.press("n")
    address = browser.run("location.href")
    browser.open("about:blank")
    browser.open(address)
    browser.wait(f"{SHOWN} == '{tokens[1]}'")
    assert browser.run("location.href") == address
    pressed = "['points', 'truth'].map(n => document.querySelector(`[data-layer=${n}]`).ariaPressed)"
    assert browser.run(pressed) == ["false", "true"]
    assert browser.run("document.documentElement.dataset.theme") == "dark"
    assert browser.run("document.querySelector('#score-value').value") == "0.15"
    assert browser.run("document.querySelector('#map').value") == "pca"


def test_what_is_switched_off_is_not_drawn(page, visit, evaluated):
    browser = visit(page, f"{evaluated[0]}&score=0.05")
    above = "document.querySelector('[data-what=above] img').src"
    seen = {browser.run(above)}
    for key in "tplm":
        browser.press(key)
        before = len(seen)
        browser.wait(f"!{[*seen]}.includes({above})")
        seen.add(browser.run(above))
        assert len(seen) == before + 1
    assert "true, missed" not in browser.run(WORDS)
    browser.press("d")
    browser.wait("!document.querySelector('#depth-scale').hidden")


def test_a_picture_is_enlarged_and_all_come_back(page, visit, evaluated):
    browser = visit(page, evaluated[0])
    small = browser.run("document.querySelector('[data-what=CAM_BACK]').offsetWidth")
    browser.click("[data-what=CAM_BACK]")
    browser.wait("document.querySelectorAll('.tile').length == 1")
    assert browser.run("document.querySelector('.tile').offsetWidth") > 2 * small
    assert "big=CAM_BACK" in browser.run("location.hash")
    browser.press("Escape")
    browser.wait("document.querySelectorAll('.tile').length == 7")
    browser.press("0")
    browser.wait("document.querySelector('.tile:only-of-type')?.dataset.what == 'above'")
    browser.press("0")
    browser.click("#tiles > :first-child")
    browser.wait("document.querySelectorAll('.tile').length == 6")


def test_the_worst_samples_come_first(page, visit, finished):
    chosen = f"a=fit/{finished[0].path('fit').name}&score=0.05"
    browser = visit(page, chosen)
    browser.wait("!document.querySelector('#counted').textContent.includes('counted')")
    browser.press("o")
    sums = (
        "[...document.querySelectorAll('.row .detail')].map(d => d.textContent.split(' / ').reduce((a, b) => +a + +b))"
    )
    browser.wait(f"(s => s.every((n, i) => !i || n <= s[i - 1]))({sums})")
    browser.wait("document.querySelector('[aria-selected=true]').dataset.place == '0'")
    browser.run("document.querySelector('#find').focus()")
    for key in "val":
        browser.press(key)
    browser.wait("location.hash.includes('find=val')")
    browser.press("Escape")
    browser.wait(f"{SHOWN} && document.activeElement == document.body")


def test_a_scene_is_played_to_its_end(page, visit, finished):
    ingest = finished[0].path("ingest")
    opened = open_artifact(ingest)
    last = int((opened.index.scene == opened.index.scene[0]).sum()) - 1
    browser = visit(page, f"a=ingest/{ingest.name}&speed=8")
    browser.press(" ")
    browser.wait(f"{SHOWN} == '{opened.index.token[last]}'")
    browser.wait("document.querySelector('#play').textContent.includes('Play')")


def test_two_are_compared_on_the_same_sample(page, visit, finished, evaluated):
    chosen, tokens = evaluated
    teacher = finished[0].path("teacher").name
    browser = visit(page, f"{chosen}&b=teacher/{teacher}")
    assert browser.run(PICTURES) == 14
    assert browser.run("document.querySelectorAll('.pane').length") == 2
    alts = "[...document.querySelectorAll('.tile img')].map(i => i.alt.split(' ').at(-1))"
    browser.press("ArrowRight")
    browser.wait(f"{alts}.every(token => token == '{tokens[1]}')")
    browser.press("x")
    browser.wait(f"document.querySelector('.pane h2').textContent.startsWith('teacher') && {PICTURES} == 14")
    assert browser.run("document.querySelector('#counted').textContent").startswith(f"{len(tokens)} samples")


def test_figures_and_keys(page, visit, evaluated):
    browser = visit(page, evaluated[0])
    browser.press("i")
    browser.wait("document.querySelector('#figures').innerText.includes('missed')")
    browser.wait("document.querySelector('#figures .health').innerText.includes('results_nusc.json looks sound')")
    words = browser.run("document.querySelector('#figures').innerText")
    assert evaluated[1][0] in words
    assert "NDS" in words
    browser.press("?")
    browser.wait("document.querySelector('#keys').open")
    assert "play the scene" in browser.run("document.querySelector('#keys').innerText")
    browser.press("Escape")
    browser.wait("!document.querySelector('#keys').open")


def test_every_control_has_a_name(page, visit, evaluated):
    browser = visit(page, f"{evaluated[0]}&figures=1")
    nameless = (
        "[...document.querySelectorAll('button, select, input, canvas, [tabindex]')].filter(e => !(e.ariaLabel"
        " || e.innerText.trim() || e.labels?.[0]?.innerText.trim())).map(e => e.outerHTML.slice(0, 80))"
    )
    assert browser.run(nameless) == []
    assert browser.run("[...document.querySelectorAll('.tile img')].every(i => i.alt)")


def test_a_narrow_window_scrolls_down_alone(page, visit, evaluated):
    browser = visit(page, f"{evaluated[0]}&figures=1", size=(420, 800), dark=True)
    assert browser.run("document.documentElement.scrollWidth") <= 420
    assert browser.run("document.querySelector('#body').scrollWidth") <= 420
    assert browser.run("document.documentElement.dataset.theme") == "dark"
    browser.click("#toggle-list")
    browser.wait("document.querySelector('#list').offsetHeight > 100")


def test_a_token_of_no_sample(page, visit, evaluated):
    browser = visit(page, f"{evaluated[0]}&s=nonsense", until=f"{WORDS}?.includes('no sample')")
    browser.press("ArrowRight")
    browser.wait(SHOWN)


def test_a_damaged_artifact_and_a_whole_one(root, visit, evaluated):
    teacher = next((root / "teacher").glob("*"))
    (teacher / "manifest.json").write_text("{")
    with served(root) as page:
        browser = visit(page, f"{evaluated[0]}&b=teacher/{teacher.name}")
        assert browser.run(PICTURES) == 7
        assert "manifest.json" in browser.run("document.querySelector('.problem').innerText")
        browser.press("ArrowRight")
        browser.wait(f"{SHOWN} == '{evaluated[1][1]}'")


def test_weights_that_are_nan_look_wrong(root, visit):
    file = next((root / "finetune").glob("*/detector.safetensors"))
    floats = {name: value for name, value in load_file(file).items() if value.dtype == np.float32}
    save_file({name: np.full_like(value, np.nan) for name, value in floats.items()}, file)
    with served(root) as page:
        browser = visit(page, f"a=finetune/{file.parent.name}&figures=1")
        browser.wait("document.querySelector('.health .problem')?.innerText.includes('tensors hold NaN or infinity')")
        browser.press("ArrowRight")
        browser.wait(
            "document.querySelector('.health .problem')?.innerText.startsWith('detector.safetensors looks wrong')"
        )


def test_an_image_that_is_gone(root, visit, finished, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(finished[0].dataroot, data, ignore=shutil.ignore_patterns("CAM_FRONT"))
    with served(root, dataroot=data) as page:
        browser = visit(page, f"a=depth/{finished[0].path('depth').name}")
        assert browser.run(PICTURES) == 6
        assert "is missing" in browser.run("document.querySelector('[data-what=CAM_FRONT]').innerText")


def test_ten_thousand_samples(many, visit):
    with served(many) as page:
        browser = visit(page)
        assert browser.run("document.querySelector('#counted').textContent").startswith("10,000 samples")
        assert browser.run("document.querySelectorAll('.row').length") < 100
        browser.press("End")
        browser.wait(f"{SHOWN} == '{9999:032x}'")
        browser.click("#strip")
        browser.wait(f"Math.abs(parseInt({SHOWN}, 16) - 5000) < 20")
        slowest = browser.run("""(async () => {
            const list = document.querySelector("#list");
            let slowest = 0, last = performance.now();
            for (let i = 0; i <= 60; i++) {
                list.scrollTop = list.scrollHeight * i / 60;
                await new Promise(requestAnimationFrame);
                slowest = Math.max(slowest, performance.now() - last);
                last = performance.now();
            }
            return slowest;
        })()""")
        assert slowest < 500  # ms a frame, on a busy machine
        browser.press("/")
        for key in "scene-00003":
            browser.press(key)
        browser.wait("document.querySelectorAll('.row').length < 5")
        assert "scene-00003" in browser.run("document.querySelector('.row').innerText")


def test_without_the_link_there_is_a_sentence(page, browser):
    browser.run("0")
    browser.open("about:blank")
    browser.open(f"http://localhost:{page.port}/")  # another host: no cookie
    browser.wait("document.body?.innerText.includes('the link that `geomim view` printed')")


def test_a_server_that_was_ended(root, visit, evaluated):
    with served(root) as page:
        browser = visit(page, evaluated[0])
    browser.press("n")
    browser.wait("document.querySelector('#panes').innerText.includes('does not answer')")
