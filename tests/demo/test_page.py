"""The page in demo/, in a headless browser: its answers are those of agr predict, and it talks to nobody else."""

import base64
import json
import shutil
import socket
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from agr_utils.data.reading.images import resize_square
from agr_utils.data.synthetic import draw_faces
from agr_utils.deploy.command import json_line
from agr_utils.deploy.detect import ZOOM, Face, cut_out, place_crop
from agr_utils.deploy.predict import Request, predict_files

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import demo  # noqa: E402

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECOND = 1000
# What of an answer may differ, for the browser's arithmetic rounds otherwise: years, shares, pixels.
LOOSE = {"age": 0.1001, "age_interval": 0.2001, "gender_probability": 0.003, "race_probabilities": 0.003, "box": 1}


# Which directive of the page's policy kept a request to another origin from being sent.
FORBIDDEN = """() => new Promise((resolve) => {
    self.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective), { once: true });
    fetch("http://127.0.0.1:9/").catch(() => setTimeout(() => resolve("none: it was sent"), 1000));
})"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the built page; and what is missing where it cannot be built."""
    pytest.importorskip("playwright", reason="the page is not tested: install playwright")
    if BROWSER is None:
        pytest.skip("the page is not tested: no Chromium. Install it with: apt-get install chromium")
    if not demo.RUNTIME.exists():
        pytest.skip("the page is not tested: onnxruntime-web is missing. Run: npm ci --prefix demo")
    folder = tmp_path_factory.mktemp("page")
    demo.build(folder)
    return folder


@pytest.fixture(scope="module")
def site(built):
    yield from serve(built)


@pytest.fixture
def bare_site(built, monkeypatch):
    """The page on a host that sends no headers of its own, as most static hosts."""
    monkeypatch.setattr(demo.Handler, "end_headers", SimpleHTTPRequestHandler.end_headers)
    yield from serve(built)


def serve(folder):
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


def worker_of(page):
    """The worker that has the photograph; the threads beside it sleep, and would not answer."""
    return next(worker for worker in page.workers if worker.url.startswith("blob:"))


def let_worker_finish(page) -> None:
    """Wait until photographs that were dropped would have been answered, had they not been given up."""
    for _ in ("faces", "answers"):
        page.wait_for_timeout(0.3 * SECOND)
        worker_of(page).evaluate("1")


def drop(page, *paths: Path, event="drop", text="") -> None:
    """Drop files on the page, or paste them; or a text."""
    page.evaluate(
        """([files, event, text]) => {
            const transfer = new DataTransfer();
            for (const [content, name] of files) {
                const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
                const type = name.endsWith("jpg") ? "image/jpeg" : "image/png";
                transfer.items.add(new File([bytes], name, { type }));
            }
            if (text) transfer.setData("text/plain", text);
            document.dispatchEvent(event === "drop" ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true })
                : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }));
        }""",
        [[[base64.b64encode(path.read_bytes()).decode(), path.name] for path in paths], event, text],
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


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """Two faces."""
    path = tmp_path_factory.mktemp("photo") / "pair.png"
    Image.fromarray(np.hstack([data.astronaut(), data.astronaut()[:, ::-1]])).save(path)
    return path


def test_neither_the_page_nor_its_worker_may_connect_elsewhere(page, site):
    assert page.evaluate(FORBIDDEN) == worker_of(page).evaluate(FORBIDDEN) == "connect-src"
    policy = urllib.request.urlopen(f"{site}worker.js").headers["Content-Security-Policy"]
    assert "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert f"Content-Security-Policy: {policy}" in (ROOT / "docs/deployment.md").read_text(encoding="utf-8")


def test_the_newest_of_several_photographs_is_answered(page, astronaut, pair):
    page.evaluate("""() => {
        window.shown = [];
        const json = document.getElementById("json");
        new MutationObserver(() => shown.push(JSON.parse(json.textContent))).observe(json, { childList: true });
        const decode = window.createImageBitmap;
        window.decodeLate = () => { // the next photograph takes its time
            window.begun = new Promise((begin) => {
                window.createImageBitmap = async (...of) => {
                    window.createImageBitmap = decode;
                    begin();
                    await new Promise((resolve) => { window.goOn = resolve; });
                    return decode(...of);
                };
            });
        };
    }""")
    drop(page, astronaut)
    drop(page, pair)
    assert_same(answer_of(page), predicted(pair, abstain=True))
    assert "2 faces" in page.inner_text("#status")
    page.evaluate("window.decodeLate()")
    drop(page, astronaut)
    page.evaluate("window.begun")
    drop(page, pair)
    assert answer_of(page)["path"] == "pair.png"
    page.evaluate("window.goOn()")
    let_worker_finish(page)
    assert {answer["path"] for answer in page.evaluate("window.shown")} == {"pair.png"}
    drop(page, astronaut)
    drop(page, ROOT / "pyproject.toml")  # which is no photograph: no answer to the first is shown beneath that
    page.wait_for_selector("#problem:has-text('pyproject.toml')")
    let_worker_finish(page)
    assert page.is_hidden("#result") and page.inner_text("#status") == ""


def test_a_new_photograph_does_not_wait_for_a_map_of_the_one_before(page, astronaut, pair):
    drop(page, pair)
    answer_of(page)
    worker = worker_of(page)
    worker.evaluate("""() => {
        const post = self.postMessage.bind(self);
        self.codes = [];
        self.postMessage = (message) => { self.codes.push(message.code); post(message); };
    }""")
    page.click("#map-1-age")
    page.wait_for_selector("#progress-1")
    drop(page, astronaut)
    assert_same(answer_of(page), predicted(astronaut, abstain=True))
    assert worker.evaluate("self.codes").count("stale") == 1
    assert page.query_selector(".map canvas, .map [id^=progress]") is None


def test_what_is_dropped_and_not_answered_is_said(page, astronaut, pair):
    drop(page, astronaut, pair)
    assert answer_of(page)["path"] == "astronaut.png"
    assert "Of 2 files only this one is answered: “astronaut.png”" in page.inner_text("#status")
    drop(page, text="https://example.org/photo.jpg")
    assert "no file" in page.inner_text("#problem")


def test_race_is_hidden_until_it_is_asked_for(page, astronaut):
    drop(page, astronaut, event="paste")
    assert "race" not in page.text_content("#json") and "White" not in page.inner_text("#faces")
    page.check("#race")
    page.wait_for_selector("#faces :text('White')", timeout=60 * SECOND)
    page.uncheck("#abstain")
    expected = predicted(astronaut, tasks=("age", "gender", "race"))
    assert_same(json.loads(page.text_content("#json")), expected)
    worker = worker_of(page)
    worker.evaluate("""() => {
        const post = self.postMessage.bind(self);
        self.ends = [];
        self.postMessage = (message) => {
            if (message.share === undefined) self.ends.push(message.code ?? "done");
            post(message);
        };
    }""")
    page.click("#map-0-race")
    page.wait_for_selector("#progress-0")
    page.uncheck("#race")  # it is gone at once, though the worker is busy
    assert "race" not in page.text_content("#json") and "White" not in page.inner_text("#faces")
    assert page.query_selector("#progress-0, #map-0-race, [aria-pressed=true]") is None
    assert page.inner_text("#status") == "One face found."
    assert_same(json.loads(page.text_content("#json")), predicted(astronaut))
    page.check("#abstain")
    assert "race" not in page.text_content("#json")
    while not (ends := worker.evaluate("self.ends")):
        page.wait_for_timeout(0.1 * SECOND)
    assert ends == ["stale"]  # and the map is not computed to its end


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
    page.focus("#map-0-age")
    page.keyboard.press("Enter")
    assert "Covering" in page.inner_text("#status")
    page.wait_for_selector(".map canvas[role=img][aria-label]", timeout=240 * SECOND)
    assert "Trust:" in page.inner_text(".map") and "correlation" in page.inner_text(".map")
    assert page.inner_text("#status") == "The map is ready."
    assert page.evaluate("document.activeElement.id") == "map-0-age"
    colour = "(id) => getComputedStyle(document.getElementById(id)).backgroundColor"
    assert page.evaluate(colour, "map-0-gender") != page.evaluate(colour, "map-0-age")


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
    drop(page, tmp_path / "large.jpg")
    found = answer_of(page)
    assert "50 megapixels" in page.inner_text("#timing") and "10000 × 5000" in page.inner_text("#timing")
    expected = predicted(tmp_path / "large.jpg")
    assert len(found["faces"]) == len(expected["faces"]) == 1
    assert found["faces"][0]["box"] == pytest.approx(expected["faces"][0]["box"], abs=20)  # of about 900 x 1,200


def test_without_a_camera_a_photo_is_asked_for(page):
    page.click("#camera")
    page.wait_for_selector("#problem:has-text('camera')", timeout=30 * SECOND)
    assert "Choose a photo" in page.inner_text("#problem") or "choose a photo" in page.inner_text("#problem")


def test_the_camera_is_off_when_it_is_not_wanted(page, astronaut):
    page.evaluate("""() => {
        window.streams = [];
        window.permit = [];
        navigator.mediaDevices.getUserMedia = () => new Promise((resolve) => permit.push(() => {
            const canvas = document.createElement("canvas");
            canvas.getContext("2d").fillRect(0, 0, 9, 9);
            streams.push(canvas.captureStream());
            resolve(streams.at(-1));
        }));
    }""")
    running = "streams.flatMap((stream) => stream.getTracks()).filter((track) => track.readyState === 'live').length"
    page.click("#camera")
    page.click("#camera")
    page.evaluate("permit.splice(0).forEach((give) => give())")
    page.wait_for_selector("#viewfinder:not([hidden])")
    assert page.evaluate(running) == 1 and page.evaluate("document.activeElement.id") == "shoot"
    page.keyboard.press("Escape")
    assert page.evaluate(running) == 0 and page.is_hidden("#viewfinder")
    assert page.evaluate("document.activeElement.id") == "camera"
    page.click("#camera")
    drop(page, astronaut)
    answer_of(page)
    page.evaluate("permit.splice(0).forEach((give) => give())")  # too late
    assert page.evaluate("streams.length") == 3 and page.evaluate(running) == 0 and page.is_hidden("#viewfinder")
    page.evaluate("""() => {
        navigator.mediaDevices.getUserMedia = async () => { throw new DOMException("", "NotReadableError"); };
    }""")
    page.click("#camera")
    page.wait_for_selector("#problem:has-text('another program')")
    page.evaluate("delete navigator.mediaDevices.getUserMedia")


def test_a_drawing_that_cannot_be_loaded_is_said(page):
    page.context.route("**/drawing.png", lambda route: route.abort())
    page.click("#drawing")
    page.wait_for_selector("#problem:has-text('drawing.png')")
    assert "Check the connection" in page.inner_text("#problem")
    page.context.unroute("**/drawing.png")
    page.click("#drawing")
    page.wait_for_selector("#result:not([hidden])")
    assert answer_of(page)["path"] == "drawing.png"


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


@pytest.mark.parametrize(
    ("file", "said"),
    [("model.onnx", "damaged or was replaced"), *((name, "may be missing or damaged") for name in demo.RUNTIME_FILES)],
)
def test_a_damaged_file_is_not_run_and_not_blamed_on_the_browser(browser, site, file, said):
    page = browser.new_context(locale="en-GB").new_page()
    page.context.route(f"**/{file}", lambda route: route.fulfill(body=b"cut"))
    page.goto(site)
    page.wait_for_selector("#problem:not(:empty)", timeout=60 * SECOND)
    problem = page.inner_text("#problem")
    assert said in problem and "make demo" in problem and "Firefox" not in problem and page.is_disabled("#choose")


def test_on_a_host_without_headers_the_worker_may_neither_and_a_photograph_dropped_too_early_is_answered(
    browser, bare_site, astronaut
):
    assert "Content-Security-Policy" not in urllib.request.urlopen(f"{bare_site}worker.js").headers
    page = open_page(browser, bare_site)
    page.wait_for_selector("#status:has-text('Loading')")
    drop(page, astronaut)
    assert "still loading" in page.inner_text("#status")
    assert answer_of(page)["path"] == "astronaut.png"
    assert len(page.workers) == 1 and worker_of(page).evaluate(FORBIDDEN) == "connect-src"


def test_a_folder_with_something_else_is_not_built_into(tmp_path, built):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit, match="Name a new or an empty folder"):
        demo.build(tmp_path)
    with pytest.raises(SystemExit, match="Name a new or an empty folder"):
        demo.build(tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    (built / "CNAME").write_text("example.org")
    demo.build(built)
    assert (built / "CNAME").read_text() == "example.org"


def test_a_port_that_cannot_be_used_is_said(monkeypatch, tmp_path, site):
    monkeypatch.setattr(demo, "OUTPUT", tmp_path)
    with pytest.raises(SystemExit, match="There is no page"):
        demo.serve("0")
    (tmp_path / "config.js").touch()
    for port in ("abc", "-1", "70000"):
        with pytest.raises(SystemExit, match="is no port"):
            demo.serve(port)
    taken = site.strip("/").rpartition(":")[2]
    with pytest.raises(SystemExit, match=f"Port {taken} cannot be used"):
        demo.serve(taken)


def test_a_browser_that_closes_the_connection_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "large").write_bytes(bytes(20_000_000))
    errors, done = [], threading.Event()
    monkeypatch.setattr(demo.ThreadingHTTPServer, "handle_error", lambda *of: errors.append(sys.exception()))
    monkeypatch.setattr(demo.ThreadingHTTPServer, "shutdown_request", lambda *of: done.set())
    for address in serve(tmp_path):
        with socket.create_connection(("127.0.0.1", urllib.parse.urlsplit(address).port)) as browser:
            browser.sendall(b"GET /large HTTP/1.0\r\n\r\n")
            browser.recv(100)
        assert done.wait(10) and errors == []


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
