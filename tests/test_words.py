"""The prose keeps to one set of words: short, plain American English, and the field's terms (docs/glossary.md)."""

import re
from pathlib import Path

import pytest

from tests.fixtures.prose import read_passages

ROOT = Path(__file__).parents[1]
FOLDERS = ("mhsvm", "benchmarks", "scripts", "examples", "docs", "data")
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")

_BRITISH_IZE = (
    "binar|capital|character|discret|general|initial|local|maxim|minim|normal|optim|organ|parallel|penal|quant|"
    "recogn|regular|serial|special|standard|summar|synthes|util|vector|visual"
)

# (name, regular expression, the word to use); a lone backtick in the text is code that was taken out
RULES = (
    ("what …", r"\bwhat(?:ever)?\b(?! (?:to|if)\b)(?![^.!?]*\?)", "a noun phrase: 'the value that …', not 'what …'"),
    ("Of … at the start of a sentence", r"(?-i:(?:\A|[.:;!?]\s+|^\s*[-*|]\s*|\|\s*)Of\s)", "a sentence with a subject"),
    ("behind, in front of", r"\bbehind\b|\bin front of\b", "after, before"),
    ("things that lie", r"\b(?:lies?|lying|lay)\b", "is, are, is stored"),
    ("things that stand", r"\bst(?:ands?|ood|anding)\b(?! for\b)", "is, are, belong to"),
    ("figure", r"(?<!matplotlib )\bfigures?\b(?!/| \d)", "metric, number; target for a goal"),
    ("motion", r"\bmotions?\b", "affine transform, augmentation parameters"),
    (
        "share, as a noun",
        r"\bshares? of\b|\b(?:the|a|its|their|each|every|equal|as)\s+shares?\b",
        "weight, fraction, shard",
    ),
    ("truth", r"(?<!ground )(?<!ground-)(?<!--)(?<!-)\btruths?\b", "ground truth, target"),
    (
        "draw",
        r"\b(?:re)?draw[ns]?\s+(?:anew|(?:(?:the|a|an|its|new|fresh|other|random|another)\s+)*"
        r"(?:weights?|samples?|numbers?|parameters?|angles?|orders?|data sets?|set|images?)\b)|"
        r"\bdrawn\s+(?:images?|small|data|set)\b|\bthe draws\b",
        "sample, initialize, generate",
    ),
    ("slope", r"\bslopes?\b", "derivative"),
    ("composed_x", r"\bcomposed_\w+", "x_reference"),
    ("halted", r"\bhalted\b", "skipped, found_inf"),
    ("decided", r"\b(?:only|and) then decided\b|\bdecided at\b", "threshold, binarize"),
    ("likeliest", r"\blikeliest\b", "argmax, predicted class"),
    ("views, turns", r"\bquarter[- ]turns?\b|\bmirrored views?\b|\bviews at test time\b", "TTA transforms (d4)"),
    ("narrow", r"\bnarrow(?:ed|er|s)?\b", "out_dtype"),
    ("epsilon", r"\bepsilon\b", "eps"),
    (
        "cut, span",
        r"\b(?:is|are|was|be|then) cut\b|\bcuts\b|\bcut (?:into|at|open)\b|\bspans?\b",
        "chunk, tile, split, threshold",
    ),
    ("picture, photograph", r"\b(?:pictures?|photographs?)\b", "image"),
    ("outline, rim", r"\b(?:outlines?|rims?)\b", "boundary, contour"),
    ("step size", r"\bstep[- ]sizes?\b", "delta"),
    ("wants, meets, tells, sees", r"\b(?:wants?|meets|tells?|told|sees)\b", "requires, expects; reports"),
    ("anew, likewise, shall, in earnest", r"\b(?:anew|likewise|shall|in earnest)\b", "again, also, will; or nothing"),
    ("nobody waits", r"\bnobody\b", "non-blocking, without synchronization"),
    ("shipping", r"\bshipp(?:ing|ed)\b", "released weights"),
    (
        "British spelling",
        rf"\b(?:un|re|de)?(?:{_BRITISH_IZE})is(?:e[drs]?|ers|ing|ations?)\b|\banalys(?:e[ds]?|ing)\b|"
        r"\b\w*(?:colour|neighbour|behaviour|favour|honour)\w*\b|\bgrey(?:s|scale)?\b|\bcentre[ds]?\b|"
        r"(?<!--)\blicen[c]es?\b|\bartefacts?\b|\bcancell(?:ed|ing)\b|\blabell(?:ed|ing)\b|\bmodell(?:ed|ing)\b|\blearnt\b",
        "American spelling",
    ),
)
_COMPILED = [(name, re.compile(pattern, re.I | re.M), use) for name, pattern, use in RULES]

# Values in files that users read by program: they keep their words, and only as a whole.
FILE_VALUES = ("same id, another picture", "the truth's")


def find_words(path: Path) -> list[str]:
    """Each use of a word to avoid, as "file:line: 'text' (rule): the word to use"."""
    found = []
    for passage in read_passages(path):
        if passage.kind == "message" and passage.text in FILE_VALUES:
            continue
        for name, pattern, use in _COMPILED:
            for match in pattern.finditer(passage.text):
                line = passage.line + passage.text[: match.start()].count("\n")
                text = " ".join(match[0].split())
                found.append(f"{path.relative_to(ROOT)}:{line}: {text!r} ({name}): use {use}")
    return found


def prose_files() -> list[Path]:
    files = [path for folder in FOLDERS for suffix in ("py", "md") for path in (ROOT / folder).rglob(f"*.{suffix}")]
    return sorted([*files, *(ROOT / page for page in PAGES if (ROOT / page).is_file())])


def test_prose_uses_the_words_of_the_glossary():
    found = [line for path in prose_files() for line in find_words(path)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("value", FILE_VALUES)
def test_values_of_files_are_written_by_one_module(value):
    paths = [path for path in prose_files() if path.suffix == ".py"]
    assert len([path for path in paths if any(passage.text == value for passage in read_passages(path))]) == 1
