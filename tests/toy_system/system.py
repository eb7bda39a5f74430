"""The system, as train.py and infer.py meet it."""

from dataclasses import dataclass, field
from typing import ClassVar

from lpcam_jax.backbones.config import BackboneConfig, ResNetConfig
from lpcam_jax.config import Batches, RunConfig
from lpcam_jax.config.numbers import Count, Scales, Share
from lpcam_jax.systems.base import InferFlags, Preparation, System


@dataclass(frozen=True, kw_only=True)
class PeakTraining:
    """How it is trained."""

    epochs: Count = 2
    least_steps: Count = 1
    batch_size: Count = 8
    checkpoint_every: Count = 2
    crop: Count = 64
    long_side: tuple[int, int] = (64, 96)
    learning_rate: float = 3e-3


@dataclass(frozen=True, kw_only=True)
class PeakInference(Batches):
    """How it maps."""

    scales: Scales = (1.0,)
    background: Share = 0.3


@dataclass(frozen=True, kw_only=True)
class PeakConfig(RunConfig):
    """A classifier by its best position."""

    kind: ClassVar[str] = "peak"

    model: BackboneConfig = field(default_factory=ResNetConfig)
    training: PeakTraining = field(default_factory=PeakTraining)
    inference: PeakInference = field(default_factory=PeakInference)


@dataclass(frozen=True, kw_only=True)
class PeakFlags(InferFlags):
    """What to map."""

    inference: PeakInference = field(default_factory=PeakInference)


class Peak(System[PeakConfig]):
    """One stage, heat maps."""

    config, flags, stages, makes = PeakConfig, PeakFlags, ("peak",), "peaks/"

    def build(self, config, classes):
        from flax import nnx

        from lpcam_jax.backbones.preprocessing import Preprocessing

        from .network import PeakNet

        rngs = nnx.Rngs(config.seed)
        backbone = config.model.build(rngs=rngs)
        return PeakNet(backbone, classes, preprocessing=Preprocessing.of(config.model), rngs=rngs)

    def prepare(self, config, stages):
        import optax

        from lpcam_jax.data.sources import training_source
        from lpcam_jax.systems.lpcam.training import labelled_crops
        from lpcam_jax.training.loop import Plan, steps_of, train

        from .network import peak_loss

        pictures, training = training_source(config), config.training
        steps = steps_of(training, len(pictures))
        optimizer = optax.adam(training.learning_rate)
        plan = Plan(pictures, labelled_crops(training), peak_loss, optimizer, steps, "peak")
        return Preparation(tuple(pictures.class_names), {"peak": lambda job: train(job, plan)})

    def inference(self, job, flags, pictures):
        from lpcam_jax.training.state import trained_state

        from .maps import make_maps

        state = trained_state(job.run, devices=job.devices)
        return lambda: make_maps(job.run, state, pictures, flags.out)

    def describe(self, metrics):
        from lpcam_jax.results.heatmaps import describe

        return describe(metrics)

    def results(self, flags):
        return "seeds/ and maps/"

    def uses_stored_statistics(self, config):
        return False


system = Peak()
