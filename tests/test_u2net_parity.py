"""U2-Net read from a file is the network that wrote it: an independent one in torch, and the published one in ONNX."""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from real_data import U2NETP, needs
from test_onnx_files import model

from lpcam_jax.saliency.weights import load_u2net

torch = pytest.importorskip("torch")

from reference.torch_u2net import U2Net  # noqa: E402 (they need torch)
from reference.torch_weights import to_torch  # noqa: E402

# What compares numbers with torch is compiled as for users.
pytestmark = [pytest.mark.rest, pytest.mark.optimized]

torch.set_num_threads(1)

# All different, so that none is taken for another.
ENCODER = [(2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8)]
DECODER = [(3, 2), (4, 3), (5, 4), (6, 5), (7, 6)]
# Both sides are odd at several stages. All files are tried at it, so that theirs is one program.
PICTURES = np.random.default_rng(0).normal(size=(2, 75, 53, 3)).astype(np.float32)


def saliency(path: Path, pictures: np.ndarray) -> np.ndarray:
    graph, loaded = load_u2net(path)
    return np.asarray(jax.jit(lambda parameters, x: nnx.merge(graph, parameters)(x))(loaded.backbone, pictures))


@pytest.fixture(scope="module")
def network():
    """Torch's, of random weights and statistics, in float64, whose output is not saturated."""
    torch.manual_seed(0)
    network = U2Net(ENCODER, DECODER).double().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values, low, high in (
                (module.weight, 0.8, 1.6),
                (module.bias, -0.4, 0.6),
                (module.running_var, 0.3, 2),
            ):
                torch.nn.init.uniform_(values, low, high)
            torch.nn.init.uniform_(module.running_mean, -0.3, 0.3)
    with torch.no_grad():
        network.outconv.weight *= 100
        network.outconv.bias -= network(torch.randn(1, 3, 64, 64).double()).logit().mean()
    return network


def test_a_published_file_is_the_network_of_torch_at_an_odd_size(network, tmp_path):
    with torch.no_grad():
        expected = network(to_torch(PICTURES)).numpy()
    assert np.ptp(expected) > 0.5
    whole = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in network.state_dict().items()}}
    torch.save(whole, tmp_path / "u2netp.pth")
    np.testing.assert_allclose(saliency(tmp_path / "u2netp.pth", PICTURES), expected, atol=1e-4)


def test_an_export_is_read_by_the_order_in_which_its_network_computes(network, tmp_path):
    """As exporters write it: batch norm folded, numbers for names but where there was no norm, in any order."""
    of_module, computed = {module: name for name, module in network.named_modules()}, []
    hooks = [
        module.register_forward_hook(lambda module, *_: computed.append(module))
        for module in network.modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.BatchNorm2d)
    ]
    with torch.no_grad():
        expected = network(to_torch(PICTURES)).numpy()
    for hook in hooks:
        hook.remove()
    arrays, order = {}, []
    for module, after in zip(computed, [*computed[1:], None], strict=True):
        if isinstance(module, torch.nn.BatchNorm2d):
            continue
        kernel, bias, name = module.weight.detach(), module.bias.detach(), of_module[module]
        if isinstance(after, torch.nn.BatchNorm2d):
            factor = after.weight.detach() / (after.running_var + after.eps).sqrt()
            kernel, bias = (
                kernel * factor[:, None, None, None],
                (bias - after.running_mean) * factor + after.bias.detach(),
            )
            name = str(2000 + 3 * len(order))
        names = (f"{name}.weight", f"{name}.bias") if "side" in name or "out" in name else (name, f"{name}1")
        order += names
        arrays |= dict(zip(names, (kernel.float().numpy(), bias.float().numpy()), strict=True))
    shuffled = {name: arrays[name] for name in sorted(arrays)}
    (tmp_path / "export.onnx").write_bytes(model(shuffled, order))
    np.testing.assert_allclose(saliency(tmp_path / "export.onnx", PICTURES), expected, atol=1e-4)


@needs(U2NETP)
def test_the_published_network_is_what_onnxruntime_makes_of_it():
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(U2NETP, options)
    rows, columns = np.mgrid[-1:1:320j, -1:1:320j]
    disk = rows**2 + (columns - 0.2) ** 2 < 0.2
    picture = np.random.default_rng(0).normal(size=(1, 320, 320, 3)) / 9 + np.where(disk, 1.5, -0.5)[None, ..., None]
    picture = picture.astype(np.float32)
    [expected] = session.run([session.get_outputs()[0].name], {"input.1": picture.transpose(0, 3, 1, 2)})
    assert (expected[0, 0] > 0.5)[disk].mean() > 0.5
    np.testing.assert_allclose(saliency(U2NETP, picture), expected[:, 0], atol=1e-4)
