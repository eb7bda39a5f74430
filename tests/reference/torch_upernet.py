"""UperNet's loss and training in torch, for the network of transformers.

Independent of the package, so that the two can disagree.
"""

import torch
from torch.nn.functional import cross_entropy, interpolate


def two_losses(network, images, labels):
    """That of the head and 0.4 times the auxiliary head's, of labels int64 (b, H, W); unlabelled pixels count as 0."""
    features = network.backbone(images).feature_maps
    losses = []
    for head in (network.decode_head, network.auxiliary_head):
        logits = interpolate(head(features), labels.shape[1:], mode="bilinear", align_corners=False)
        losses.append(cross_entropy(logits, labels, ignore_index=255, reduction="sum") / labels.numel())
    return losses[0] + 0.4 * losses[1]


def has_decay(name):
    """By the name of a parameter; mmsegmentation has `bn` where transformers has `batch_norm`."""
    mmseg = name.replace("batch_norm", "bn")
    return not any(part in mmseg for part in ("norm", "relative_position_bias_table", "absolute_pos_embed"))


def rate_of(step, *, steps, initial, warm_up):
    """The learning rate of a step, counted from 0."""
    rate = initial * (1 - step / steps)
    if step < warm_up:
        rate *= 1 - (1 - step / warm_up) * (1 - 1e-6)
    return rate


def train(network, images, labels, *, parameters, steps, initial, decay, warm_up):
    """Steps of AdamW on the same batch, of some named parameters; yields the loss of every step."""
    groups = [
        {"params": [p for name, p in parameters if has_decay(name)], "weight_decay": decay},
        {"params": [p for name, p in parameters if not has_decay(name)], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=initial, betas=(0.9, 0.999))
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = rate_of(step, steps=steps, initial=initial, warm_up=warm_up)
        adam.zero_grad()
        loss = two_losses(network, images, labels)
        loss.backward()
        adam.step()
        yield loss.item()
