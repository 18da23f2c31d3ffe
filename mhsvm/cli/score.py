"""`mhsvm score --pred MASKS --truth MASKS`: score anybody's masks."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mhsvm.cli.options import size
from mhsvm.evaluation.scorer import FolderScore, score_files
from mhsvm.evaluation.scores import describe_scores, metrics_lines, write_cases
from mhsvm.evaluation.tables import write_summary
from mhsvm.files import check_only_holds, replace_folder_when_complete
from mhsvm.plugins import import_plugins
from mhsvm.prepare.decode import IGNORE
from mhsvm.system import code_version


def main(argv: Sequence[str] | None = None) -> int:
    """Score masks in files, of any tool, against a truth; both are matched by the files' names."""
    arguments = _parse(argv)
    import_plugins(arguments.plugins)
    folder = arguments.out or _beside(arguments.pred[0])
    check_only_holds(folder, ("cases.csv", "summary.json"), "scores")
    score = score_files(
        arguments.pred,
        arguments.truth,
        num_classes=arguments.num_classes,
        threshold=arguments.threshold,
        size=arguments.size,
        common=arguments.common,
        boundary=arguments.boundary,
    )
    described = describe_scores(score.measured.scores)
    with replace_folder_when_complete(folder) as partial:
        write_cases(
            partial / "cases.csv",
            score.measured.scores,
            num_classes=arguments.num_classes,
            sizes=score.measured.sizes,
        )
        content = described | {
            "confusion_matrix": score.measured.confusion.tolist(),
            "protocol": _describe_protocol(arguments, score),
            "version": code_version(),
        }
        write_summary(partial / "summary.json", content)
    for line in (*_notes(score), *metrics_lines(described)):
        print(line)
    print(f"cases and summary: {folder}")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mhsvm score", description=main.__doc__, allow_abbrev=False)
    parser.add_argument(
        "--pred", required=True, nargs="+", type=Path, metavar="PATH", help="folders or zip files of predicted masks"
    )
    parser.add_argument(
        "--truth", required=True, nargs="+", type=Path, metavar="PATH", help="folders or zip files of true masks"
    )
    parser.add_argument(
        "--threshold", type=float, metavar="T", help="cut greys at this share of full scale, such as 0.5"
    )
    parser.add_argument("--num-classes", type=_classes, default=1, metavar="K", help="2 or more for class-index masks")
    parser.add_argument("--size", type=size, metavar="S|HxW", help="measure at this size; default: each truth's own")
    parser.add_argument("--common", action="store_true", help="score the ids that both have, and leave others out")
    parser.add_argument(
        "--no-boundary", dest="boundary", action="store_false", help="leave hd95 and assd out, which take longest"
    )
    parser.add_argument(
        "--plugins", nargs="+", default=[], metavar="MODULE", help="modules that register metrics of your own"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: PRED-scores, beside PRED")
    return parser.parse_args(argv)


def _beside(pred: Path) -> Path:
    path = pred.resolve()
    return path.with_name(f"{path.stem if path.is_file() else path.name}-scores")


def _classes(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= IGNORE:
        raise argparse.ArgumentTypeError(f"takes a whole number from 1 to {IGNORE}, not {text!r}")
    return int(text)


def _describe_protocol(arguments: argparse.Namespace, score: FolderScore) -> dict:
    return {
        "pred": [path.name for path in arguments.pred],
        "truth": [path.name for path in arguments.truth],
        "num_images": len(score.measured.scores),
        "size": "the truth's" if arguments.size is None else list(arguments.size),
        "resized": score.num_resized,
        "only_predicted": score.only_predicted,
        "only_true": score.only_true,
        "threshold": arguments.threshold,
        "greys": list(score.greys),
    }


def _notes(score: FolderScore) -> list[str]:
    """What a reader of the figures has to know."""
    notes = [f"{len(score.measured.scores)} masks"]
    if score.num_resized:
        notes.append(f"{score.num_resized} of the predictions had another size, and were resized")
    for side in score.greys:
        notes.append(f"the {side} held greys, and were cut")
    if score.only_predicted or score.only_true:
        notes.append(
            f"left out: {score.only_predicted} predictions without a truth, {score.only_true} truths without a "
            "prediction"
        )
    return notes
