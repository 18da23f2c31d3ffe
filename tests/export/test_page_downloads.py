"""Files that the page writes in headless Chromium: masks, overlays, polygons, tables and archives."""

import io
import json
import zipfile

import numpy as np
from PIL import Image

from mhsvm import draw_prediction
from mhsvm.models.pretrained import find_pretrained
from tests.fixtures.browser import WEIGHTS, read_image, read_table
from tests.fixtures.browser_images import encode, lesion


def test_downloads(page, released_predictor, tmp_path):
    path = tmp_path / "lesion.of.jpg"
    path.write_bytes(encode(lesion(420, 280), "JPEG", orientation=6))
    page.add({path.name: path.read_bytes()})
    mask, _ = released_predictor(path)
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
