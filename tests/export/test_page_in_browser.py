"""The page in headless Chromium, from a file: masks, measurements, two models, keys, and no connection."""

import base64
import dataclasses
import json

import numpy as np
import pytest
import torch

from mhsvm import draw_prediction, load_predictor
from mhsvm.export import Export, html_page
from mhsvm.export.html_page import page_html
from mhsvm.models import UltraLightVMUNet
from tests.fixtures.browser import BESIDE, WEIGHTS, export, read_image, read_table
from tests.fixtures.browser_images import encode, lesion, readable_images, unreadable_files

# of a probability: the engine is compiled for other vectors here
CLOSE = 2e-5
# as browsers do against fingerprinting
CHANGES_PIXELS = """
const { prototype } = OffscreenCanvasRenderingContext2D, getImageData = prototype.getImageData;
prototype.getImageData = function (...place) {
  const read = getImageData.apply(this, place);
  read.data[5] ^= 1;
  return read;
};
"""
# as browsers do it after a screenshot
PASTE = """(text) => {
  const transfer = new DataTransfer(), bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  transfer.items.add(new File([bytes], "image.png", { type: "image/png" }));
  document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }));
}"""
# the name of the focused element, and whether it or the label over it has an outline
FOCUSED = """() => {
  const e = document.activeElement, name = e.id || e.dataset.save || e.name || e.tagName;
  const looks = [e, e.nextElementSibling ?? e].map((each) => getComputedStyle(each));
  const isVisible = looks.some((look) => look.outlineStyle === "solid" && parseFloat(look.outlineWidth) >= 2);
  return [e.role === "option" ? "row" : name, isVisible];
}"""


def test_masks_are_those_of_the_predictor(page, released_predictor, tmp_path):
    files = readable_images()
    assert len(files) == 32
    page.add(files)
    masks = page.masks()
    assert list(masks) == list(files)
    num_different = num_pixels = num_lesion = 0
    for name, mask in masks.items():
        path = tmp_path / name
        path.write_bytes(files[name])
        expected = released_predictor(path)
        assert mask.shape == expected.mask.shape
        assert set(np.unique(mask)) <= {0, 255}
        different = (mask > 0) != (expected.mask > 0)
        assert np.all(np.abs(expected.probability[different] - released_predictor.threshold) < CLOSE), name
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


def test_images_that_are_pasted_or_photographed(page):
    image = encode(lesion(64, 48), "PNG")
    page.run(PASTE, base64.b64encode(image).decode())
    page.page.set_input_files("#camera", [{"name": "photo.png", "mimeType": "image/png", "buffer": image}])
    page.wait()
    assert page.run("images.map(({ name, state }) => [name, state])") == [["image.png", "done"], ["photo.png", "done"]]
    # the last one is shown
    assert page.page.inner_text("#name") == "photo.png"


def test_threshold_and_area(page, released_predictor, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(lesion(640, 480), "PNG"))
    page.add({"a.png": path.read_bytes()})
    probability = released_predictor(path).probability
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


def test_scale_from_a_line_in_the_image(page):
    page.add({"a.png": encode(lesion(400, 300), "PNG")})
    page.page.click("#measure")
    page.page.locator("#view").scroll_into_view_if_needed()
    box, mouse = page.page.locator("#view").bounding_box(), page.page.mouse
    mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"])
    mouse.down()
    # 0.3 of the width and 0.4 of the height are 120 pixels each
    mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.6 * box["height"])
    mouse.up()
    page.page.fill("#mm", "5")
    assert float(page.page.input_value("#per")) == pytest.approx(2**0.5 * 120 / 5, rel=0.01)
    assert page.run("images[0].scale") == float(page.page.input_value("#per"))
    page.page.click("#measure")
    assert not page.page.is_visible("#length")
    page.page.fill("#per", "")


def test_two_models(pair, released_predictor, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(lesion(320, 240, seed=4), "PNG"))
    pair.add({"a.png": path.read_bytes(), "b.png": path.read_bytes()})
    pair.page.fill("#thresholds .field:nth-child(2) input[type=number]", "0.4")
    a, b = released_predictor(path).mask, load_predictor(BESIDE, device="cpu", threshold=0.4)(path).mask
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
    # the focus stays on parts that can be seen
    keyboard.press("Delete")
    assert page.run("document.activeElement.id") == "remove"
    keyboard.press("Enter")
    assert page.run("document.activeElement.id") == "files"
    assert not page.page.is_visible("#work")


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
    with browser.new_context(proxy={"server": listener.url}) as context, pytest.raises(Exception, match="ERR_"):
        context.new_page().goto("http://example.org/")
    assert listener.requests


def test_browsers_that_cannot_run_the_page(browser, tmp_path, monkeypatch):
    path, script = tmp_path / "page.html", html_page._script
    with browser.new_context() as context:
        page = context.new_page()
        for lacks, sentence, place in (
            ("self.OffscreenCanvas = undefined;", "This browser is too old: it lacks OffscreenCanvas", "#problem"),
            ("self.WebAssembly = undefined;", "This browser has no WebAssembly", "#problem"),
            ("throw new Error();", "The computation stopped", "#problem"),
            (CHANGES_PIXELS, "This browser changes pixels", "#warning"),
        ):
            # at the start of the Worker's own scripts
            monkeypatch.setattr(
                html_page, "_script", lambda name, lacks=lacks: lacks * (name == html_page.WORKER[0]) + script(name)
            )
            path.write_text(page_html(export(WEIGHTS)), encoding="utf-8")
            page.goto(path.as_uri())
            page.set_input_files("#files", [{"name": "a.png", "mimeType": "", "buffer": b""}])
            page.wait_for_selector("#status.error")
            assert sentence in page.inner_text(place)


@pytest.mark.parametrize(("half", "limit"), [(False, 400_000), (True, 220_000)])
def test_size_of_the_file(half, limit):
    text = page_html(export(WEIGHTS, half=half))
    assert len(text.encode()) <= limit
    # weights as base64 may hold any word, but no colon
    assert "http:" not in text
    assert "https:" not in text
