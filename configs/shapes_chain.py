"""The embedded data set, the whole way: LPCAM's heat maps, AMN's, IRN's pseudo masks, and DeepLabV2 trained on them.

What each stage brings here says that the code works, no more: on these scenes AMN and IRN do not help each other
(configs/shapes_amn.py). --without amn leaves AMN out.

    python -m lpcam_jax chain configs/shapes_chain.py --workdir runs/chain
"""

from lpcam_jax.chain.recipe import Chain, Stage


def get_chain() -> Chain:
    """The chain."""
    from_classifier = ("--model.weights", "{classifier}")
    return Chain(
        (
            Stage("classifier", "shapes.py"),
            Stage("amn", "shapes_amn.py", from_classifier),
            Stage(
                "irn",
                "shapes_irn.py",
                from_classifier,
                after={
                    "amn": (
                        *("--labels.method", "amn", "--labels.foreground", "0.45", "--labels.background", "0.15"),
                        *("--inference.power", "1.3"),
                    )
                },
            ),
            Stage("network", "shapes_deeplab.py", from_classifier),
        )
    )
