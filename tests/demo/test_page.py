"""The page in demo/, in a headless browser: its answers are those of agr predict, and it talks to nobody else."""

import base64
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from agr_utils.data.reading.images import resize_square
from agr_utils.data.synthetic import draw_faces
from agr_utils.deploy.answers import json_line
from agr_utils.deploy.detect import ZOOM, Face, cut_out, place_crop
from agr_utils.deploy.predict import Request, predict_files

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import demo  # noqa: E402

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECOND = 1000
# What of an answer may differ, for the browser's arithmetic rounds otherwise: years, shares, pixels.
LOOSE = {"age": 0.1001, "age_interval": 0.2001, "gender_probability": 0.003, "race_probabilities": 0.003, "box": 1}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built page, served; and what is missing where it cannot be."""
    pytest.importorskip("playwright", reason="the page is not tested: install playwright")
    if BROWSER is None:
        pytest.skip("the page is not tested: no Chromium. Install it with: apt-get install chromium")
    if not demo.RUNTIME.exists():
        pytest.skip("the page is not tested: onnxruntime-web is missing. Run: npm ci --prefix demo")
    folder = tmp_path_factory.mktemp("page")
    demo.build(folder)
    with demo.make_server(0, folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(site):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(browser, site):
    """The page, ready, with every address that it asked for in ``page.asked``."""
    page = open_page(browser, site)
    page.wait_for_selector("html[data-ready]", timeout=120 * SECOND)
    return page


def open_page(browser, site, script="", **options):
    page = browser.new_context(locale="en-GB", viewport={"width": 1100, "height": 900}, **options).new_page()
    page.add_init_script(script)
    page.asked, page.broken = [], []
    page.context.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.broken.append(str(error)))
    page.goto(site)
    return page


def drop(page, path: Path, kind="image/png", event="drop") -> None:
    """Drop a file on the page, or paste it."""
    page.evaluate(
        """([content, name, type, event]) => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type }));
            document.dispatchEvent(event === "drop" ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true })
                : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }));
        }""",
        [base64.b64encode(path.read_bytes()).decode(), path.name, kind, event],
    )


def settle(page) -> None:
    page.wait_for_selector("html:not([data-busy])", timeout=120 * SECOND)


def answer_of(page) -> dict:
    settle(page)
    assert page.inner_text("#problem") == "" and page.broken == []
    page.wait_for_selector("#result:not([hidden])")
    return json.loads(page.text_content("#json"))


def assert_same(found, expected, allowed=0.0):
    """Equal, but for numbers that may be apart by what LOOSE allows of their name."""
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert_same(found[name], value, LOOSE.get(name, allowed))
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, allowed)
    elif isinstance(expected, (int, float)):
        assert found == pytest.approx(expected, abs=allowed or 0.001)
    else:
        assert found == expected


def predicted(path: Path, **request) -> dict:
    answer = json.loads(json_line(next(predict_files([path], request=Request(**request)))))
    return answer | {"path": path.name}


@pytest.fixture(scope="module")
def astronaut(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    Image.fromarray(data.astronaut()).save(path)
    return path


def test_a_dropped_photograph_gets_the_answers_of_agr_predict_and_leaves_the_machine_by_no_way(page, site, astronaut):
    before = len(page.asked)
    drop(page, astronaut)
    assert_same(answer_of(page), predicted(astronaut, abstain=True))
    page.uncheck("#abstain")
    assert_same(json.loads(page.text_content("#json")), predicted(astronaut))
    page.check("#abstain")
    blob = [url for url in page.asked if url.startswith("blob:")]
    assert [url for url in page.asked[before:] if url not in blob] == []
    assert all(url.startswith(f"blob:{site}") for url in blob)
    assert all(url.startswith(site) for url in page.asked if url not in blob)
    assert sum(url.endswith(".onnx") for url in page.asked) == 2  # each network once


def test_the_page_may_not_connect_elsewhere(page):
    blocked = page.evaluate("fetch('http://127.0.0.1:9/').then(() => '', (error) => error.name)")
    assert blocked == "TypeError"
    assert "connect-src 'self'" in page.get_attribute("meta[http-equiv]", "content")


def test_race_is_hidden_until_it_is_asked_for(page, astronaut):
    drop(page, astronaut, event="paste")
    assert "race" not in page.text_content("#json") and "White" not in page.inner_text("#faces")
    page.check("#race")
    page.wait_for_selector("#faces :text('White')", timeout=60 * SECOND)
    page.uncheck("#abstain")
    expected = predicted(astronaut, tasks=("age", "gender", "race"))
    assert_same(json.loads(page.text_content("#json")), expected)
    page.uncheck("#race")
    page.wait_for_selector("#faces :text('White')", state="detached", timeout=60 * SECOND)
    page.check("#abstain")


def test_a_drawing_without_a_face_can_be_taken_for_one(page, tmp_path):
    drawing = tmp_path / "drawing.png"
    Image.fromarray(draw_faces(10, image_size=200, seed=4).pixels[0]).save(drawing)
    drop(page, drawing)
    settle(page)
    if predicted(drawing)["faces"] == []:
        assert "No face was found" in page.inner_text("#status")
        page.click("#whole")
        assert_same(answer_of(page), predicted(drawing, detect=False, abstain=True))
    else:
        assert_same(answer_of(page), predicted(drawing, abstain=True))


def test_a_map_of_what_the_answer_depends_on_says_how_far_it_can_be_trusted(page, astronaut):
    drop(page, astronaut)
    answer_of(page)
    page.click(".map button >> nth=0")
    page.wait_for_selector(".map canvas[role=img][aria-label]", timeout=240 * SECOND)
    assert "Trust:" in page.inner_text(".map") and "correlation" in page.inner_text(".map")


def test_what_cannot_be_read_is_said(page, tmp_path):
    (tmp_path / "notes.png").write_bytes(b"no image at all")
    drop(page, tmp_path / "notes.png")
    page.wait_for_selector("#problem:has-text('notes.png')")
    assert "JPEG, PNG or WebP" in page.inner_text("#problem")
    Image.new("1", (12_000, 9_000)).save(tmp_path / "huge.png")
    drop(page, tmp_path / "huge.png")
    page.wait_for_selector("#problem:has-text('108 megapixels')")


def test_a_photograph_of_fifty_megapixels_is_made_smaller(page, tmp_path, astronaut):
    large = Image.new("L", (10_000, 5_000), 200)
    large.paste(Image.open(astronaut).convert("L").resize((5_000, 5_000)), (2_000, 0))
    large.save(tmp_path / "large.jpg")
    drop(page, tmp_path / "large.jpg", "image/jpeg")
    found = answer_of(page)
    assert "50 megapixels" in page.inner_text("#timing")
    assert len(found["faces"]) == len(predicted(tmp_path / "large.jpg")["faces"]) == 1


def test_without_a_camera_a_photo_is_asked_for(page):
    page.click("#camera")
    page.wait_for_selector("#problem:has-text('camera')", timeout=30 * SECOND)
    assert "Choose a photo" in page.inner_text("#problem") or "choose a photo" in page.inner_text("#problem")


def test_a_keyboard_and_a_screen_reader_are_enough(page):
    page.focus("#language")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "choose"
    # Whether the system's chooser then opens is the browser's business, and in a headless one a matter of luck.
    page.evaluate("document.getElementById('file').addEventListener('click', () => { window.asked = true })")
    page.keyboard.press("Enter")
    page.wait_for_function("window.asked", timeout=10 * SECOND)
    unnamed = "[...document.querySelectorAll('button, input:not([type=file]), select')].filter("
    unnamed += "(item) => !(item.textContent.trim() || item.labels?.[0]?.textContent.trim())).length"
    assert page.evaluate(unnamed) == 0
    assert page.get_attribute("#status", "aria-live") == "polite" and page.get_attribute("#problem", "role") == "alert"


def test_every_text_is_there_in_both_languages(page):
    keys = page.evaluate("import('./strings.js').then(({default: all}) => Object.values(all).map(Object.keys))")
    assert keys[0] == keys[1]
    page.select_option("#language", "de")
    assert page.inner_text("#choose") == "Foto auswählen" and page.get_attribute("html", "lang") == "de"
    page.select_option("#language", "en")
    assert page.broken == []


def test_on_a_narrow_screen_nothing_sticks_out(page, astronaut):
    page.set_viewport_size({"width": 320, "height": 700})
    drop(page, astronaut)
    answer_of(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.set_viewport_size({"width": 1100, "height": 900})


def test_a_browser_without_webassembly_is_told(browser, site):
    page = open_page(browser, site, "Object.defineProperty(window, 'WebAssembly', { value: undefined })")
    page.wait_for_selector("#problem:has-text('WebAssembly')", timeout=60 * SECOND)
    assert page.is_disabled("#choose")


def test_a_damaged_network_is_not_run(browser, site):
    page = browser.new_context(locale="en-GB").new_page()
    page.context.route("**/model.onnx", lambda route: route.fulfill(body=b"cut"))
    page.goto(site)
    page.wait_for_selector("#problem:has-text('model.onnx')", timeout=60 * SECOND)
    assert "damaged" in page.inner_text("#problem") and page.is_disabled("#choose")


@pytest.mark.skipif(shutil.which("node") is None, reason="the page's arithmetic is not tested: node is missing")
def test_its_pixels_are_those_of_pillow(tmp_path):
    image = Image.fromarray(data.astronaut()).crop((0, 0, 501, 507))
    landmarks = np.array([[20, 9], [140, 35], [80, 85], [13, 140], [95, 163]], dtype=float)  # turned, beyond the edge
    expected = {
        "smaller": image.resize((128, 131), Image.Resampling.BILINEAR),
        "larger": image.resize((700, 610), Image.Resampling.BILINEAR),
        "fast": image.resize((97, 101), Image.Resampling.BILINEAR, reducing_gap=2),
        "reduced": image.reduce(3),
        "left": image.transpose(Image.Transpose.ROTATE_90),
        "right": image.transpose(Image.Transpose.ROTATE_270),
        "middle": resize_square(image, 128),
        "crop": cut_out(image, place_crop(Face((0, 0, 1, 1), 1.0, landmarks)), 128),
        "reduced_crop": cut_out(image, place_crop(Face((0, 0, 1, 1), 1.0, landmarks)), 32),
    }
    (tmp_path / "image").write_bytes(np.asarray(image).tobytes())
    script = f"""
        import {{ readFileSync, writeFileSync }} from "node:fs";
        import * as pixels from "{(ROOT / "demo/src/pixels.js").as_uri()}";
        import * as detect from "{(ROOT / "demo/src/detect.js").as_uri()}";
        const image = {{ width: 501, height: 507, data: new Uint8Array(readFileSync("image")) }};
        const place = detect.placeCrop({{ landmarks: {landmarks.tolist()} }}, {ZOOM});
        const results = {{
            smaller: pixels.resize(image, 128, 131), larger: pixels.resize(image, 700, 610),
            fast: pixels.resizeFast(image, 97, 101), reduced: pixels.reduce(image, 3),
            left: pixels.turn(image, 90), right: pixels.turn(image, 270),
            middle: detect.middleSquare(image, 128).pixels,
            crop: detect.cutOut(image, place, 128), reduced_crop: detect.cutOut(image, place, 32),
        }};
        for (const [name, result] of Object.entries(results)) writeFileSync(name, result.data);
    """
    (tmp_path / "script.mjs").write_text(script, encoding="utf-8")
    subprocess.run(["node", "script.mjs"], cwd=tmp_path, check=True)
    for name, result in expected.items():
        assert (tmp_path / name).read_bytes() == np.asarray(result).tobytes(), name
