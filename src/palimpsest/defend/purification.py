"""Purification: every query goes through an autoencoder before the model sees it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palimpsest.catalog import setting
from palimpsest.defend.base import ModelRelease
from palimpsest.errors import BadInput
from palimpsest.learn.loop import Meter, batch_sizes, shuffled
from palimpsest.rng import Rng
from palimpsest.task import Task, as_classification
from palimpsest.types import Examples


@dataclass(frozen=True)
class Purification(ModelRelease):
    """A variational autoencoder before the model (UMA paper, A.2): what it cannot reconstruct is lost, noise above all.

    It is trained on the retain set to give back clean images of noisy ones: squared error plus β times the divergence of the code
    from a standard normal. A query is replaced by the reconstruction from its mean code. The paper prints neither its shape nor
    its training; ours are fields, after Kingma & Welling 2014, with a code that keeps its place in the image.

    Guarantees nothing. Against an attacker who knows of it, it is one more layer that is differentiated through: report both. Costs
    accuracy, as it blurs what it gives back.
    """

    weakens = "uma"
    paper = "UMA paper, A.2, Tables 5 and 6"
    about = "reconstructs every query by a variational autoencoder before the model sees it"

    width: int = setting(32, "channels of the first convolution", source="ours", least=1)
    latent: int = setting(48, "channels of the code", source="ours", least=1)
    shrink: int = setting(
        4, "how much narrower the code is than the image: 1, 2, 4 …, a power of 2", source="ours", least=1
    )
    beta: float = setting(
        1e-4, "weight of the divergence from the normal (β), per value of the image", source="ours", least=0
    )
    noise: float = setting(16 / 255, "largest uniform noise on what it learns to clean", source="ours", least=0, most=1)
    epochs: int = setting(20, "passes over the retain set", source="ours", least=1)
    lr: float = setting(2e-3, "Adam's learning rate, which falls to 0 along a cosine", source="ours", above=0)
    batch_size: int = setting(64, "records a step", source="ours", least=1)

    def part(self, task: Task) -> Vae:
        shape = as_classification(task, "purification").shape
        if self.shrink & (self.shrink - 1):
            raise BadInput("purification.shrink", got=self.shrink, expected="a power of 2, such as 4")
        if len(shape) != 3 or shape[1] % self.shrink or shape[2] % self.shrink:
            got, expected = f"records of shape {shape}", f"images whose sides are multiples of {self.shrink}"
            raise BadInput("purification", got=got, expected=expected, do="set purification.shrink lower")
        return Vae(shape[0], self.width, self.latent, self.shrink)

    def prepare(self, part: nn.Module, task: Task, retain: Examples, *, rng: Rng, meter: Meter) -> None:
        if not isinstance(part, Vae):
            raise TypeError(f"got {type(part).__name__}, expected what `part` returns")
        device = next(part.parameters()).device
        retain = retain.to(device)
        adam = torch.optim.Adam(part.parameters(), self.lr)
        total = self.epochs * len(batch_sizes(len(retain), self.batch_size))
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, total)
        part.train()
        for epoch in range(self.epochs):
            stream = rng.child("epoch", epoch)
            draw = stream.child("noise").torch(device)
            for batch in shuffled(retain, self.batch_size, stream, name=f"purifier {epoch + 1}/{self.epochs}"):
                clean = batch.inputs[task.attacked_input]
                spoiled = clean + self.noise * (2 * torch.rand(clean.shape, generator=draw, device=device) - 1)
                meter.step(self._loss(part, clean, spoiled.clamp(0, 1), draw), adam, len(batch))
                falling.step()
        part.eval()

    def _loss(self, vae: Vae, clean: Tensor, spoiled: Tensor, draw: torch.Generator) -> Tensor:
        mean, log_variance = vae.encode(spoiled)
        normal = torch.randn(mean.shape, generator=draw, device=mean.device)
        back = vae.decode(mean + (0.5 * log_variance).exp() * normal)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum() / clean.numel()
        return F.mse_loss(back, clean) + self.beta * divergence

    def release(self, part: nn.Module, model: nn.Module) -> Purified:
        return Purified(part, model)


class Vae(nn.Module):
    """A convolutional variational autoencoder of images in [0, 1], shape (n, channels, h, w)."""

    def __init__(self, channels: int, width: int, latent: int, shrink: int) -> None:
        super().__init__()
        down: list[nn.Module] = [_block(channels, width)]
        up: list[nn.Module] = [nn.Conv2d(width, channels, 3, padding=1)]
        now = width
        for _ in range(shrink.bit_length() - 1):
            down += [_block(now, 2 * now, stride=2)]
            up = [nn.Upsample(scale_factor=2), _block(2 * now, now), *up]
            now *= 2
        self.encoder = nn.Sequential(*down, nn.Conv2d(now, 2 * latent, 1))
        self.decoder = nn.Sequential(_block(latent, now), *up)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the code, each (n, latent, h/shrink, w/shrink)."""
        mean, log_variance = self.encoder(2 * images - 1).chunk(2, 1)
        return mean, log_variance.clamp(-12, 6)

    def decode(self, code: Tensor) -> Tensor:
        """Images in [0, 1]; a sigmoid keeps them there."""
        images: Tensor = torch.sigmoid(self.decoder(code))
        return images

    def forward(self, images: Tensor) -> Tensor:
        """The reconstruction from the mean code."""
        return self.decode(self.encode(images)[0])


def _block(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1), nn.GroupNorm(min(8, after), after), nn.SiLU())


class Purified(nn.Module):
    """A model that sees the purifier's reconstructions only."""

    def __init__(self, purifier: nn.Module, model: nn.Module) -> None:
        super().__init__()
        self.purifier = purifier
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(self.purifier(images))
        return logits
