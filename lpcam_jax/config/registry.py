"""Registry of systems and backbones, by kind. Each is imported only when it is requested.

Another package adds its own with `register_system` and `register_backbone`, or by entry points of these groups, so that
train.py, infer.py and the commands find them wherever it is installed:

    [project.entry-points."lpcam_jax.systems"]
    mine = "my_package.system"                 # a module with `system`, a `systems.base.System`
    [project.entry-points."lpcam_jax.backbones"]
    mine = "my_package.backbone:MyConfig"      # a `backbones.config.BackboneConfig`
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, NamedTuple

from ..machine.errors import UserError


class Place(NamedTuple):
    """Location of a system.

    Attributes:
        module: name of the module whose `system` is the System.
        titles: method -> display name of the maps it writes.
    """

    module: str
    titles: Mapping[str, str] = {}


DEFAULT = "classifier"
"""Kind of a run whose config.json names none, and of a command line without a recipe."""

_SYSTEMS = {
    "classifier": Place(
        "lpcam_jax.systems.lpcam.system",
        {"cam": "CAM", "lpcam_f": "LPCAM-F", "lpcam": "LPCAM", "taught": "LPCAM-T", "affinity": "LPCAM-A"},
    ),
    "irn": Place("lpcam_jax.systems.irn.system", {"irn": "IRN"}),
    "psa": Place("lpcam_jax.systems.psa.system"),
    "amn": Place("lpcam_jax.systems.amn.system", {"amn": "AMN"}),
    "mctformer": Place(
        "lpcam_jax.systems.mctformer.system",
        {"mctformer": "MCTformer", "mctformer_lpcam": "MCTformer + LPCAM"},
    ),
    "edam": Place("lpcam_jax.systems.edam.system", {"edam": "EDAM"}),
    "segmentation": Place("lpcam_jax.systems.deeplab.system"),
    "upernet": Place("lpcam_jax.systems.upernet.system"),
}
_BACKBONES = {
    "resnet": "lpcam_jax.backbones.config:ResNetConfig",
    "vgg16": "lpcam_jax.backbones.vgg:VGG16Config",
    "wideresnet38": "lpcam_jax.backbones.wideresnet:WideResNet38Config",
    "vit": "lpcam_jax.backbones.config:ViTConfig",
    "swin": "lpcam_jax.backbones.swin:SwinConfig",
}


def register_system(kind: str, module: str, titles: Mapping[str, str] | None = None) -> None:
    """Add a system, or replace one.

    Args:
        kind: its name in config.json.
        module: name of the module whose `system` is the System.
        titles: method -> display name of the maps it writes.
    """
    _SYSTEMS[kind] = Place(module, titles or {})


def register_backbone(kind: str, config: str) -> None:
    """Add a backbone, or replace one.

    Args:
        kind: the value of `config.model.backbone`.
        config: "module:class" of its BackboneConfig.
    """
    _BACKBONES[kind] = config


def load_system(kind: str) -> Any:
    """Import and return the system of a kind, a `systems.base.System`.

    Raises:
        UserError: there is no such system.
    """
    place = _SYSTEMS.get(kind) or Place(_plugged_in("systems", kind, _SYSTEMS))
    return import_module(place.module).system


def system_of(config: Any) -> Any:
    """The system that a config belongs to."""
    return load_system(config.kind)


def load_backbone_config(kind: str) -> type:
    """Import and return the config class of a kind of backbone, a subclass of `BackboneConfig`.

    Raises:
        UserError: there is no such backbone.
    """
    module, _, name = (_BACKBONES.get(kind) or _plugged_in("backbones", kind, _BACKBONES)).partition(":")
    return getattr(import_module(module), name)


def kinds() -> list[str]:
    """Kinds of the registered systems."""
    return list(_SYSTEMS)


def backbones() -> list[str]:
    """Kinds of the registered backbones."""
    return list(_BACKBONES)


def title(method: str) -> str:
    """Display name of a method's maps; an unregistered method keeps its name."""
    return next((place.titles[method] for place in _SYSTEMS.values() if method in place.titles), method)


def _plugged_in(group: str, kind: str, known: Mapping[str, Any]) -> str:
    """The value of another package's entry point."""
    for entry in entry_points(group=f"lpcam_jax.{group}", name=kind):
        return entry.value
    raise UserError(f"there is no {kind!r} among the {group}; there are {', '.join(known)}.")
