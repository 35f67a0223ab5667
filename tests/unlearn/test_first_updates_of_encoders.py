"""I2I's first updates against float64 by hand, on an encoder that shares no code with the package."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from palimpsest.learn.base import Trained
from palimpsest.models.masked_autoencoder import MaskedAutoencoder
from palimpsest.rng import Rng
from palimpsest.types import Split
from palimpsest.unlearn.image_to_image import ImageToImage

RATE, DECAY, ALPHA = 0.01, 0.1, 0.7


class Coder(nn.Module):
    """One layer to three latent values, a hyperbolic tangent, and one layer back, in float64; masks are not looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(64, 3).double(), nn.Linear(3, 64).double()

    def encode(self, image: Tensor, mask: Tensor) -> Tensor:
        return torch.tanh(self.inner(image.double().flatten(1)))

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.outer(self.encode(image, mask)).view(image.shape)


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("clip", [100.0, 0.05])
def test_image_to_image(digits: Split, epochs: int, clip: float) -> None:
    """Full batches, AdamW with its decay apart from the gradient; the retain term has a gradient from the second step on."""
    task = MaskedAutoencoder(patch=2).task(digits)
    records = task.prepare(digits).train.take(list(range(30)))
    gone = np.arange(30) < 10
    forget, retain = records.take(gone), records.take(~gone)
    torch.manual_seed(0)
    model = Coder()
    method = ImageToImage(
        alpha=ALPHA, noise="constant", lr=RATE, epochs=epochs, batch_size=99, weight_decay=DECAY, clip=clip
    )
    result = method.unlearn(Trained(model, task, records.ids), retain, forget, rng=Rng(0))

    kept, lost = (part.batch().inputs["image"].double().flatten(1) for part in (retain, forget))
    weights = [parameter.detach().clone() for parameter in model.inner.parameters()]
    noise = torch.full((1, 64), float(lost.mean()), dtype=torch.float64)
    same, other = (torch.tanh(images @ weights[0].T + weights[1]) for images in (kept, noise))
    mean, square = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    for step in range(1, epochs + 1):
        free = [weight.clone().requires_grad_() for weight in weights]
        now, away = (torch.tanh(images @ free[0].T + free[1]) for images in (kept, lost))
        (((now - same) ** 2).mean() + ALPHA * ((away - other) ** 2).mean()).backward()
        slopes = [weight.grad for weight in free]
        norm = sum(float((slope**2).sum()) for slope in slopes) ** 0.5
        assert (norm > clip) == (clip < 1)
        for index, slope in enumerate(slopes):
            push = slope * min(1.0, clip / (norm + 1e-6))
            mean[index] = 0.9 * mean[index] + 0.1 * push
            square[index] = 0.95 * square[index] + 0.05 * push**2
            along = mean[index] / (1 - 0.9**step) / ((square[index] / (1 - 0.95**step)).sqrt() + 1e-8)
            weights[index] = (1 - RATE * DECAY) * weights[index] - RATE * along
    for found, old, wanted in zip(result.model.inner.parameters(), model.inner.parameters(), weights, strict=True):
        assert float((found - wanted).detach().norm() / (wanted - old).detach().norm()) < 1e-5
    for name, value in result.model.outer.state_dict().items():
        assert torch.equal(value, model.outer.state_dict()[name])
