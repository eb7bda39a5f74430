"""A tiny recipe of every kind of system: what tests of the programs train and use in seconds.

All take six training steps, with checkpoints at 2, 4 and 6, of which the last two stay. A new system needs an entry.
"""

from typing import NamedTuple


class Tiny(NamedTuple):
    """How a kind is tried.

    Attributes:
        recipe: text of the recipe file.
        result: file of a picture in the folder of infer.py, the last to be written.
        needs: words of train.py beside the recipe; {run} is the finished classifier, {maps} its heat maps.
        pictures: how many infer.py is about.
    """

    recipe: str
    result: str
    needs: tuple[str, ...] = ()
    pictures: int = 24


CLASSIFIER = """
from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.config import Data
from lpcam_jax.systems.lpcam.config import Clustering, LPCAMConfig, LPCAMInference, LPCAMTraining

def get_config():
    return LPCAMConfig(
        data=Data(source="shapes", scenes=24),
        model=ResNetConfig(blocks=(1, 1, 1, 1), width=4, stem_width=4, output_stride=16),
        training=LPCAMTraining(
            epochs=3, batch_size=8, crop=64, long_side=(64, 96), learning_rate=0.01, frozen=(), batch_norm="train",
            checkpoint_every=2,
        ),
        prototypes=Clustering(cam_scales=(1.0, 0.5), clusters=3, sample=256),
        inference=LPCAMInference(scales=(1.0, 0.5), max_shapes=2),
    )
"""

IRN = """
from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.config import Data
from lpcam_jax.systems.irn.config import IRNConfig, IRNInference, IRNTraining

def get_config():
    return IRNConfig(
        data=Data(source="shapes", scenes=24),
        model=ResNetConfig(blocks=(1, 1, 1, 1), width=4, stem_width=4),
        training=IRNTraining(
            epochs=2, batch_size=8, crop=64, scale_range=(1.0, 1.5), radius=2, learning_rate=0.01, checkpoint_every=2
        ),
        inference=IRNInference(max_shapes=1),
    )
"""

PSA = """
from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.config import Data
from lpcam_jax.systems.psa.config import PSAConfig, PSAInference, PSATraining

def get_config():
    return PSAConfig(
        data=Data(source="shapes", scenes=24),
        model=ResNetConfig(blocks=(1, 1, 1, 1), width=4, stem_width=4),
        training=PSATraining(epochs=2, batch_size=8, crop=64, radius=2, learning_rate=0.01, checkpoint_every=2),
        inference=PSAInference(max_shapes=1, radius=3, steps=8),
    )
"""

AMN = """
from lpcam_jax.config import Data
from lpcam_jax.systems.amn.config import AMNConfig, AMNInference, AMNModel, AMNTraining

def get_config():
    return AMNConfig(
        data=Data(source="shapes", scenes=24),
        model=AMNModel(blocks=(1, 1, 1, 1), width=4, stem_width=4, rates=(1, 2)),
        training=AMNTraining(
            epochs=2, batch_size=8, crop=64, scale_range=(1.0, 1.5), learning_rate=1e-3, head_multiplier=10.0,
            checkpoint_every=2,
        ),
        inference=AMNInference(scales=(1.0, 0.5), max_shapes=1),
    )
"""

# So low a rate that what one process and two differ in is not seen: of a bias whose gradient is rounding alone, Adam
# makes a whole step.
MCTFORMER = """
from lpcam_jax.config import Clustering, Data
from lpcam_jax.systems.mctformer.config import (
    MCTformerConfig, MCTformerInference, MCTformerModel, MCTformerTraining,
)

def get_config():
    return MCTformerConfig(
        data=Data(source="shapes", scenes=24),
        model=MCTformerModel(patch=8, dim=16, depth=4, head_dim=8, mlp_ratio=2, position_grid=4),
        training=MCTformerTraining(
            epochs=3, batch_size=8, crop=32, warm_up=1, learning_rate=1e-5, warm_up_rate=1e-7, least_rate=1e-7,
            checkpoint_every=2,
        ),
        prototypes=Clustering(clusters=3, sample=256),
        inference=MCTformerInference(scales=(1.0, 0.5), max_shapes=2),
    )
"""

EDAM = """
from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.config import Data
from lpcam_jax.systems.edam.config import EDAMConfig, EDAMHead, EDAMInference, EDAMTraining

def get_config():
    return EDAMConfig(
        data=Data(source="shapes", scenes=24),
        model=ResNetConfig(blocks=(1, 1, 1, 1), width=4, stem_width=4, output_stride=8),
        head=EDAMHead(width=8),
        training=EDAMTraining(
            epochs=3, batch_size=4, crop=48, long_side=(48, 72), learning_rate=1e-3, warm_up=2, batch_norm="train",
            checkpoint_every=2,
        ),
        inference=EDAMInference(scales=(1.0, 0.5), max_shapes=2),
    )
"""

# Validations at 3 and 6. A learning rate so low that the random network still sees several classes.
SEGMENTATION = """
from lpcam_jax.config import Data
from lpcam_jax.systems.deeplab.config import DeepLabConfig, DeepLabInference, DeepLabModel, DeepLabTraining

def get_config():
    return DeepLabConfig(
        data=Data(source="shapes", scenes=16, train="all[:12]", validation="all[12:]", seeds="all[10:]"),
        model=DeepLabModel(
            head="deeplabv3plus", head_width=8, blocks=(1, 1, 1, 1), width=4, stem_width=4, layout="torchvision",
            stem_pool="symmetric", output_stride=16,
        ),
        training=DeepLabTraining(
            steps=6, batch_size=4, accumulate=1, crop=48, scales=(0.5, 0.75), learning_rate=1e-4, batch_norm="train",
            hold=1, average=0.5, validate_every=3, checkpoint_every=2,
        ),
        inference=DeepLabInference(max_shapes=1),
    )
"""

UPERNET = """
from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.config import Data
from lpcam_jax.systems.upernet.config import UperNetConfig, UperNetHead, UperNetInference, UperNetTraining

def get_config():
    return UperNetConfig(
        data=Data(source="shapes", scenes=16, train="all[:12]", validation="all[12:]", seeds="all[10:]"),
        model=ResNetConfig(blocks=(1, 1, 1, 1), width=4, stem_width=4, output_stride=32),
        head=UperNetHead(width=8, auxiliary_width=4),
        training=UperNetTraining(
            steps=6, batch_size=4, crop=48, fit=(48, 192), learning_rate=1e-4, warm_up=2, validate_every=3,
            checkpoint_every=2,
        ),
        inference=UperNetInference(fit=(48, 192), max_shapes=1),
    )
"""

FROM_MAPS = ("--data.maps", "{maps}", "--model.weights", "{run}")

TINY = {
    "classifier": Tiny(CLASSIFIER, "maps/{}.npz"),
    "irn": Tiny(IRN, "masks/{}.png", FROM_MAPS),
    "psa": Tiny(PSA, "masks/{}.png", FROM_MAPS),
    "amn": Tiny(AMN, "maps/{}.npz", FROM_MAPS),
    "mctformer": Tiny(MCTFORMER, "maps/{}.npz"),
    "edam": Tiny(EDAM, "maps/{}.npz"),
    "segmentation": Tiny(SEGMENTATION, "masks/{}.png", ("--data.masks", "{maps}/pseudo_masks"), pictures=6),
    "upernet": Tiny(UPERNET, "masks/{}.png", ("--data.masks", "{maps}/pseudo_masks"), pictures=6),
}
