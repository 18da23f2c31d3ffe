"""Assembles objects from a config; the only room that reads one."""

from mhsvm.assemble.data import build_augment, build_set, build_split, describe_data
from mhsvm.assemble.devices import build_device, build_own_device
from mhsvm.assemble.evaluation import build_evaluator, build_test, build_test_set, check_test, open_native
from mhsvm.assemble.networks import build_inference, build_model, describe_model
from mhsvm.assemble.prediction import TrainedPredictor, load_predictor, open_predictor
from mhsvm.assemble.runs import Plan, open_plan, plan_resumed, plan_run, run_folder
from mhsvm.assemble.settings import read_config, recorded_config
from mhsvm.assemble.trained import Trained, load_trained
from mhsvm.assemble.training import build_job, build_loss, build_optimizer, build_schedule, build_step
from mhsvm.models.pretrained import find_checkpoint

__all__ = [
    "Plan",
    "Trained",
    "TrainedPredictor",
    "build_augment",
    "build_device",
    "build_evaluator",
    "build_inference",
    "build_job",
    "build_loss",
    "build_model",
    "build_optimizer",
    "build_own_device",
    "build_schedule",
    "build_set",
    "build_split",
    "build_step",
    "build_test",
    "build_test_set",
    "check_test",
    "describe_data",
    "describe_model",
    "find_checkpoint",
    "load_predictor",
    "load_trained",
    "open_native",
    "open_plan",
    "open_predictor",
    "plan_resumed",
    "plan_run",
    "read_config",
    "recorded_config",
    "run_folder",
]
