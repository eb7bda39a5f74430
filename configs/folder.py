"""Your own pictures: DIR/images/ and DIR/labels.csv, and masks in DIR/masks/ if you want scores.

Fine-tunes a ResNet-50; give its ImageNet weights with --model.weights, or expect little: a few thousand pictures do not
make good features from nothing.

    python train.py configs/folder.py --data.root my_data --model.weights resnet50.npz --workdir runs/my_data
    python infer.py --ckpt runs/my_data --out heatmaps_mine/
"""

from lpcam_jax.config import Config, Data, Training


def get_config() -> Config:
    """The recipe."""
    return Config(
        data=Data(source="folder"),
        training=Training(
            epochs=5,
            crop=384,
            long_side=(320, 512),
            optimizer="adamw",
            learning_rate=1e-4,
            weight_decay=1e-2,
            head_init="zero",
        ),
    )
