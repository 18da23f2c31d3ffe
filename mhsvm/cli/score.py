"""`mhsvm score --pred MASKS --truth MASKS`: score the masks of any tool."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mhsvm.cli.options import add_metric_options, add_plugins_option, size
from mhsvm.cli.parser import CommandParser, program

if TYPE_CHECKING:
    from mhsvm.evaluation.scorer import FolderScore

# pixels with this value are not counted: class indices are below it
_IGNORE = 255


def main(argv: Sequence[str] | None = None) -> int:
    """Score masks of any tool against their ground truth; files are matched by name."""
    arguments = parser().parse_args(argv)
    from mhsvm.evaluation import rater_summary
    from mhsvm.evaluation.ranking import describe_ranking, ranking_line
    from mhsvm.evaluation.rater_summary import describe_raters, rater_lines, write_raters
    from mhsvm.evaluation.scorer import score_files
    from mhsvm.evaluation.scores import absence_lines, describe_scores, metrics_lines, write_cases
    from mhsvm.evaluation.summary import write_summary
    from mhsvm.metrics import metric_arguments
    from mhsvm.plugins import import_plugins
    from mhsvm.result_folder import ResultFolder
    from mhsvm.system import code_version

    import_plugins(arguments.plugins)
    metrics = metric_arguments(arguments.metric_settings)
    folder = arguments.folder or _default_folder(arguments.pred[0])
    results = ResultFolder(
        kind="a score", main="summary.json", mark=b'"schema"', others=("cases.csv", "raters.csv", "report.html")
    )
    results.check(folder)
    score = score_files(
        arguments.pred,
        arguments.truth,
        num_classes=arguments.num_classes,
        threshold=arguments.threshold,
        size=arguments.size,
        common=arguments.common,
        mask_suffix=arguments.mask_suffix,
        boundary=arguments.boundary,
        arguments=metrics,
        raters=arguments.raters,
    )
    described = describe_scores(score.measured.scores, metrics)
    raters = {} if score.raters is None else {"raters": describe_raters(score.raters)}
    levels = score.measured.levels
    ranking = {} if levels is None else {"ranking": describe_ranking(levels, score.measured.scores.occurring)}
    with results.replace(folder) as partial:
        write_cases(
            partial / "cases.csv",
            score.measured.scores,
            num_classes=arguments.num_classes,
            sizes=score.measured.sizes,
        )
        if score.raters is not None:
            write_raters(partial / rater_summary.FILE, score.raters)
        content = described | {
            "confusion_matrix": score.measured.confusion.tolist(),
            **ranking,
            **raters,
            "protocol": _describe_protocol(arguments, score),
            "version": code_version(),
        }
        write_summary(partial / "summary.json", content)
    warnings = [f"warning: {line}" for line in absence_lines(score.measured.scores)]
    measured = [*metrics_lines(described), *(line for each in raters.values() for line in rater_lines(each))]
    measured += map(ranking_line, ranking.values())
    for line in (_first_line(arguments, score), *_notes(score), *warnings, *measured):
        print(line)
    print(f"cases and summary: {folder}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = CommandParser(
        prog=program("score"),
        description=main.__doc__,
        examples=("--pred their-masks --truth ISIC-2017_Test_v2_Part1_GroundTruth.zip",),
    )
    for name, masks in (("--pred", "predicted masks"), ("--truth", "target masks")):
        kinds = "folders, zip files, files or lists of them"
        parser.add_argument(name, required=True, nargs="+", type=Path, metavar="PATH", help=f"{masks}: {kinds}")
    parser.add_argument(
        "--threshold", type=float, metavar="T", help="threshold grayscale at this fraction of full scale, such as 0.5"
    )
    parser.add_argument("--num-classes", type=_classes, default=1, metavar="K", help="2 or more for class-index masks")
    parser.add_argument("--size", type=size, metavar="S|HxW", help="measure at this size; default: each target's own")
    parser.add_argument("--common", action="store_true", help="score the ids that both have, and leave others out")
    parser.add_argument(
        "--mask-suffix",
        metavar="END",
        help="of names, such as _seg2: not part of ids, besides usual ones such as _mask",
    )
    add_metric_options(parser)
    parser.add_argument(
        "--raters",
        nargs="*",
        metavar="NAME",
        help="the targets are masks of several raters, by folder or end of name; without names they are found",
    )
    add_plugins_option(parser, "for metrics")
    parser.add_argument("--out", dest="folder", type=Path, metavar="FOLDER", help="default: PRED-scores, next to PRED")
    return parser


def _default_folder(pred: Path) -> Path:
    path = pred.resolve()
    return path.with_name(f"{path.stem if path.is_file() else path.name}-scores")


def _classes(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _IGNORE:
        raise argparse.ArgumentTypeError(f"takes a whole number from 1 to {_IGNORE}, not {text!r}")
    return int(text)


def _describe_protocol(arguments: argparse.Namespace, score: FolderScore) -> dict:
    return {
        "pred": [path.name for path in arguments.pred],
        "truth": [path.name for path in arguments.truth],
        "num_images": len(score.measured.scores),
        "size": "the truth's" if arguments.size is None else list(arguments.size),
        "resized": score.num_resized,
        "only_predicted": score.num_only_predicted,
        "only_true": score.num_only_target,
        "threshold": arguments.threshold,
        "greys": list(score.grayscale),
    }


def _first_line(arguments: argparse.Namespace, score: FolderScore) -> str:
    """The masks, their number and the size at which they were measured."""
    sizes = sorted({f"{h} x {w}": h * w for h, w in score.measured.sizes}.items(), key=lambda size: size[1])
    size = sizes[0][0] if len(sizes) == 1 else f"{len(sizes)} sizes from {sizes[0][0]} to {sizes[-1][0]}"
    classes = "lesion masks" if arguments.num_classes == 1 else f"{arguments.num_classes} classes"
    truth = ", ".join(map(str, arguments.truth))
    return f"{len(score.measured.scores)} masks against {truth}, measured at {size} (height x width), {classes}"


def _notes(score: FolderScore) -> list[str]:
    """Notes for a reader of the metrics."""
    notes = []
    if score.num_resized:
        notes.append(f"{score.num_resized} of the predictions had another size, and were resized")
    for side in score.grayscale:
        notes.append(f"the {side} held grayscale, and were thresholded")
    if score.num_zero_one:
        notes.append(f"{score.num_zero_one} of the predictions hold only 0 and 1, taken as fractions of full scale")
    if score.num_same_files:
        notes.append(
            f"warning: {score.num_same_files} of the predictions are the files of the ground truth themselves: name "
            "the folder that holds only predictions"
        )
    if score.num_only_predicted or score.num_only_target:
        notes.append(
            f"left out: {score.num_only_predicted} predictions without a target, {score.num_only_target} targets "
            "without a prediction"
        )
    notes += [f"left out: {line}" for line in score.skipped]
    return notes
