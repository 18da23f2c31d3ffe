"""The page in headless Chromium, from a file: masks, measurements, downloads, keys, and no connection."""

import base64
import csv
import dataclasses
import io
import json
import shutil
import socket
import threading
import time
import zipfile
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from mhsvm import draw_prediction, load_predictor
from mhsvm.assemble.exporting import _facts
from mhsvm.assemble.trained import load_trained
from mhsvm.export import Export
from mhsvm.export.html_page import page_html
from mhsvm.models import UltraLightVMUNet
from mhsvm.models.pretrained import find_pretrained
from tests.fixtures.browser_images import encode, lesion, readable_images, unreadable_files

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if BROWSER is None:
    pytest.skip("needs Chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")

WEIGHTS, BESIDE = "isic2017-wu-sorted", "isic2017-wu-shuffled-42"
# of a probability: the engine is compiled for other vectors here
CLOSE = 2e-5


class Listener:
    """A proxy that all connections of the browser would go through; it counts them and refuses them."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        self.requests: list[bytes] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            with connection:
                self.requests.append(connection.recv(4096))


@dataclasses.dataclass
class Opened:
    """A page in the browser, with everything that it has requested or reported."""

    page: "sync_api.Page"
    urls: list[str] = dataclasses.field(default_factory=list)
    reports: list[str] = dataclasses.field(default_factory=list)

    def run(self, script: str, argument: object = None) -> object:
        return self.page.evaluate(script, argument)

    def add(self, files: dict[str, bytes], *, drop: bool = False) -> None:
        """Add files, and wait for the last one."""
        if drop:
            content = [[name, base64.b64encode(data).decode()] for name, data in files.items()]
            self.run(DROP, content)
        else:
            parts = [{"name": name, "mimeType": "", "buffer": data} for name, data in files.items()]
            self.page.set_input_files("#files", parts)
        end = time.monotonic() + 30
        while not self.run("images.every(({ state }) => state === 'done' || state === 'failed')"):
            assert time.monotonic() < end
            self.page.wait_for_timeout(20)

    def show(self, name: str) -> None:
        self.page.click(f"#list li[title='{name}']")
        self.page.wait_for_selector("#view:not(.loading)", state="attached")

    def clear(self) -> None:
        if self.page.is_visible("#clear"):
            self.page.click("#clear")

    def save(self, button: str) -> tuple[str, bytes]:
        with self.page.expect_download() as waiting:
            self.page.click(f"#save button:text-matches('^{button} ')")
        return waiting.value.suggested_filename, waiting.value.path().read_bytes()

    def masks(self) -> dict[str, np.ndarray]:
        """The mask of each image at its own size, as the page writes it."""
        script = """async () => {
          const found = [];
          for (const image of images.filter(({ state }) => state === "done")) {
            const url = await new Promise(async (resolve) => {
              const reader = new FileReader();
              reader.onload = () => resolve(reader.result);
              reader.readAsDataURL(await maskFile(image, 0, thresholds));
            });
            found.push([image.name, url.split(",")[1]]);
          }
          return found;
        }"""
        return {name: read_image(base64.b64decode(text)) for name, text in self.run(script)}


DROP = """(files) => {
  const transfer = new DataTransfer();
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  for (const [name, text] of files) transfer.items.add(new File([bytes(text)], name));
  const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
  const target = document.getElementById("invitation");
  for (const type of ["dragenter", "dragover", "drop"]) target.dispatchEvent(new DragEvent(type, options));
}"""


# the name of the focused element, and whether it or the label over it has an outline
FOCUSED = """() => {
  const e = document.activeElement, name = e.id || e.dataset.save || e.name || e.tagName;
  const looks = [e, e.nextElementSibling ?? e].map((each) => getComputedStyle(each));
  const isVisible = looks.some((look) => look.outlineStyle === "solid" && parseFloat(look.outlineWidth) >= 2);
  return [e.role === "option" ? "row" : name, isVisible];
}"""


def read_image(content: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(content)))


def read_table(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def export(name: str, **options: object) -> Export:
    trained = load_trained(find_pretrained(name).path, device=torch.device("cpu"))
    return Export(trained.model, _facts(trained, None), **options)


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.server.close()


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def open_page(browser, listener, tmp_path_factory):
    """Open a page of a model, with options of the browser's context."""

    def open_(exported: Export, **options: object) -> Opened:
        path = tmp_path_factory.mktemp("page") / "segment #1.html"
        path.write_text(page_html(exported), encoding="utf-8")
        opened = Opened(browser.new_context(proxy={"server": listener.url}, **options).new_page())
        opened.page.on("request", lambda request: opened.urls.append(request.url))
        opened.page.on("console", lambda message: opened.reports.append(message.text))
        opened.page.on("pageerror", lambda error: opened.reports.append(str(error)))
        opened.page.goto(path.as_uri())
        return opened

    return open_


@pytest.fixture(scope="module")
def predictor():
    return load_predictor(WEIGHTS, device="cpu")


@pytest.fixture(scope="module")
def page(open_page) -> Opened:
    return open_page(export(WEIGHTS))


@pytest.fixture(scope="module")
def pair(open_page) -> Opened:
    return open_page(export(WEIGHTS, beside=export(BESIDE)), color_scheme="dark")


@pytest.fixture(autouse=True)
def _nothing_reported(request) -> Iterator[None]:
    """Each test begins without images; at its end, the console is empty and nothing was requested."""
    opened = [request.getfixturevalue(name) for name in ("page", "pair") if name in request.fixturenames]
    for each in opened:
        each.clear()
    yield
    for each in opened:
        assert each.reports == []
        assert {url.split(":")[0] for url in each.urls[1:]} <= {"blob", "data"}


def test_masks_are_those_of_the_predictor(page, predictor, tmp_path):
    files = readable_images()
    assert len(files) == 32
    page.add(files)
    masks = page.masks()
    assert list(masks) == list(files)
    num_different = num_pixels = num_lesion = 0
    for name, mask in masks.items():
        path = tmp_path / name
        path.write_bytes(files[name])
        expected = predictor(path)
        assert mask.shape == expected.mask.shape
        assert set(np.unique(mask)) <= {0, 255}
        different = (mask > 0) != (expected.mask > 0)
        assert np.all(np.abs(expected.probability[different] - predictor.threshold) < CLOSE), name
        num_different, num_pixels = num_different + different.sum(), num_pixels + mask.size
        num_lesion += expected.mask.sum()
    assert num_different <= 1e-6 * num_pixels
    assert 0.1 < num_lesion / num_pixels < 0.9


def test_files_that_are_dropped_and_no_images(page):
    unreadable, image = unreadable_files(), encode(lesion(64, 48), "PNG")
    page.add(
        {"first.png": image, **{name: data for name, (data, _) in unreadable.items()}, "last.png": image}, drop=True
    )
    errors = dict(page.run("images.map(({ name, error }) => [name, error ?? null])"))
    assert errors.pop("first.png") is None
    assert errors.pop("last.png") is None
    assert list(errors) == list(unreadable)
    for name, (_, part) in unreadable.items():
        assert part in errors[name]
    assert page.page.inner_text("#status") == "2 of 17 images are segmented; 15 could not be read."
    page.show("scan.tif")
    assert "does not read TIFF files" in page.page.inner_text("#problem")
    assert not page.page.is_visible("#view")
    page.show("last.png")
    assert page.page.is_visible("#view")
    assert not page.page.is_visible("#problem")


def test_threshold_and_area(page, predictor, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(lesion(640, 480), "PNG"))
    page.add({"a.png": path.read_bytes()})
    probability = predictor(path).probability
    for threshold in (0.5, 0.123, 0.9):
        page.page.fill("#thresholds input[type=number]", str(threshold))
        area = int((probability >= np.float32(threshold)).sum())
        assert 0 < area < probability.size
        assert page.page.inner_text(".area strong") == f"{100 * area / probability.size:#.3g} %"
        assert page.page.inner_text(".area span") == f"{area:,} pixels"
        _, mask = page.save("Mask")
        assert (read_image(mask) > 0).sum() == area
    # with the keyboard, and back
    page.page.focus("#thresholds input[type=range]")
    page.page.keyboard.press("ArrowLeft")
    assert page.run("thresholds") == [0.89]
    page.page.click("#thresholds button")
    assert page.run("thresholds") == [0.5]
    assert page.page.input_value("#thresholds input[type=number]") == "0.5"


def test_square_millimeters(page):
    files = {f"{name}.png": encode(lesion(300, 200), "PNG") for name in "ab"}
    page.add(files)
    area = page.run("images[0].areas[0].own")
    page.page.fill("#per", "20")
    assert page.page.inner_text(".area span") == f"{area:,} pixels · {area / 400:#.3g} mm²"
    # a number keeps its digits when its unit is chosen after it
    page.page.fill("#per", "0.05")
    page.page.select_option("#unit", "mm")
    assert page.page.input_value("#per") == "0.05"
    page.show("b.png")
    page.page.uncheck("#same")
    page.page.fill("#per", "0.1")
    assert page.run("images.map(({ scale }) => scale)") == [20, 10]
    page.show("a.png")
    assert page.page.input_value("#per") == "0.05"
    page.page.fill("#per", "-3")
    assert page.run("images.map(({ scale }) => scale)") == [None, 10]
    assert page.page.inner_text(".area span") == f"{area:,} pixels"
    page.page.fill("#per", "")
    page.page.check("#same")
    page.page.select_option("#unit", "pixels")
    assert page.run("images.map(({ scale }) => scale)") == [None, None]


def test_downloads(page, predictor, tmp_path):
    path = tmp_path / "lesion.of.jpg"
    path.write_bytes(encode(lesion(420, 280), "JPEG", orientation=6))
    page.add({path.name: path.read_bytes()})
    mask, _ = predictor(path)
    name, content = page.save("Mask")
    assert name == "lesion.of_mask.png"
    assert (read_image(content) == 255 * mask).all()
    assert Image.open(io.BytesIO(content)).mode == "L"
    name, content = page.save("Overlay")
    assert name == "lesion.of_overlay.png"
    upright = np.rot90(read_image(path.read_bytes()), -1)
    assert (read_image(content) == draw_prediction(upright, mask)).all()
    name, content = page.save("Polygons")
    assert name == "lesion.of_polygons.json"
    found = json.loads(content)
    assert found["type"] == "FeatureCollection"
    assert found["images"] == [{"image": path.name, "width": 280, "height": 420, "polygons": [len(found["features"])]}]
    sha256 = find_pretrained(WEIGHTS).sha256
    assert found["models"] == [{"model": WEIGHTS, "sha256": sha256, "threshold": 0.5}]
    for feature in found["features"]:
        area = sum(signed_area(np.array(ring)) for ring in feature["geometry"]["coordinates"])
        assert area == feature["properties"]["area_px"]
    assert sum(feature["properties"]["area_px"] for feature in found["features"]) == mask.sum()


def signed_area(ring: np.ndarray) -> float:
    assert (ring[0] == ring[-1]).all()
    (x, y), (u, v) = ring[:-1].T, ring[1:].T
    return float((x * v - u * y).sum() / 2)


def test_table_and_archive(page):
    image = encode(lesion(90, 60), "PNG")
    names = ['=1+2,"a".png', "+1.png", " @x.png", "höhe; 2.png", "a.b.png", "A.B.jpg"]
    # two files of one name
    for group in (dict.fromkeys(names, image), {"a.b.png": image, "notes.txt": b"text"}):
        page.add(group)
    page.page.fill("#per", "10")
    name, content = page.save("Table")
    assert name == "areas.csv"
    assert content.count(b"\r\n") == content.count(b"\n") == 9
    rows = read_table(content)
    written = ['\'=1+2,"a".png', "'+1.png", "' @x.png", "höhe; 2.png", "a.b.png", "A.B.jpg", "a.b.png", "notes.txt"]
    assert [row["image"] for row in rows] == written
    area = page.run("images[0].areas[0].own")
    assert rows[0] == {
        **dict(
            zip(("image", "width", "height", "model", "class"), (written[0], "90", "60", WEIGHTS, "1"), strict=True)
        ),
        "sha256": find_pretrained(WEIGHTS).sha256,
        "threshold": "0.5",
        "area_px": str(area),
        "percent": f"{100 * area / 5400:.4f}".rstrip("0").rstrip("."),
        "pixels_per_mm": "10",
        "area_mm2": f"{area / 100:g}",
        "error": "",
    }
    assert rows[-1]["area_px"] == ""
    assert "does not read text files" in rows[-1]["error"]
    name, content = page.save("All")
    assert name == "segmentation.zip"
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert archive.testzip() is None
    stems = ["=1+2,_a_", "+1", "@x", "höhe; 2", "a.b", "A.B-2", "a.b-3"]
    assert archive.namelist() == [*(f"masks/{stem}.png" for stem in stems), "polygons.json", "areas.csv"]
    assert (read_image(archive.read("masks/@x.png")) > 0).sum() == area
    assert len(json.loads(archive.read("polygons.json"))["images"]) == 7
    page.page.fill("#per", "")


def test_two_models(pair, predictor, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(lesion(320, 240, seed=4), "PNG"))
    pair.add({"a.png": path.read_bytes(), "b.png": path.read_bytes()})
    pair.page.fill("#thresholds .field:nth-child(2) input[type=number]", "0.4")
    a, b = predictor(path).mask, load_predictor(BESIDE, device="cpu", threshold=0.4)(path).mask
    dice = 2 * (a & b).sum() / (a.sum() + b.sum())
    assert 0.5 < dice < 1
    pair.page.wait_for_selector(f"#dice:text-is('{dice:.4f}')")
    _, content = pair.save("Mask B")
    assert (read_image(content) == 255 * b).all()
    rows = read_table(pair.save("Table")[1])
    assert [(row["image"], row["model"]) for row in rows] == [(f"{x}.png", m) for x in "ab" for m in (WEIGHTS, BESIDE)]
    assert [int(row["area_px"]) for row in rows[:2]] == [a.sum(), b.sum()]
    assert [float(row["dice"]) for row in rows] == pytest.approx([dice] * 4)
    pair.page.keyboard.press("2")
    assert pair.page.inner_text("#keys").split("\n") == ["only A", "only B", "both"]


def test_several_classes(open_page, tmp_path):
    torch.manual_seed(0)
    model = UltraLightVMUNet(num_classes=4).eval()
    facts = dataclasses.replace(export(WEIGHTS).facts, num_classes=4, name="of four classes")
    opened = open_page(Export(model, facts))
    image = lesion(256, 256)
    opened.add({"a.png": encode(image, "PNG")})
    mask = next(iter(opened.masks().values()))
    inputs = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    low, high = inputs.min(), inputs.max()
    with torch.inference_mode():
        logits = model.double()((inputs - low) / (high - low) * 255)[0]
    highest = logits.sort(dim=0).values
    clear = (highest[-1] - highest[-2]).numpy() > 1e-4
    assert clear.mean() > 0.9
    assert (mask == logits.argmax(dim=0).numpy())[clear].all()
    areas = [int((mask == label).sum()) for label in (1, 2, 3)]
    cells = opened.page.locator(".area td:nth-child(2)").all_inner_texts()
    assert cells == [f"{area:,} px" for area in areas]
    _, content = opened.save("Polygons")
    features = json.loads(content)["features"]
    found = [
        sum(each["properties"]["area_px"] for each in features if each["properties"]["class"] == k) for k in (1, 2, 3)
    ]
    assert found == areas
    _, content = opened.save("Overlay")
    assert (read_image(content) == draw_prediction(image, mask, num_classes=4)).all()
    assert opened.reports == []
    opened.page.context.close()


def test_keyboard(page):
    files = {f"{name}.png": encode(lesion(60, 40), "PNG") for name in "abc"}
    page.add(files)
    keyboard = page.page.keyboard
    page.run("document.activeElement.blur()")
    keyboard.press("ArrowRight")
    assert page.page.inner_text("#name") == "b.png"
    reached = {}
    for _ in range(40):
        keyboard.press("Tab")
        name, is_visible = page.run(FOCUSED)
        reached[name] = is_visible
    expected = ("files", "clear", "row", "mode", "threshold-0", "per", "unit", "same", "mask", "overlay", "polygons")
    assert {*expected, "table", "everything", "remove", "SUMMARY"} <= set(reached)
    assert [name for name, is_visible in reached.items() if not is_visible and name != "BODY"] == []
    page.page.focus("#list [aria-selected=true]")
    keyboard.press("ArrowDown")
    assert page.page.inner_text("#name") == "c.png"
    keyboard.press("Home")
    assert page.page.inner_text("#name") == "a.png"
    keyboard.press("Delete")
    assert page.page.inner_text("#name") == "b.png"
    assert page.page.locator("#list li").count() == 2
    for key, mode in zip("1234", ("boundary", "mask", "probability", "image"), strict=True):
        keyboard.press(key)
        assert page.page.input_value("[name=mode]:checked") == mode
    keyboard.press("1")


def test_phone(open_page):
    opened = open_page(
        export(WEIGHTS, half=True), viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    assert opened.page.is_visible("#photo")
    assert opened.run("document.documentElement.scrollWidth") <= 390
    name = "a name of a file that is much longer than the screen of a phone is wide.png"
    opened.add({name: encode(lesion(900, 600), "PNG"), "b.txt": b"text"})
    opened.page.click("summary")
    for mode in ("boundary", "probability"):
        opened.page.check(f"[value={mode}]", force=True)
        assert opened.run("document.documentElement.scrollWidth") <= 390
    assert opened.reports == []
    opened.page.context.close()


def test_nothing_is_sent(page, browser, listener):
    # every request of the tests before would have come here
    assert listener.requests == []
    tries = [
        "fetch('http://example.org/').then(() => 'sent', (error) => 'no')",
        "new Promise((done) => Object.assign(new Image(), { src: 'http://example.org/', onload: () => done('sent'), "
        "onerror: () => done('no') }))",
        "new Promise((done) => { const s = new WebSocket('ws://example.org/'); s.onopen = () => done('sent'); "
        "s.onerror = () => done('no'); })",
    ]
    assert [page.run(f"() => {script}") for script in tries] == ["no"] * 3
    assert any("Content Security Policy" in report for report in page.reports)
    page.reports.clear()
    page.urls[1:] = []
    assert listener.requests == []
    # the listener does listen
    with browser.new_context(proxy={"server": listener.url}) as context, pytest.raises(sync_api.Error):
        context.new_page().goto("http://example.org/")
    assert listener.requests


@pytest.mark.parametrize(("half", "limit"), [(False, 400_000), (True, 220_000)])
def test_size_of_the_file(half, limit):
    text = page_html(export(WEIGHTS, half=half))
    assert len(text.encode()) <= limit
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")
