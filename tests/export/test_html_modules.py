"""The scripts of the page compute as the library: resizing, the network, masks, contours."""

import json

import numpy as np
import pytest
import torch
from scipy import ndimage

from mhsvm.assemble.trained import load_trained
from mhsvm.inference.probability import resize_probability, to_mask
from mhsvm.models import create_model
from mhsvm.models.ultralight_native import network_arguments
from mhsvm.models.ultralight_weights import pack_weights
from mhsvm.native.wasm import WASM
from mhsvm.ops.fused.prepare_batch import minmax
from mhsvm.prepare.resize import resize_image
from tests.fixtures.node import call, call_json, needs_node

pytestmark = needs_node

SIZES = (
    *(((1, 1), (256, 256)), ((255, 257), (256, 256)), ((382, 286), (256, 256)), ((900, 200), (256, 256))),
    *(((256, 700), (256, 256)), ((700, 256), (256, 256)), ((100, 80), (64, 96)), ((1936, 2592), (256, 256))),
    *(((3000, 1), (32, 32)), ((64, 96), (64, 96))),
)


@pytest.mark.parametrize("channels", [3, 4])
def test_images_are_resized_to_the_byte_as_by_pillow(channels):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, channels), np.uint8) for size, _ in SIZES]
    sizes = [[*size[::-1], *new[::-1]] for size, new in SIZES]
    found = call(f"{json.dumps(sizes)}.forEach((size, i) => give(resizeRGB(inputs[i], ...size)))", *images)
    expected = [resize_image(image[..., :3].copy(), new) for image, (_, new) in zip(images, SIZES, strict=True)]
    assert found == b"".join(each.tobytes() for each in expected)


def test_a_wrong_size_is_an_error():
    code = """
    giveJson([
      message(() => resizeRGB(new Uint8Array(12), 2, 3, 4, 4)),
      message(() => resizeRGB(new Uint8Array(12), 2, 2, 4, 0)),
      message(() => resizeMaps(new Float32Array(5), 2, 2, 4, 4)),
      message(() => findPolygons(new Uint8Array(5), 2, 2)),
    ]);
    """
    assert call_json(code) == [
        "an image of 2 x 3 has 3 or 4 bytes a pixel; received 12 bytes",
        "newHeight is a whole number from 1 on; received 0",
        "maps of 2 x 2 have that many numbers each; received 5",
        "a mask of 2 x 2 has that many pixels; received 5",
    ]


@pytest.mark.parametrize("classes", [1, 3])
def test_probabilities_are_resized_as_by_the_predictor(classes):
    rng = np.random.default_rng(1)
    sizes = ((256, 255), (255, 257), (767, 576), (80, 100), (200, 300), (1, 1), (1000, 20), (1000, 1500))
    maps = rng.random((classes, 256, 256), np.float32)
    maps[:, :50] = maps[:, :50] > 0.5  # extremes
    code = f"for (const size of {json.dumps(sizes)}) give(resizeMaps(as(Float32Array, inputs[0]), 256, 256, ...size))"
    found = np.frombuffer(call(code, maps), np.float32)
    expected = [resize_probability(torch.from_numpy(maps)[None], size[::-1]).numpy().ravel() for size in sizes]
    # equal to the bit on processors with fused multiply-adds
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=0, atol=1.2e-7)
    assert call("give(resizeMaps(as(Float32Array, inputs[0]), 256, 256, 256, 256))", maps) == maps.tobytes()


@pytest.fixture(scope="module")
def networks():
    """Networks of several kinds by name, in float32."""
    torch.manual_seed(0)
    released = [
        load_trained(name, device=torch.device("cpu")).model
        for name in ("isic2017-wu-sorted", "isic2017-wu-shuffled-42")
    ]
    others = [
        {"num_classes": 3, "bridge": False},
        {"channels": (4, 8, 12, 16, 20, 28), "branches": 2, "d_state": 5, "d_conv": 3, "expand": 1, "num_classes": 2},
    ]
    return [*released, *(create_model("ultralight_vm_unet", **each).eval() for each in others)]


@pytest.fixture(scope="module")
def images():
    """Noise, and the extremes: constant, one white pixel, black and white."""
    rng = np.random.default_rng(0)
    one = np.zeros((64, 96, 3), np.uint8)
    one[30, 40] = 255
    noise = rng.integers(0, 256, one.shape, np.uint8)
    return [noise, np.full_like(one, 77), one, 255 * rng.integers(0, 2, one.shape, np.uint8)]


def run_all(networks, images, *, half: bool) -> list[np.ndarray]:
    """Probabilities of all networks, (images, k, h, w) each."""
    arguments = [{"size": [64, 96], "network": network_arguments(each)} for each in networks]
    code = f"""
    const models = {json.dumps(arguments)}.map((each, i) => ({{ ...each, weights: inputs[1 + i] }}));
    const images = inputs.slice(1 + models.length);
    for (const run of await openNetworks(inputs[0], models)) for (const image of images) give(run(image));
    """
    weights = [pack_weights(each, significant_bits=10 if half else 24) for each in networks]
    found = np.frombuffer(call(code, WASM.read_bytes(), *weights, *images), np.float32)
    shapes = [(len(images), each.head.out_channels, 64, 96) for each in networks]
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    assert len(found) == ends[-1]
    return [part.reshape(shape) for part, shape in zip(np.split(found, ends[:-1]), shapes, strict=True)]


@pytest.mark.parametrize(("half", "limit"), [(False, 2e-5), (True, 1e-2)])
def test_the_network_in_webassembly(networks, images, half, limit):
    inputs = minmax(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).double())
    for model, found in zip(networks, run_all(networks, images, half=half), strict=True):
        exact = create_model("ultralight_vm_unet", backend="reference", **_arguments(model)).double().eval()
        exact.load_state_dict(model.state_dict())
        with torch.inference_mode():
            logits = exact(inputs)
        expected = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
        assert np.abs(found - expected.numpy()).max() < limit


def _arguments(model) -> dict:
    arguments = network_arguments(model)
    del arguments["in_channels"]
    return arguments


def test_wrong_networks_and_images_are_errors(networks):
    model = networks[0]
    arguments = {"size": [64, 96], "network": network_arguments(model)}
    code = f"""
    const model = {{ ...{json.dumps(arguments)}, weights: inputs[1] }};
    const open = (change) =>
      openNetworks(change.wasm ?? inputs[0], [{{ ...model, ...change }}]).catch((error) => error.message);
    const [run] = await openNetworks(inputs[0], [model]);
    const diverged = as(Float32Array, inputs[1]).fill(NaN);
    const [wrong] = await openNetworks(inputs[0], [{{ ...model, weights: diverged.buffer }}]);
    giveJson([
      message(() => run(new Uint8Array(12))),
      message(() => run(new Float32Array(64 * 96 * 3))),
      message(() => wrong(new Uint8Array(64 * 96 * 3))),
      await open({{ size: [64, 90] }}),
      await open({{ size: [32768, 65536] }}),
      await open({{ weights: inputs[1].subarray(4) }}),
      await open({{ weights: inputs[1].subarray(1) }}),
      await open({{ network: {{ ...model.network, branches: 5 }} }}),
      await open({{ network: {{ ...model.network, in_channels: 1 }} }}),
      await open({{ network: {{ ...model.network, d_state: undefined }} }}),
      await open({{ wasm: inputs[1] }}),
    ]);
    """
    messages = call_json(code, WASM.read_bytes(), pack_weights(model))
    rule = "height and width are multiples of 32, with 67 million pixels at most"
    assert messages[:7] == [
        "the network takes 64 x 96 x 3 bytes; received 12",
        "the network takes 64 x 96 x 3 bytes; received 18432",
        "the network's output is not finite: its weights have diverged",
        f"the engine cannot run this network on images of 64 x 90: {rule}",
        f"the engine cannot run this network on images of 32768 x 65536: {rule}",
        f"this network has {len(pack_weights(model))} weights; received {len(pack_weights(model)) - 1}",
        f"weights have 4 bytes each; received {4 * len(pack_weights(model)) - 1} bytes",
    ]
    assert "branches divide the channels" in messages[7]
    assert "images are RGB" in messages[8]
    assert "a network has 13 whole numbers as its arguments" in messages[9]
    assert messages[10].startswith("this browser cannot run the engine; it needs WebAssembly with SIMD (WebAssembly")


def test_networks_that_need_too_much_memory_are_refused(networks):
    arguments = {"size": [8192, 8192], "network": network_arguments(networks[0])}
    code = f"""
    const model = {{ ...{json.dumps(arguments)}, weights: inputs[1] }};
    giveJson(await openNetworks(inputs[0], [model]).catch((error) => error.message));
    """
    found = call_json(code, WASM.read_bytes(), pack_weights(networks[0]))
    assert found == "images of 8192 x 8192 need more memory than WebAssembly has"


@pytest.mark.parametrize("threshold", [0.5, 0.45, 1 / 3, 0.1])
def test_masks_at_the_threshold(threshold):
    level = np.float32(threshold)
    near = np.array([np.nextafter(level, np.float32(0)), level, np.nextafter(level, np.float32(1))])
    found = np.frombuffer(call(f"give(toMask(as(Float32Array, inputs[0]), 1, {threshold!r}))", near), np.uint8)
    expected = to_mask(torch.from_numpy(near)[None, None, None], threshold)
    np.testing.assert_array_equal(found, expected[0, 0])
    assert found.tolist() == [0, 1, 1]


def test_masks_of_classes():
    maps = np.random.default_rng(0).integers(0, 3, (4, 20, 30)).astype(np.float32)
    found = np.frombuffer(call("give(toMask(as(Float32Array, inputs[0]), 4, 0.5))", maps), np.uint8)
    np.testing.assert_array_equal(found.reshape(20, 30), to_mask(torch.from_numpy(maps)[None], 0.5)[0])
    mask = found.reshape(20, 30)
    assert call_json("giveJson([0, 1, 2, 3].map((k) => countPixels(inputs[0], k)))", mask) == [
        int((mask == label).sum()) for label in range(4)
    ]


def masks() -> list[np.ndarray]:
    """Masks (24, 33) of all kinds of contours."""
    rng = np.random.default_rng(0)
    shape = (24, 33)
    noise = [(rng.random(shape) < density).astype(np.uint8) for density in (0.05, 0.3, 0.5, 0.7, 0.95)]
    smooth = [(ndimage.gaussian_filter(rng.random(shape), 2) > level).astype(np.uint8) for level in (0.45, 0.5, 0.55)]
    board = (np.indices(shape).sum(axis=0) % 2).astype(np.uint8)
    nested = np.zeros(shape, np.uint8)
    for step in range(6):
        nested[2 * step : 24 - 2 * step, 2 * step : 33 - 2 * step] = (step + 1) % 2
    return [*noise, *smooth, board, nested, np.zeros(shape, np.uint8), np.ones(shape, np.uint8)]


def signed_area(contour) -> float:
    x, y = np.array(contour).T
    return float(x[:-1] @ y[1:] - x[1:] @ y[:-1]) / 2


def fill(polygon, shape) -> np.ndarray:
    """Pixels whose centers are in a polygon, by the number of vertical edges to their left."""
    crossings = np.zeros((shape[0], shape[1] + 1), int)
    for contour in (polygon["outer"], *polygon["holes"]):
        for (x, y), (to, end) in zip(contour[:-1], contour[1:], strict=True):
            assert (x == to) != (y == end)
            crossings[min(y, end) : max(y, end), x] += x == to
    return np.cumsum(crossings, axis=1)[:, :-1] % 2


def test_contours_have_the_area_and_the_pixels_of_the_mask():
    cases = masks()
    found = call_json("giveJson(inputs.map((mask) => findPolygons(mask, 33, 24)))", *cases)
    for mask, polygons in zip(cases, found, strict=True):
        regions, num_regions = ndimage.label(mask)
        assert len(polygons) == num_regions
        assert sum(polygon["area"] for polygon in polygons) == mask.sum()
        assert [polygon["area"] for polygon in polygons] == sorted(np.bincount(regions.ravel())[1:], reverse=True)
        filled = [fill(polygon, mask.shape) for polygon in polygons]
        np.testing.assert_array_equal(sum(filled, np.zeros_like(mask)), mask)
        for polygon in polygons:
            assert signed_area(polygon["outer"]) > 0
            assert all(signed_area(hole) < 0 for hole in polygon["holes"])
            assert all(line[0] == line[-1] for line in (polygon["outer"], *polygon["holes"]))
    # one square: no corner is missing, and none is double
    assert call_json("giveJson(findPolygons(inputs[0], 1, 1))", np.ones((1, 1), np.uint8)) == [
        {"outer": [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], "holes": [], "area": 1}
    ]


def test_contours_of_one_class():
    mask = np.array([[0, 2, 2], [1, 2, 0], [2, 2, 1]], np.uint8)
    (polygon,) = call_json("giveJson(findPolygons(inputs[0], 3, 3, 2))", mask)
    assert polygon["area"] == 5


@pytest.mark.parametrize("thickness", [1, 2, 3])
def test_the_boundary_of_a_mask(thickness):
    cases = masks()
    found = call(f"for (const mask of inputs) give(maskBoundary(mask, 33, 24, {thickness}))", *cases)
    square = np.ones((2 * thickness + 1,) * 2)
    expected = [mask & ~ndimage.binary_erosion(mask, square) for mask in cases]
    assert found == np.stack(expected).astype(np.uint8).tobytes()


def test_packed_bytes():
    import base64
    import zlib

    content = bytes(range(256)) * 500
    text = base64.b64encode(zlib.compress(content)).decode()
    assert call(f"give(new Uint8Array(await unpack('{text}')))") == content
    planes = base64.b64encode(zlib.compress(b"abcdef")).decode()
    assert call(f"give(new Uint8Array(await unpack('{planes}', 2)))") == b"adbecf"
    damaged = text[:100] + ("B" if text[100] == "A" else "A") + text[101:]
    found = call_json(f"giveJson(await unpack('{damaged}').catch((error) => error.message))")
    assert found.startswith("this page is damaged: download it again (")
