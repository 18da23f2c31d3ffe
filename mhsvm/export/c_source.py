"""A trained UltraLight VM-UNet as one C header and one C source, with the weights inside."""

import ctypes
import re
import tempfile
from pathlib import Path

import numpy as np

from mhsvm.export.comparison import Exported
from mhsvm.export.engine import check_range, engine_arguments, engine_weights, unsupported_reason
from mhsvm.export.facts import Facts
from mhsvm.export.formats import FORMATS, Export, Format
from mhsvm.models import UltraLightVMUNet
from mhsvm.models.ultralight_weights import vector_places
from mhsvm.native.binary import SOURCE
from mhsvm.native.library import compile_library, find_compiler, missing_compiler
from mhsvm.text_file import read_text, write_text

_WEIGHTS_A_LINE = 8


def c_header(facts: Facts, *, prefix: str) -> str:
    """The header: the facts, the size of an image, and the function that segments it."""
    h, w = facts.size
    guard = f"{prefix.upper()}_H"
    about = "\n".join(f"   {name}: {text}" for name, text in facts.lines().items()).replace("*/", "* /")
    return f"""/* A trained network for skin-lesion segmentation, without a library.

{about} */
#ifndef {guard}
#define {guard}

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

enum {{ {prefix.upper()}_HEIGHT = {h}, {prefix.upper()}_WIDTH = {w}, {prefix.upper()}_CLASSES = {facts.num_classes} }};
#define {prefix.upper()}_THRESHOLD {facts.threshold!r}f

/* Bytes of memory that one call needs beside its arguments. */
size_t {prefix}_scratch_bytes(void);

/* Segment one image. There is no global state: several threads can call it, each with its own memory.
   rgb: (HEIGHT, WIDTH, 3), the resized image; probability: (CLASSES, HEIGHT, WIDTH); scratch: aligned to 4 bytes. */
void {prefix}_segment(const uint8_t *rgb, float *probability, void *scratch);

/* The facts above, for an "about" page. */
extern const char {prefix}_facts[];

#ifdef __cplusplus
}}
#endif
#endif
"""


def c_source(
    facts: Facts, arguments: dict, weights: np.ndarray, *, prefix: str, vectors: np.ndarray | None = None
) -> str:
    """The source: the engine, the weights, and the function of the header.

    Args:
        facts: The facts.
        arguments: The fields of `ultralight_network`.
        weights: float32 (n,).
        prefix: Start of all names.
        vectors: bool (n,), the weights that stay in float32 where the others are in 16 bits; None keeps all.
    """
    half = vectors is not None
    h, w = facts.size
    about = "\n".join(f"{name}: {text}" for name, text in facts.lines().items())
    # the last one against trigraphs
    literal = about.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("?", "\\?")
    widths = ", ".join(map(str, arguments["channels"]))
    others = ", ".join(str(int(arguments[name])) for name in ("branches", "d_state", "d_conv", "expand", "bridge"))
    stored = weights.astype(np.float16).view(np.uint16) if half else weights
    engine = _engine_prefix(prefix)
    return f"""#include "{prefix}.h"

{_engine(prefix)}
const char {prefix}_facts[] = "{literal}";

static const ultralight_network network = {{
    {arguments["in_channels"]}, {arguments["num_classes"]}, {{{widths}}}, {others}}};

static const {"uint16_t" if half else "float"} stored_weights[] = {{
  {_table(stored)}}};
enum {{ NUM_WEIGHTS = sizeof stored_weights / sizeof *stored_weights, NUM_PIXELS = {h} * {w} }};

{"" if vectors is None else _vectors(weights, vectors) + _HALF}
size_t {prefix}_scratch_bytes(void) {{
  return sizeof(float) * ({engine}num_scratch(&network, {h}, {w}) + 3 * NUM_PIXELS + {"NUM_WEIGHTS" if half else 0});
}}

void {prefix}_segment(const uint8_t *rgb, float *probability, void *scratch) {{
  float *image = (float *)scratch, *memory = image + 3 * NUM_PIXELS;
{_USE_HALF if half else "  const float *weights = stored_weights;"}
  {engine}minmax(rgb, image, 3 * NUM_PIXELS);
  {engine}run(&network, weights, image, {h}, {w}, memory, probability);
  {engine}probability(probability, {facts.num_classes}, NUM_PIXELS);
}}
"""


_HALF = """/* A 16-bit float of the weights; they have no infinities. */
static float from_half(uint16_t half) {
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  float value = exponent ? 1.f + fraction / 1024.f : fraction / 512.f;
  for (int i = 15; i < exponent; i++) value *= 2.f;
  for (int i = exponent; i < 15; i++) value *= .5f;
  return half >> 15 ? -value : value;
}

"""
_USE_HALF = """  float *weights = memory;
  memory += NUM_WEIGHTS;
  for (int i = 0; i < NUM_WEIGHTS; i++) weights[i] = from_half(stored_weights[i]);
  const float *exact = vectors;
  for (size_t k = 0; k < sizeof places / sizeof *places; k++)
    for (int i = places[k][0]; i < places[k][1]; i++) weights[i] = *exact++;"""


def write_c(export: Export, path: Path) -> tuple[Path, ...]:
    """Write NAME.c and NAME.h; `path` is the source, with or without its ending."""
    prefix = check_prefix(path)
    source, header = path.with_name(f"{prefix}.c"), path.with_name(f"{prefix}.h")
    arguments, weights = engine_arguments(export), engine_weights(export)
    vectors = None
    if export.half:
        assert isinstance(export.model, UltraLightVMUNet)
        check_range(np.abs(weights).max(), half=True)
        # few, and rounding them would change the output more than that of all matrices
        vectors = vector_places(export.model)
    write_text(header, c_header(export.facts, prefix=prefix))
    write_text(source, c_source(export.facts, arguments, weights, prefix=prefix, vectors=vectors))
    return source, header


def open_c(files: tuple[Path, ...], facts: Facts) -> Exported | str:
    """Compile the source with this machine's compiler and load it."""
    source, _ = files
    prefix = source.stem
    compiler = find_compiler()
    if compiler is None:
        return missing_compiler()
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, "library.so")
        compile_library(compiler, source, built)
        engine = ctypes.CDLL(str(built))
    segment, scratch_bytes = engine[f"{prefix}_segment"], engine[f"{prefix}_scratch_bytes"]
    scratch_bytes.restype = ctypes.c_size_t
    segment.argtypes, segment.restype = (ctypes.c_void_p,) * 3, None
    h, w = facts.size
    scratch = np.empty(scratch_bytes(), np.uint8)

    def run(image: np.ndarray) -> np.ndarray:
        rgb, probability = np.ascontiguousarray(image), np.empty((facts.num_classes, h, w), np.float32)
        segment(rgb.ctypes.data, probability.ctypes.data, scratch.ctypes.data)
        return probability

    return run


FORMATS.add(
    "c", Format("one C header and one source, for phones and microcontrollers", write_c, unsupported_reason, open_c)
)


def _table(numbers: np.ndarray) -> str:
    texts = [str(each) if numbers.dtype == np.uint16 else _literal(each) for each in numbers.tolist()]
    rows = (texts[at : at + _WEIGHTS_A_LINE] for at in range(0, len(texts), _WEIGHTS_A_LINE))
    return ",\n  ".join(", ".join(row) for row in rows)


def _vectors(weights: np.ndarray, is_vector: np.ndarray) -> str:
    """Tables of the weights that stay in float32, and of the first and the end of each of their places."""
    ends = np.flatnonzero(np.diff(is_vector, prepend=False, append=False)).reshape(-1, 2)
    places = ", ".join(f"{{{first}, {end}}}" for first, end in ends.tolist())
    return f"""static const float vectors[] = {{
  {_table(weights[is_vector])}}};
static const int places[][2] = {{{places}}};

"""


def _literal(number: float) -> str:
    """A float of C with as many digits as float32 has."""
    text = f"{number:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.f"


def check_prefix(path: Path) -> str:
    """The name of the files and of their functions.

    Raises:
        ValueError: It is no name in C.
    """
    if path.suffix not in (".c", "") or not re.fullmatch(r"[A-Za-z_]\w*", path.stem, re.ASCII):
        raise ValueError(
            f"functions and files have the name of the output, so it is letters, digits and _, such as segment.c; "
            f"received {path.name!r}"
        )
    return path.stem


def _engine(prefix: str) -> str:
    """Header and source of the engine as one text."""
    header, source = read_text(SOURCE.with_suffix(".h")), read_text(SOURCE)
    body = source.replace('#include "ultralight.h"\n', "")
    text = (header + body).replace("MHSVM_ULTRALIGHT_H", f"{prefix.upper()}_ENGINE_H")
    return re.sub(r"\bultralight_(?=check|rule|num_|run|minmax|probability)", _engine_prefix(prefix), text)


def _engine_prefix(prefix: str) -> str:
    """Start of the names of the engine's functions: two networks can be linked into one program."""
    return f"{prefix}_engine_"
