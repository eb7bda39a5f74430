"""Runs whose config.json was written by a former version open as what they are."""

import json
import shutil

import numpy as np
import pytest

from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.machine.errors import UserError
from lpcam_jax.machine.files import read_arrays
from lpcam_jax.systems.amn.config import AMNConfig, AMNModel
from lpcam_jax.systems.deeplab.config import DeepLabConfig, DeepLabModel
from lpcam_jax.systems.irn.config import IRNConfig
from lpcam_jax.systems.lpcam.config import LPCAMConfig
from lpcam_jax.systems.prototyping.stored_prototypes import has_prototypes
from lpcam_jax.training.run import Run

# As they were written: a model says no kind of backbone, and what was not there yet is missing.
RESNET = {
    "weights": "resnet50.npz",
    "blocks": [3, 4, 6, 3],
    "width": 64,
    "stem_width": 64,
    "layout": "torchvision",
    "stem_pool": "symmetric",
    "output_stride": 16,
    "channel_order": "rgb",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "precision": "float32",
}
DATA = {"source": "voc12", "root": "VOC", "classes": ["cat", "dog"], "train": "train_aug", "seeds": "train"}
LABELS = {"method": "lpcam", "foreground": 0.45, "background": 0.25}
CLASSIFIER = {
    "data": DATA,
    "model": RESNET,
    "training": {"epochs": 5, "batch_size": 16, "crop": 512, "long_side": [320, 640], "frozen": ["conv1", "bn1"]},
    "prototypes": {"cam_scales": [1.0, 0.5, 1.5, 2.0], "clusters": 12, "mu_f": 0.9, "context": [0.05, 0.9]},
    "inference": {"scales": [1.0, 0.5], "background": 0.3, "batch_pixels": 1000},
    "seed": 4,
    "limit": None,
}
IRN = {
    "data": DATA | {"maps": "heatmaps"},
    "model": RESNET,
    "labels": LABELS,
    "training": {"epochs": 3, "scale_range": [0.5, 1.5], "radius": 10, "displacement": True},
    "inference": {"method": "", "background": None, "radius": 5, "power": 1.0, "beta": 10.0, "steps": 256},
    "seed": 4,
    "limit": None,
}
AMN = {
    "data": DATA | {"maps": "heatmaps"},
    "model": RESNET | {"rates": [6, 12]},
    "labels": LABELS,
    "training": {"epochs": 5, "smoothing": 0.4},
    "inference": {"method": "", "scales": [1.0], "background": 0.25},
    "seed": 4,
    "limit": None,
}
SEGMENTATION = {
    "data": DATA | {"masks": "pseudo_masks/masks"},
    "model": RESNET | {"head": "deeplabv3plus", "rates": [], "head_width": 256, "layout": "caffe"},
    "training": {"steps": 100, "scales": [0.5, 1.0], "frozen": [], "average": 0.999},
    "inference": {"scales": [1.0], "mirror": True},
    "seed": 4,
    "limit": None,
}
KINDS = {
    "classifier": (CLASSIFIER, LPCAMConfig, ResNetConfig),
    "irn": (IRN, IRNConfig, ResNetConfig),
    "amn": (AMN, AMNConfig, AMNModel),
    "segmentation": (SEGMENTATION, DeepLabConfig, DeepLabModel),
}


@pytest.fixture
def opened(tmp_path):
    """`opened(values, **more)`: the run whose config.json holds this config."""

    def open_run(values, **more) -> Run:
        file = {"class_names": ["cat", "dog"], "config": values, "version": "0.1.0", **more}
        (tmp_path / "config.json").write_text(json.dumps(file))
        return Run.open(tmp_path)

    return open_run


def test_a_run_that_does_not_say_so_has_shrunk_no_picture(opened):
    assert opened(CLASSIFIER).config.data.longest is None
    assert opened(CLASSIFIER | {"data": DATA | {"longest": 640}}).config.data.longest == 640
    assert LPCAMConfig().data.longest == 640


def test_prototypes_of_a_run_that_knew_one_teacher_are_not_made_again(trained, tmp_path):
    directory = shutil.copytree(trained, tmp_path / "run")
    values, config = read_arrays(directory / "prototypes.npz"), json.loads((directory / "config.json").read_text())
    settings = json.loads(str(values["settings"]))
    for former in (settings, config["config"]["prototypes"]):
        former.pop("teachers", None)
    np.savez(directory / "prototypes.npz", **values | {"settings": json.dumps(settings)})
    (directory / "config.json").write_text(json.dumps(config))
    run = Run.open(directory)
    assert run.config.prototypes.teachers == ("crf",)
    assert has_prototypes(run, str(values["pictures"]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_former_config_opens_as_its_kind(opened, kind):
    values, config, model = KINDS[kind]
    run = opened(values, kind=kind)
    assert (type(run.config), type(run.config.model), run.kind) == (config, model, kind)
    assert (run.class_names, run.config.seed, run.config.limit) == (("cat", "dog"), 4, None)
    assert (run.config.model.backbone, run.config.model.blocks) == ("resnet", (3, 4, 6, 3))
    assert run.config.data.classes == ("cat", "dog")
    for part in ("model", "data", "training", "inference"):
        for name, value in values[part].items():
            found = getattr(getattr(run.config, part), name)
            assert found == (tuple(value) if isinstance(value, list) else value), name
    assert hash(run.config)  # tuples, down to the last


def test_one_that_names_no_kind_is_a_classifier_s(opened):
    run = opened(CLASSIFIER)
    assert (type(run.config), run.kind) == (LPCAMConfig, "classifier")


def test_a_run_of_irn_has_no_threshold_of_its_own(opened):
    assert opened(IRN, kind="irn").config.inference.background is None


def test_a_config_of_another_kind_is_one_line(opened):
    with pytest.raises(UserError, match=r"config.json cannot be read .*; train again"):
        opened(CLASSIFIER, kind="segmentation")


def test_a_kind_and_a_backbone_that_there_are_not_are_named_with_their_file(opened):
    with pytest.raises(UserError, match=r"config.json: there is no 'detector' among the systems; there are classifier"):
        opened(CLASSIFIER, kind="detector")
    with pytest.raises(UserError, match=r"config.json: there is no 'vgg' among the backbones; there are resnet"):
        opened(CLASSIFIER | {"model": RESNET | {"backbone": "vgg"}})


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_continued_by_the_same_config(opened, tmp_path, kind):
    run = opened(KINDS[kind][0], kind=kind)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    again = Run.create(tmp_path, run.config, run.class_names)
    assert again.config == run.config == Run.open(tmp_path).config
