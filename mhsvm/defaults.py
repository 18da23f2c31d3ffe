"""The defaults of all settings, which also give their types. A default of None takes a float or none.

A node that is named after a class or function holds the arguments of that class or function. Nodes of entries that
plugins register come from the caller of `mhsvm.config`.
"""

from yacs.config import CfgNode

DEFAULTS = CfgNode(
    {
        "run": {
            # Subfolder of the run in `folder`; empty takes the name of the config file.
            "name": "",
            "folder": "results",
            "seed": 42,
            # "auto" is the GPU if there is one, else the CPU.
            "device": "auto",
            # Modules that register networks, mixers, losses, … of your own; imported before the rest is read.
            "plugins": (),
        },
        "data": {
            # Name of a set in data/ (isic2017 is data/isic2017.h5 or data/isic2017/), or a path.
            "set": "isic2017",
            "split": "wu-sorted",
            # Side length in pixels. 0 is that of a prepared set, and 256 for folders that are used directly.
            "size": 0,
            "normalization": "minmax",
            "augmentation": "ultralight",
            # Train on the fractional coverage that resizing leaves at a mask's boundary, instead of 0 and 1.
            "soft_targets": False,
            # Mask that trains and validates, of a set with several raters: primary, first, majority, staple, random (a
            # mask for each epoch; validation on the majority), or the name of a rater.
            "mask": "primary",
            # Memory for the images: device, stream, or auto (the device if they fit in a quarter of its free memory).
            "placement": "auto",
        },
        "model": {
            "name": "ultralight_vm_unet",
            "num_classes": 1,
            "in_channels": 3,
            # Backend of the operations; the environment variable MHSVM_BACKEND takes precedence.
            "backend": "auto",
            # Initial checkpoint: one of mhsvm, a published one, or VMamba-S's encoder for vm_unet.
            "weights": "",
            "ultralight_vm_unet": {
                "channels": (8, 16, 24, 32, 48, 64),
                "branches": 4,
                "split_att": "fc",
                "bridge": True,
                "d_state": 16,
                "d_conv": 4,
                "expand": 2,
                "init": "paper",
                # Mixer of the PVM layers; d_state, d_conv and expand go to it if it takes them.
                "mixer": "mamba",
            },
            "mhs_vm": {
                "patterns": ("C", "X", "S", "Z"),
                "gate": "relu",
                # None takes the gate's default: 0.5 for relu, 0 for the others.
                "gate_threshold": None,
                "gate_learnable": False,
                "gate_power": 2.0,
                "project": True,
                # Channels of a head are those of a block divided by it; 0 is the number of heads.
                "head_divisor": 0,
                "fusion": "sum",
                "silu_branch": True,
                "dims": (96, 192, 384, 768),
                "depths": (2, 2, 2, 2),
                "decoder_depths": (2, 2, 2, 1),
                "d_state": 16,
                "drop_path_rate": 0.2,
                "branches": 1,
                "share_branches": True,
            },
            "vm_unet": {
                "dims": (96, 192, 384, 768),
                "depths": (2, 2, 2, 2),
                "decoder_depths": (2, 2, 2, 1),
                "d_state": 16,
                "drop_path_rate": 0.2,
                # Slices of the channels that each block takes apart, all with the same weights or each with its own.
                "branches": 1,
                "share_branches": True,
            },
            "malunet": {
                "channels": (8, 16, 24, 32, 48, 64),
                "split_att": "fc",
                "bridge": True,
            },
            "smp": {
                "architecture": "unet",
                # An encoder of segmentation_models.pytorch, or of timm after "tu-".
                "encoder": "resnet34",
                # Such as imagenet; empty for random ones.
                "encoder_weights": "",
            },
        },
        # A node for each mixer with arguments of its own.
        "mixer": {
            "mhs": {
                "patterns": ("C", "X", "S", "Z"),
                "gate": "relu",
                # The published 0.5 closes all gates at the small initial weights of init "paper".
                "gate_threshold": 0.0,
                "gate_learnable": False,
                "gate_power": 2.0,
                "project": True,
            },
            "mamba2": {"head_width": 4},
            "conv": {"kernel_size": 3},
        },
        "loss": {
            # bce_dice for one class, ce_dice for several.
            "name": "bce_dice",
            "bce_dice": {"bce_weight": 1.0, "dice_weight": 1.0, "smooth": 1.0},
            "ce_dice": {"ce_weight": 1.0, "dice_weight": 1.0, "smooth": 1.0},
        },
        "optimizer": {
            "name": "AdamW",
            # False excludes A_log and D of the scans from weight decay.
            "decay_all": True,
            "Adadelta": {"lr": 0.01, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.05},
            "Adagrad": {"lr": 0.01, "lr_decay": 0.0, "eps": 1e-10, "weight_decay": 0.05},
            "Adam": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-4, "amsgrad": False},
            "AdamW": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2, "amsgrad": False},
            "Adamax": {"lr": 2e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
            "ASGD": {"lr": 0.01, "lambd": 1e-4, "alpha": 0.75, "t0": 1e6, "weight_decay": 0.0},
            "RMSprop": {
                "lr": 0.01,
                "momentum": 0.0,
                "alpha": 0.99,
                "eps": 1e-8,
                "centered": False,
                "weight_decay": 0.0,
            },
            "Rprop": {"lr": 0.01, "etas": (0.5, 1.2), "step_sizes": (1e-6, 50.0)},
            "SGD": {"lr": 0.01, "momentum": 0.9, "dampening": 0.0, "nesterov": False, "weight_decay": 0.05},
        },
        # Stepped once per epoch.
        "schedule": {
            "name": "CosineAnnealingLR",
            "StepLR": {"step_size": 50, "gamma": 0.5},
            "MultiStepLR": {"milestones": (60, 120, 150), "gamma": 0.1},
            "ExponentialLR": {"gamma": 0.99},
            "CosineAnnealingLR": {"T_max": 50, "eta_min": 1e-5},
            "ReduceLROnPlateau": {
                "mode": "min",
                "factor": 0.1,
                "patience": 10,
                "threshold": 1e-4,
                "threshold_mode": "rel",
                "cooldown": 0,
                "min_lr": 0.0,
                "eps": 1e-8,
            },
            "CosineAnnealingWarmRestarts": {"T_0": 50, "T_mult": 2, "eta_min": 1e-6},
            "WarmupMultiStepLR": {"warmup_epochs": 10, "milestones": (125, 225), "gamma": 0.1},
            "WarmupCosineLR": {"warmup_epochs": 20, "T_max": 250, "eta_min": 0.0},
        },
        "train": {
            "epochs": 250,
            "batch_size": 8,
            # Batches whose gradients are accumulated before each optimizer step.
            "accumulation": 1,
            # Largest allowed norm of all gradients together; 0 turns clipping off.
            "clip_norm": 0.0,
            # eager, graph (CUDA graphs), compile (torch.compile, with CUDA graphs on a GPU) or auto: graph on a GPU.
            "step": "auto",
            # bfloat16 runs the network's forward and backward pass under autocast. Weights, scan states, gate
            # statistics, loss and validation stay in float32.
            "precision": "float32",
            # Allow TF32: a GPU rounds the factors of float32 products to 10 mantissa bits.
            "tf32": False,
            # Bitwise equal runs on the same device, at some cost in speed.
            "deterministic": False,
            # Decay of an exponential moving average of the weights, such as 0.999. The average is validated and saved
            # as the best checkpoint. 0 turns it off.
            "ema_decay": 0.0,
        },
        "evaluation": {
            "batch_size": 8,
            # A pixel is lesion if its probability is at least this.
            "threshold": 0.5,
        },
    }
)
