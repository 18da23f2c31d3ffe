"""A model as a site: whole or not at all, below any path, and with a version of its own."""

import functools
import json
import re
import shutil
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from PIL import Image

from mhsvm.assemble.exporting import export_trained
from mhsvm.assemble.trained import load_trained
from mhsvm.cli import export as command
from mhsvm.cli.main import run
from mhsvm.text_file import read_text
from tests.fixtures.node import needs_node

WEIGHTS = "isic2017-wu-sorted"
FILES = ["icon-192.png", "icon-512.png", "index.html", "manifest.webmanifest", "service_worker.js"]


def export(out="site", **options):
    trained = load_trained(WEIGHTS, device=torch.device("cpu"))
    # small images are quicker
    return export_trained(replace(trained, data={"size": [32, 64]}), "site", out, **options)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def version(folder) -> str:
    (found,) = re.findall(r"`\$\{OWN\}(\w{16})`", read_text(folder / "service_worker.js"))
    return found


@pytest.fixture
def no_node(monkeypatch):
    """Quicker: the files are written and not run."""
    monkeypatch.setattr("mhsvm.export.node.find_node", lambda: None)


@needs_node
def test_the_site_is_compared(workplace):
    exported = export()
    assert exported.files[0] == Path("site/index.html")
    assert sorted(path.name for path in exported.files) == FILES
    assert all(path.is_file() for path in exported.files)
    assert 0 < exported.comparison.greatest < 2e-5
    assert names(workplace / "site") == FILES


@pytest.mark.usefixtures("no_node")
def test_all_files_are_found_below_any_path(workplace):
    assert export().not_run.startswith("there is no node")
    site = workplace / "site"
    html = read_text(site / "index.html")
    linked = re.findall(r'<link rel="[\w-]+" href="([^"]+)">', html)
    assert set(linked) == {"manifest.webmanifest", "icon-192.png"}
    manifest = json.loads(read_text(site / "manifest.webmanifest"))
    assert manifest["start_url"] == manifest["scope"] == "./"
    assert manifest["display"] == "standalone"
    for icon in manifest["icons"]:
        with Image.open(site / icon["src"]) as image:
            assert "x".join(map(str, image.size)) == icon["sizes"]
        assert (site / icon["src"]).stat().st_size < 10_000
    (kept,) = re.findall(r"const FILES = (.*);", read_text(site / "service_worker.js"))
    assert json.loads(kept) == ["./", "manifest.webmanifest", "icon-192.png", "icon-512.png"]
    assert 'register("service_worker.js")' in html
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert "default-src 'none'" in policy
    assert "worker-src blob: 'self'" in policy
    assert "connect-src" not in policy
    assert "@@" not in html + read_text(site / "service_worker.js")
    assert not re.search(r"https?://", html)


@pytest.mark.usefixtures("no_node")
def test_another_model_is_another_version_and_replaces_the_older_site(workplace):
    export()
    site = workplace / "site"
    first, pages = version(site), read_text(site / "index.html")
    (site / "icon-64.png").write_bytes(b"of an older version")
    export()
    assert version(site) == first
    assert read_text(site / "index.html") == pages
    export(threshold=0.4)
    assert version(site) != first
    assert names(site) == FILES
    assert [path.name for path in workplace.iterdir() if path.name.startswith(".export")] == []


@pytest.mark.usefixtures("no_node")
def test_only_own_folders_are_written_to(workplace, capsys):
    (workplace / "full").mkdir()
    (workplace / "full/index.html").write_text("<!doctype html><title>Mine</title>")
    (workplace / "file").write_text("")
    (workplace / "empty").mkdir()

    def error(out) -> str:
        assert run(command.main, ["--weights", WEIGHTS, "--format", "site", "--out", out]) == 2
        return capsys.readouterr().err

    assert "full exists and is not the folder of a site of mhsvm: choose another one with --out" in error("full")
    assert "file is a file, not a folder" in error("file")
    assert "there is no folder nowhere" in error("nowhere/site")
    assert names(workplace / "full") == ["index.html"]
    export("empty")
    (workplace / "empty/notes.txt").write_text("")
    assert "empty holds more than a site of mhsvm, notes.txt" in error("empty")
    assert names(workplace / "empty") == sorted([*FILES, "notes.txt"])


@needs_node
@pytest.mark.parametrize("exists", [False, True])
def test_an_error_changes_nothing(workplace, monkeypatch, exists):
    if exists:
        export()
    before = {path: path.is_file() and path.read_bytes() for path in workplace.rglob("*")}
    monkeypatch.setattr("mhsvm.assemble.exporting.LIMIT", 1e-12)
    with pytest.raises(ValueError, match="the site file of .* is not written"):
        export(threshold=0.3)
    assert {path: path.is_file() and path.read_bytes() for path in workplace.rglob("*")} == before


@pytest.mark.usefixtures("no_node")
def test_the_current_folder(workplace, monkeypatch):
    (workplace / "here").mkdir()
    monkeypatch.chdir(workplace / "here")
    export(".")
    assert names(workplace / "here") == FILES


class Server:
    """A web server of a folder, which can be stopped and started again at the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, 0
        self.start()

    def start(self) -> None:
        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

        handler = functools.partial(Handler, directory=str(self.folder))
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.mark.usefixtures("no_node")
def test_the_site_works_offline_and_takes_a_new_version(workplace):
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    (workplace / "www/below").mkdir(parents=True)
    export("www/below/site")
    first = version(workplace / "www/below/site")
    caches = "async () => (await caches.keys()).map((name) => name.split(' ')[2])"
    threshold = "() => JSON.parse(document.getElementById('data').textContent).models[0].threshold"
    server = Server(workplace / "www")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        page = browser.new_page()
        reports = []
        page.on("console", lambda message: reports.append(message.text))
        page.on("pageerror", lambda error: reports.append(str(error)))
        page.goto(f"http://127.0.0.1:{server.port}/below/site/")
        page.evaluate("() => navigator.serviceWorker.ready.then(() => true)")
        assert page.evaluate(caches) == [first]
        server.stop()
        for name in ("", "index.html", "?shared"):
            page.goto(f"http://127.0.0.1:{server.port}/below/site/{name}")
            assert page.evaluate(threshold) == 0.5
        image = Path("photo.png")
        Image.effect_noise((90, 70), 50).save(image)
        page.set_input_files("#files", str(image))
        page.wait_for_function("() => images.length === 1 && images[0].state === 'done'")
        export("www/below/site", threshold=0.25)
        second = version(workplace / "www/below/site")
        assert second != first
        server.start()
        page.reload()
        for _ in range(200):
            if page.evaluate(caches) == [second]:
                break
            page.wait_for_timeout(25)
        assert page.evaluate(caches) == [second]
        page.reload()
        assert page.evaluate(threshold) == 0.25
        browser.close()
    server.stop()
    assert reports == []
