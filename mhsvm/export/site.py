"""The page of `html_page` as a site that can be installed, and that works offline after the first visit."""

import hashlib
import io
import json
import re
from pathlib import Path

from mhsvm.export.engine import unsupported_reason
from mhsvm.export.formats import FORMATS, Export, Format
from mhsvm.export.html_page import FOLDER, page_html
from mhsvm.export.icon import draw_icon
from mhsvm.export.node import open_page
from mhsvm.result_folder import ResultFolder
from mhsvm.text_file import encode, read_text

_MARK = '<meta name="generator" content="a site of mhsvm">'
# The sizes that browsers require of a site that can be installed.
_ICON_SIZES = (192, 512)
_ICONS = tuple(f"icon-{size}.png" for size in _ICON_SIZES)
_MANIFEST, _SERVICE_WORKER = "manifest.webmanifest", "service_worker.js"
# URLs are relative, so that the site works below any path of a server.
_LINKS = {"manifest": _MANIFEST, "icon": _ICONS[0], "apple-touch-icon": _ICONS[0]}
_HEAD = "".join(f"{line}\n" for line in (_MARK, *(f'<link rel="{rel}" href="{to}">' for rel, to in _LINKS.items())))
_POLICY = {"worker-src": "'self'", "manifest-src": "'self'", "img-src": "'self'"}

SITE = ResultFolder(
    kind="a site of mhsvm",
    main="index.html",
    mark=_MARK.encode(),
    others=(_SERVICE_WORKER, _MANIFEST, "icon-*.png"),
)


def site_files(export: Export) -> dict[str, bytes]:
    """The content of all files by name, the page first."""
    script = read_text(FOLDER / "site.js")
    files = {SITE.main: encode(page_html(export, head=_HEAD, script=script, policy=_POLICY))}
    files[_MANIFEST] = encode(json.dumps(_manifest(export), ensure_ascii=False, indent=2))
    files |= {name: _png(size) for name, size in zip(_ICONS, _ICON_SIZES, strict=True)}
    digest = hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in files.values())).hexdigest()
    # the page by its folder: servers may redirect index.html to it, and no redirect can be kept
    parts = {"files": json.dumps(["./", *list(files)[1:]]), "version": digest[:16]}
    worker = read_text(FOLDER / _SERVICE_WORKER)
    files[_SERVICE_WORKER] = encode(re.sub(r"@@(\w+)@@", lambda mark: parts[mark[1]], worker))
    return files


def _manifest(export: Export) -> dict:
    facts = export.facts.lines()
    return {
        "name": "Skin-lesion segmentation",
        "short_name": "Lesions",
        "description": f"{facts['network']}, weights {facts['weights']}. {facts['use']}",
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "background_color": "#ffffff",
        "theme_color": "#ffffff",
        "icons": [
            {"src": name, "sizes": f"{size}x{size}", "type": "image/png", "purpose": "any maskable"}
            for name, size in zip(_ICONS, _ICON_SIZES, strict=True)
        ],
    }


def _png(size: int) -> bytes:
    content = io.BytesIO()
    draw_icon(size).save(content, "PNG", optimize=True)
    return content.getvalue()


def write_site(export: Export, path: Path) -> tuple[Path, ...]:
    """Write the files to a folder."""
    path.mkdir(exist_ok=True)
    for name, content in site_files(export).items():
        (path / name).write_bytes(content)
    return tuple(path / name for name in (SITE.main, *sorted({each.name for each in path.iterdir()} - {SITE.main})))


FORMATS.add(
    "site",
    Format(
        "the page as a folder for a web server, installable, works offline after the first visit",
        write_site,
        unsupported_reason,
        open_page,
        folder=SITE,
        resizes=True,
        takes_beside=True,
    ),
)
