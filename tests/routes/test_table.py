import pytest
import torch

from mhsvm.routes import list_patterns, published_tables, route_table, scan_routes, table


def test_published_tables(shared):
    published = torch.load(shared / "fixtures" / "routes_64x96.pt", weights_only=True)
    stages = published_tables(64, 96, depth=4)
    assert len(stages) == len(published) == 4
    for i, stage in enumerate(stages):
        assert list(stage) == [f"layer_{i}.cxsz_tpinds"]
        assert torch.equal(stage[f"layer_{i}.cxsz_tpinds"], published[f"stage{i}"])


@pytest.mark.parametrize("pattern", list_patterns())
@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 4), (5, 1), (6, 7)])
def test_four_scan_routes(pattern, h, w):
    base, base_inverse = route_table(pattern, h, w)
    order, inverse = scan_routes(pattern, h, w)
    assert base.dtype == base_inverse.dtype == order.dtype == inverse.dtype == torch.int64
    assert base.shape == base_inverse.shape == (2, h * w)
    assert torch.equal(order, torch.stack([base[0], base[0].flip(0), base[1], base[1].flip(0)]))
    cells = torch.arange(h * w).expand(4, -1)
    assert torch.equal(order.gather(1, inverse), cells)
    assert torch.equal(inverse.gather(1, order), cells)
    assert torch.equal(base.gather(1, base_inverse), cells[:2])


@pytest.mark.parametrize("make", [route_table, scan_routes])
@pytest.mark.parametrize(("h", "w"), [(0, 4), (4, 0), (-1, 4)])
def test_map_without_cells(make, h, w):
    with pytest.raises(ValueError, match=f"at least 1 x 1 cells, got {h} x {w}"):
        make("C", h, w)


def test_cached_routes_are_not_the_callers():
    order, _ = scan_routes("C", 3, 3)
    order.zero_()
    assert scan_routes("C", 3, 3)[0].sum() > 0


def test_routes_made_in_inference_or_on_another_device_serve_training():
    table._base_routes.cache_clear()
    table._four_routes.cache_clear()
    with torch.inference_mode(), torch.device("meta"):
        scan_routes("X", 4, 6)
    order, _ = scan_routes("X", 4, 6)
    assert order.device.type == "cpu"
    assert not order.is_inference()


def test_cache_is_used_and_bounded():
    table._base_routes.cache_clear()
    scan_routes("S", 9, 9)
    route_table("S", 9, 9)
    info = table._base_routes.cache_info()
    assert info.hits == 1
    assert info.misses == 1
    assert info.maxsize is not None


@pytest.mark.parametrize(
    ("size", "depth", "message"),
    [
        ((100, 96), 4, "h must be divisible by 32 at this depth, got 100: use 96 or 128"),
        ((96, 100), 4, "w must be divisible by 32 at this depth, got 100: use 96 or 128"),
        ((20, 96), 4, "h must be divisible by 32 at this depth, got 20: use 32$"),
        ((0, 96), 4, "h must be divisible by 32 at this depth, got 0: use 32$"),
        ((-32, 96), 4, "h must be divisible by 32 at this depth, got -32: use 32$"),
        ((12, 12), 2, "h must be divisible by 8 at this depth, got 12: use 8 or 16"),
        ((64, 64), 0, "depth must be at least 1 stage, got 0"),
    ],
)
def test_sizes_that_do_not_divide(size, depth, message):
    with pytest.raises(ValueError, match=message):
        published_tables(*size, depth=depth)
