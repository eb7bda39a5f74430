"""Weights of networks that look like a ResNet and are none of ours: what differs is said, and what to give."""

import numpy as np
import pytest
from test_weights import backbone, torch_name

from lpcam_jax.backbones.weights.names import read_weights
from lpcam_jax.backbones.weights.resnet import find_architecture, load_deeplab
from lpcam_jax.machine.errors import UserError

KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
PLAIN = "give the weights of a plain ResNet-50, -101 or -152, such as torchvision's."


def leaves(tree, path=()):
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, str(key)))
    else:
        yield "/".join(path), tree


@pytest.fixture(scope="module")
def plain():
    """The entries of a file that fits the backbone of the tests."""
    arrays = {}
    for name, leaf in leaves(backbone()[1]):
        shape = leaf.shape if len(leaf.shape) != 4 else tuple(leaf.shape[i] for i in (3, 2, 0, 1))
        arrays[torch_name(name)] = np.ones(shape, np.float32)
    return arrays


def one_channel(arrays):
    arrays["conv1.weight"] = arrays["conv1.weight"][:, :1]


def four_channels(arrays):
    arrays["conv1.weight"] = np.zeros((4, 4, 7, 7))


def small_pictures(arrays):
    arrays["conv1.weight"] = np.zeros((4, 3, 3, 3))


def timm_deep_stem(arrays):
    """Of resnet50d."""
    del arrays["conv1.weight"]
    for number, shape in {0: (2, 3, 3, 3), 3: (2, 2, 3, 3), 6: (4, 2, 3, 3)}.items():
        arrays[f"conv1.{number}.weight"] = np.zeros(shape)


def mmlab_deep_stem(arrays):
    """Of resnetv1c."""
    for name in list(arrays):
        if name.startswith(("conv1.", "bn1.")):
            del arrays[name]
    for number, shape in {0: (2, 3, 3, 3), 3: (2, 2, 3, 3), 6: (4, 2, 3, 3)}.items():
        arrays[f"stem.{number}.weight"] = np.zeros(shape)
    for name in list(arrays):
        arrays[f"backbone.{name}"] = arrays.pop(name)


def csail_deep_stem(arrays):
    """Of semantic-segmentation-pytorch."""
    for number, shape in {1: (2, 3, 3, 3), 2: (2, 2, 3, 3), 3: (4, 2, 3, 3)}.items():
        arrays[f"conv{number}.weight"] = np.zeros(shape)


def groups(arrays):
    for name in list(arrays):
        if name.endswith(".conv2.weight") and arrays[name].shape[1] > 1:
            arrays[name] = arrays[name][:, : arrays[name].shape[1] // 2]


def wide(arrays):
    arrays["layer1.0.conv1.weight"] = np.zeros((4, 4, 1, 1))
    arrays["layer1.0.conv2.weight"] = np.zeros((4, 4, 3, 3))
    arrays["layer1.0.conv3.weight"] = np.zeros((8, 4, 1, 1))


def basic(arrays):
    for name in list(arrays):
        if "conv3" in name or "bn3" in name:
            del arrays[name]


def squeezed(arrays):
    arrays["layer1.0.se.fc1.weight"] = np.zeros((2, 8, 1, 1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            one_channel,
            "its first convolution takes 1 channel (grey), here it takes 3 (RGB): give weights for RGB pictures, or "
            "store conv1.weight as weight.repeat(1, 3, 1, 1) / 3.",
        ),
        (
            four_channels,
            "its first convolution takes 4 channels, here it takes 3 (RGB): give weights for RGB pictures.",
        ),
        (small_pictures, f"its first convolution is 3x3 (for small pictures), here it is 7x7: {PLAIN}"),
        *(
            (change, f"its stem is three 3x3 convolutions (ResNet-C or -D), here it is one of 7x7: {PLAIN}")
            for change in (timm_deep_stem, mmlab_deep_stem, csail_deep_stem)
        ),
        (groups, f"its 3x3 convolutions have 2 groups (ResNeXt), here they have none: {PLAIN}"),
        (wide, f"its bottlenecks are wide (4 of 8 channels, here a quarter): {PLAIN}"),
        (basic, f"it has blocks of two convolutions (ResNet-18 or -34), here they have three: {PLAIN}"),
        (squeezed, f"its blocks hold more than convolutions and norms (layer1.0.se.fc1.weight): {PLAIN}"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_differs_is_said(tmp_path, plain, change, said):
    arrays = dict(plain)
    change(arrays)
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(UserError) as caught:
        load_deeplab(tmp_path / "w.npz", {"backbone": backbone()[1]})
    text = str(caught.value)
    assert "w.npz does not hold this backbone: " in text
    assert text.endswith(f". {said[0].upper()}{said[1:]}")
    with pytest.raises(UserError) as caught:
        find_architecture(read_weights(tmp_path / "w.npz"))
    assert str(caught.value) == f"{tmp_path / 'w.npz'} holds no plain ResNet of bottlenecks: {said}"


def test_more_blocks_are_not_left_out(tmp_path, plain):
    """The first blocks of a ResNet-101 are no ResNet-50."""
    more = {name.replace("layer4.0.", "layer4.1."): array for name, array in plain.items() if "downsample" not in name}
    more["layer4.1.conv1.weight"] = np.zeros((16, 64, 1, 1))
    np.savez(tmp_path / "w.npz", **(more | plain))
    with pytest.raises(
        UserError, match=r"it has no place for layer4\.1\..* and \d+ more\. It holds a ResNet-20.*: use --"
    ):
        load_deeplab(tmp_path / "w.npz", {"backbone": backbone()[1]})


def test_a_plain_file_fits(tmp_path, plain):
    np.savez(
        tmp_path / "w.npz", **plain, **{"layer1.0.bn1.num_batches_tracked": np.int64(1), "fc.weight": np.ones((3, 64))}
    )
    assert load_deeplab(tmp_path / "w.npz", {"backbone": backbone()[1]}).loaded == len(plain)
