"""A `ViTMAEForPreTraining` of the package transformers as a model of the task of reconstruction: told what to hide."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from palimpsest.models._masked_autoencoder import check
from palimpsest.reconstruction import grid, pixel_mask


class Masked(nn.Module):
    """(n, c, h, w) images, normalised as the checkpoint's were, and (n, patches) masks, True = hidden → (n, c, h, w) predicted.

    The model keeps the patches with the least noise, as many as its `mask_ratio` says. Here both are set so that these are the
    visible ones, in the order of their places. Hidden pixels are set to zero before the model sees the image: it drops their
    tokens in any case, but not before it has computed them.

    Takes over `inner`: its tables of positions, which are parameters that nothing may train, become buffers of the same names.
    """

    def __init__(self, inner: Any, shape: tuple[int, int, int], patch: int) -> None:
        super().__init__()
        self.shape, self.patch = shape, patch
        rows, columns = grid(shape, patch)
        self.count = rows * columns
        for module, name in ((inner.vit.embeddings, "position_embeddings"), (inner.decoder, "decoder_pos_embed")):
            table = getattr(module, name).detach().clone()
            delattr(module, name)
            module.register_buffer(name, table)
        self.inner = inner

    def encode(self, image: Float[Tensor, "n c h w"], mask: Bool[Tensor, "n patches"]) -> Float[Tensor, "n tokens d"]:
        """All that the decoder is given: the latent class token, then those of the visible patches in the order of their places."""
        latent: Tensor = self._encoded(image, mask).last_hidden_state
        return latent

    def forward(self, image: Float[Tensor, "n c h w"], mask: Bool[Tensor, "n patches"]) -> Float[Tensor, "n c h w"]:
        seen = self._encoded(image, mask)
        drawn: Tensor = self.inner.unpatchify(self.inner.decoder(seen.last_hidden_state, seen.ids_restore).logits)
        return drawn

    def blocks(self) -> list[nn.Module]:
        """Embedding, each of the encoder's layers, its last norm, and the decoder as one block."""
        vit = self.inner.vit
        layers = vit.layers if hasattr(vit, "layers") else vit.encoder.layer  # of version 4
        return [vit.embeddings, *layers, vit.layernorm, self.inner.decoder]

    def _encoded(self, image: Tensor, mask: Tensor) -> Any:
        hidden = check(image, mask, self.shape, self.count)
        # It keeps int(count · (1 − ratio)) patches; the half keeps rounding off the edge.
        self.inner.vit.embeddings.config.mask_ratio = (hidden - 0.5) / self.count
        places = torch.arange(self.count, device=mask.device)
        noise = (mask * self.count + places).float()
        return self.inner.vit(image.masked_fill(pixel_mask(mask, self.shape, self.patch), 0.0), noise=noise)
