"""A trained UltraLight VM-UNet as one page that runs in a browser, without a server and without a request."""

import base64
import hashlib
import json
import re
import zlib
from pathlib import Path

import numpy as np

from mhsvm.export.engine import engine_arguments, engine_weights, unsupported_reason
from mhsvm.export.facts import INTENDED_USE, RESIZE_RULE
from mhsvm.export.formats import FORMATS, Export, Format
from mhsvm.export.node import open_page
from mhsvm.native.wasm import WASM
from mhsvm.text_file import read_text, write_text
from mhsvm.version import __version__

FOLDER = Path(__file__).with_name("page")
# Scripts of the page and of its Worker alike, and of each alone.
MODULES = ("unpack.js", "resample.js", "network.js", "contour.js")
WORKER = ("deep_png.js", "image_file.js", "output_file.js", "full_size.js", "worker.js")
PAGE = ("drawing.js", "results.js", "state.js", "images.js", "shown.js", "settings.js", "downloads.js", "page.js")
# Comments, empty lines, and spaces at the start of the others.
_LEFT_OUT = re.compile(r"^[ \t]*(//.*|/\*\*[^*]*(\*(?!/)[^*]*)*\*/)?\s*$\n?|^[ \t]+|[ \t]+// .*$", re.M)
# Significant bits of rounded matrices. Numbers of 16 bits have one more, but not in vectors: they are less exact.
_HALF_BITS = 10
# By default nothing is loaded, and nothing can be sent.
_POLICY = {
    "default-src": "'none'",
    "script-src": "'wasm-unsafe-eval'",
    "worker-src": "blob:",
    "style-src": "'unsafe-inline'",
    "img-src": "blob: data:",
    "base-uri": "'none'",
    "form-action": "'none'",
}


def page_html(export: Export, *, head: str = "", script: str = "", policy: dict[str, str] | None = None) -> str:
    """The text of the page.

    Args:
        export: The model, and the one beside it.
        head: HTML for the start of its head.
        script: JavaScript that runs after the page's own.
        policy: Sources to add to those that its content security policy allows, by directive.
    """
    modules, main = ("".join(map(_script, names)) for names in (MODULES, PAGE))
    main += script
    allowed = dict(_POLICY)
    # with checksums of its scripts instead of 'unsafe-inline', no other script could run
    allowed["script-src"] += "".join(f" 'sha256-{_digest(text)}'" for text in (modules, main))
    for directive, sources in (policy or {}).items():
        allowed[directive] = f"{allowed.get(directive, '')} {sources}".strip()
    rules = "; ".join(f"{directive} {sources}" for directive, sources in allowed.items())
    parts = {
        "head": f'{head}<meta http-equiv="Content-Security-Policy" content="{rules}">',
        "style": _LEFT_OUT.sub("", read_text(FOLDER / "page.css")),
        "modules": modules,
        "data": _embeddable(page_data(export)),
        "script": main,
    }
    return re.sub(r"@@(\w+)@@", lambda mark: parts[mark[1]], read_text(FOLDER / "page.html"))


def page_data(export: Export) -> dict:
    """The data of the page: the engine, the script of the Worker, and the facts and weights of one or two models.

    Bytes are base64 of a zlib stream. Weights have their first bytes first, then their second ones, …: those of a kind
    compress better, above all those that rounding has made zero. A model has the keys of the Worker's message "open";
    `lines` are for people.
    """
    models = [export] if export.beside is None else [export, export.beside]
    return {
        "version": __version__,
        "use": INTENDED_USE,
        "resize": RESIZE_RULE,
        "wasm": _packed(WASM.read_bytes()),
        "worker": _packed("".join(map(_script, WORKER)).encode()),
        "models": [_model(each) for each in models],
    }


def _model(export: Export) -> dict:
    facts = export.facts
    weights = engine_weights(export, significant_bits=_HALF_BITS if export.half else 24)
    return {
        "name": facts.lines()["weights"],
        "sha256": facts.sha256,
        "size": list(facts.size),
        "classes": facts.num_classes,
        "threshold": facts.threshold,
        "normalization": facts.normalization,
        "license": facts.license,
        "lines": {**facts.lines(), "precision": f"{_HALF_BITS} significant bits" if export.half else "32 bits"},
        "network": engine_arguments(export),
        "half": export.half,
        "weights": _packed(_by_place(weights.astype("<f4")), memory=5, strategy=zlib.Z_RLE),
    }


def _by_place(weights: np.ndarray) -> bytes:
    """The first bytes of all weights, then the second ones, …"""
    return weights.view(np.uint8).reshape(-1, weights.itemsize).T.tobytes()


def _packed(content: bytes, *, memory: int = 8, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> str:
    # numbers have no repetitions, and their statistics change from place to place: little memory makes small blocks
    stream = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, memory, strategy)
    return base64.b64encode(stream.compress(content) + stream.flush()).decode("ascii")


def _embeddable(data: dict) -> str:
    """JSON in which no text can end the script element that holds it."""
    text = json.dumps(data, default=np.ndarray.tolist)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _script(name: str) -> str:
    """A script without its comments and indentation, which are a fifth of it."""
    text = re.sub(
        r"^[ \t]*(//.*|/\*\*[^*]*(\*(?!/)[^*]*)*\*/)?\s*$\n?|^[ \t]+", "", read_text(FOLDER / name), flags=re.M
    )
    assert not re.search(r"</script|<!--", text, re.I), f"{name} would end the element that holds it"
    return text


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def write_html(export: Export, path: Path) -> tuple[Path, ...]:
    """Write the page.

    Raises:
        ValueError: The name has another ending, which browsers would not open as a page.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"browsers open a page by its ending, so it is .html; received {path.name!r}")
    write_text(path, page_html(export))
    return (path,)


FORMATS.add(
    "html",
    Format(
        "one page for any browser, without a server",
        write_html,
        unsupported_reason,
        open_page,
        resizes=True,
        takes_beside=True,
    ),
)
