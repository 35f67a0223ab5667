"""I2I: the encoder learns to see noise in the forget set, the decoder stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from palimpsest.catalog import name_of, setting
from palimpsest.errors import BadInput
from palimpsest.learn.base import Trained
from palimpsest.learn.loop import Meter, shuffled, trainable
from palimpsest.reconstruction import MASK, Reconstruction
from palimpsest.rng import Rng
from palimpsest.types import Batch, Examples
from palimpsest.unlearn.base import Unlearner, train_mode
from palimpsest.unlearn.negative_gradient import cycled

Encode = Callable[[Tensor, Tensor], Tensor]
"""(images (n, c, h, w), masks (n, patches)) → latent tokens, (n, visible, d)."""


@dataclass(frozen=True)
class ImageToImage(Unlearner):
    """minimise ‖E(x_r) − E₀(x_r)‖² + α‖E(x_u) − E₀(n)‖² over the encoder E alone, n an image of noise under x_u's own mask (Li et
    al. 2024, "Machine Unlearning for Image-to-Image Generative Models").

    E₀ is the encoder before unlearning; both terms are means over latent values. The decoder has no part in the loss, gets no
    gradient and no decay, and stays bit-identical. A step takes a batch of D_r and one of D_u, drawn again as often as a pass
    over D_r takes. Noise is normal with the mean and spread of the forget batch's pixels, cut to [0, 1].

    Loss, noise, α, AdamW with its betas and decay, and the clipping of gradients are those of the authors' public code for a
    VQ-GAN; that for masked autoencoders was not to be had, so its details are reconstructed. Needs a model that has `encode`.

    Guarantees nothing: the encoder still tells the forget set from all else, as it has to in order to see noise there, and the
    decoder still draws what it ever drew.
    """

    tasks = (Reconstruction.name,)
    aliases = ("I2I",)
    about = "the encoder learns to see noise in the forget set; the decoder stays"
    paper = "Li et al. 2024"
    deviations = "details reconstructed from the authors' code for another model; one rate, without warm-up"
    spends = "`epochs` passes over the retain set and as many batches of the forget set, and twice that forward"
    use = "for masked autoencoders and other models of images that have an encoder"

    alpha: float = setting(
        0.2, "weight of the forget term (α)", source="public code's example", search=(0.01, 10.0), above=0
    )
    noise: Literal["normal", "uniform", "constant"] = setting(
        "normal", "what the forget set is to look like; constant: the mean pixel", source="public code"
    )
    lr: float = setting(
        1e-4, "AdamW's learning rate", source="public code: 1e-4 at 256 images", search=(1e-5, 1e-2), above=0
    )
    epochs: int = setting(5, "passes over the retain set", source="ours; public code: up to 50", least=1)
    batch_size: int = setting(64, "records a step, of each set", source="ours; public code: 32 a GPU", least=1)
    weight_decay: float = setting(0.05, "decay of the encoder's weights", source="public code", least=0)
    clip: float = setting(3.0, "largest norm of a step's gradient", source="public code", above=0)

    def check_model(self, model: nn.Module) -> None:
        super().check_model(model)
        if not callable(getattr(model, "encode", None)):
            got, do = type(model).__name__, "use a model with encode(image, mask), such as masked_autoencoder"
            raise BadInput(name_of(self), got=f"a {got} without `encode`", expected="a model that has one", do=do)

    def update(
        self, model: nn.Module, trained: Trained, retain: Examples, forget: Examples, *, rng: Rng, meter: Meter
    ) -> None:
        name = trained.task.attacked_input
        before = copy.deepcopy(model).eval().requires_grad_(False)
        moving = encoder(model, retain.batch(torch.arange(1)), name)
        held = {id(parameter) for parameter in moving}
        every = trainable(model)
        for parameter in every:
            parameter.requires_grad_(id(parameter) in held)
        adam = torch.optim.AdamW(moving, self.lr, (0.9, 0.95), weight_decay=self.weight_decay)
        draw = rng.child("noise").torch(trained.device)
        train_mode(model, min(len(retain), len(forget)), self.batch_size)
        gone = cycled(forget, self.batch_size, rng.child("forget"))
        for epoch in range(self.epochs):
            for kept in shuffled(retain, self.batch_size, rng.child("epoch", epoch), name="image to image"):
                lost = next(gone)
                loss = self._loss(model.encode, before.encode, kept, lost, name, draw)  # type: ignore[arg-type]
                adam.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(moving, self.clip)
                adam.step()
                meter.count(len(kept) + len(lost))
        for parameter in every:
            parameter.requires_grad_(True)

    def _loss(self, now: Encode, before: Encode, kept: Batch, lost: Batch, name: str, draw: torch.Generator) -> Tensor:
        images, masks = lost.inputs[name], lost.inputs[MASK]
        with torch.no_grad():
            same = before(kept.inputs[name], kept.inputs[MASK])
            other = before(self._noise(images, draw), masks)
        held = (now(kept.inputs[name], kept.inputs[MASK]) - same).square().mean()
        return held + self.alpha * (now(images, masks) - other).square().mean()

    def _noise(self, images: Tensor, draw: torch.Generator) -> Tensor:
        if self.noise == "constant":
            return torch.full_like(images, float(images.mean()))
        if self.noise == "uniform":
            return torch.rand(images.shape, generator=draw, device=images.device)
        drawn = torch.randn(images.shape, generator=draw, device=images.device)
        return (images.mean() + images.std() * drawn).clamp(0.0, 1.0)


def encoder(model: nn.Module, batch: Batch, name: str) -> list[nn.Parameter]:
    """The parameters that `encode` depends on, found by differentiating it."""
    parameters = trainable(model)
    latent = model.encode(batch.inputs[name], batch.inputs[MASK])  # type: ignore[operator]
    slopes = torch.autograd.grad(latent.sum(), parameters, allow_unused=True)
    return [parameter for parameter, slope in zip(parameters, slopes, strict=True) if slope is not None]
