"""A masked autoencoder of small images: a transformer sees some patches and predicts the pixels of all of them.

He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners", section 3. Deviations: no class token, since nothing is
classified, and one number of heads for encoder and decoder.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from palimpsest.errors import BadInput
from palimpsest.reconstruction import grid


class MaskedAutoencoder(nn.Module):
    """(n, c, h, w) images and (n, patches) masks, True = hidden → (n, c, h, w) predicted pixels.

    The encoder reads the visible patches only; the decoder reads its output, with one learned token in every hidden place.
    Patches are counted row by row. Pixels are in whatever space the caller normalised them to, and every patch is predicted
    there, visible ones too: pasting the visible pixels back is the caller's, and so is a loss on the hidden ones alone.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        patch: int,
        width: int,
        depth: int,
        heads: int,
        decoder_width: int,
        decoder_depth: int,
        ratio: int = 4,
    ) -> None:
        """`ratio`: hidden units of a block's MLP, in widths."""
        super().__init__()
        sizes = {"patch": patch, "width": width, "depth": depth, "heads": heads}
        sizes |= {"decoder width": decoder_width, "decoder depth": decoder_depth, "ratio": ratio}
        for name, size in sizes.items():
            if size < 1:
                raise BadInput(f"masked autoencoder: {name}", got=size, expected="1 or more")
        for name in ("width", "decoder width"):
            if sizes[name] % heads or sizes[name] % 4:
                expected = f"a multiple of 4 and of the {heads} heads"
                raise BadInput(f"masked autoencoder: {name}", got=sizes[name], expected=expected)
        rows, columns = grid(shape, patch)
        self.shape, self.patch, self.count = shape, patch, rows * columns
        values = shape[0] * patch**2
        self.embed = Embedding(values, position_embedding(rows, columns, width))
        self.encoder = transformer(width, depth, heads, ratio)
        self.fill = Fill(width, position_embedding(rows, columns, decoder_width))
        self.decoder = transformer(decoder_width, decoder_depth, heads, ratio)
        self.head = nn.Linear(decoder_width, values)
        self.apply(initialise)

    def encode(self, image: Float[Tensor, "n c h w"], mask: Bool[Tensor, "n patches"]) -> Float[Tensor, "n visible d"]:
        """Latent tokens of the visible patches, in the order of their places; no hidden pixel has any influence."""
        check(image, mask, self.shape, self.count)
        latent: Tensor = self.encoder(self.embed(patches(image, self.patch), mask))
        return latent

    def forward(self, image: Float[Tensor, "n c h w"], mask: Bool[Tensor, "n patches"]) -> Float[Tensor, "n c h w"]:
        tokens = self.decoder(self.fill(self.encode(image, mask), mask))
        return assembled(self.head(tokens), self.shape, self.patch)

    def blocks(self) -> list[nn.Module]:
        return [self.embed, *self.encoder, self.fill, *self.decoder, self.head]


def check(image: Tensor, mask: Tensor, shape: tuple[int, int, int], count: int) -> int:
    """How many of the `count` patches each record hides. Raises BadInput for images or masks that do not fit."""
    if tuple(image.shape[1:]) != shape:
        got, expected = f"images of shape {tuple(image.shape[1:])}", f"shape {shape}"
        raise BadInput("masked autoencoder", got=got, expected=expected)
    if tuple(mask.shape) != (len(image), count):
        got, expected = f"a mask of shape {tuple(mask.shape)}", f"({len(image)}, {count}), a place per patch"
        raise BadInput("masked autoencoder", got=got, expected=expected)
    hidden = sorted(set(mask.sum(1).tolist()))
    if len(hidden) != 1:
        got = f"records that hide {', '.join(map(str, hidden))} patches" if hidden else "no record"
        raise BadInput("masked autoencoder", got=got, expected="the same number for every record")
    if hidden[0] in (0, count):
        got = f"{hidden[0]} of {count} patches hidden"
        raise BadInput("masked autoencoder", got=got, expected="at least one hidden and one visible")
    return int(hidden[0])


class Embedding(nn.Module):
    """The visible ones of (n, patches, values) as tokens with their places, (n, visible, width)."""

    position: Tensor

    def __init__(self, values: int, position: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(values, position.shape[1])
        self.register_buffer("position", position, persistent=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        # Hidden patches are dropped before any arithmetic: even one that is not a number leaves no trace, nor in a gradient.
        tokens: Tensor = self.linear(visible(x, mask)) + visible(self.position.expand(len(x), -1, -1), mask)
        return tokens


class Fill(nn.Module):
    """Latent tokens (n, visible, width) in the decoder's width and in their places, (n, patches, decoder width); the learned
    mask token in the hidden places."""

    position: Tensor

    def __init__(self, before: int, position: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(before, position.shape[1])
        self.token = nn.Parameter(torch.empty(position.shape[1]).normal_(std=0.02))
        self.register_buffer("position", position, persistent=False)

    def forward(self, latent: Tensor, mask: Tensor) -> Tensor:
        tokens = self.token.expand(*mask.shape, -1).clone()
        tokens[~mask] = self.linear(latent).flatten(0, 1)
        return tokens + self.position


class Block(nn.Module):
    """A pre-norm transformer block, (n, tokens, width) → the same: attention, then a GELU layer of `ratio` times the width."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.inputs = nn.Linear(width, 3 * width)
        self.outputs = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.inputs(self.norm(x)).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)  # (n, heads, tokens, width / heads)
        x = x + self.outputs(attended.transpose(1, 2).flatten(2))
        y: Tensor = x + self.mlp(x)
        return y


def transformer(width: int, depth: int, heads: int, ratio: int) -> nn.Sequential:
    """`depth` blocks, the last with the final norm."""
    *first, last = (Block(width, heads, ratio) for _ in range(depth))
    return nn.Sequential(*first, nn.Sequential(last, nn.LayerNorm(width)))


def initialise(module: nn.Module) -> None:
    """The paper's appendix A.1: linear layers uniform after Xavier, no bias."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def position_embedding(rows: int, columns: int, width: int) -> Float[Tensor, "patches d"]:
    """Sines and cosines of the row in the first half of the width, of the column in the second."""
    frequencies = 10000.0 ** -(torch.arange(width // 4) / (width // 4))
    row, column = torch.arange(rows).repeat_interleave(columns), torch.arange(columns).repeat(rows)
    angles = [place[:, None] * frequencies for place in (row, column)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], 1)


def visible(x: Tensor, mask: Tensor) -> Tensor:
    """Those of (n, patches, d) that are not hidden, (n, visible, d)."""
    return x[~mask].view(len(x), -1, x.shape[2])


def patches(image: Float[Tensor, "n c h w"], patch: int) -> Float[Tensor, "n patches values"]:
    """The image in pieces, row by row: (n, patches, c·patch²)."""
    rows, columns = grid(tuple(image.shape[1:]), patch)
    pieces = image.reshape(*image.shape[:2], rows, patch, columns, patch)
    return pieces.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def assembled(
    patches: Float[Tensor, "n patches values"], shape: tuple[int, int, int], patch: int
) -> Float[Tensor, "n c h w"]:
    """Images of this shape out of their pieces, what `patches` takes apart."""
    rows, columns = grid(shape, patch)
    if tuple(patches.shape[1:]) != (rows * columns, shape[0] * patch**2):
        expected = f"({rows * columns}, {shape[0] * patch**2}) per record, for {shape}"
        raise BadInput("patches", got=f"shape {tuple(patches.shape[1:])}", expected=expected)
    pieces = patches.reshape(len(patches), rows, columns, shape[0], patch, patch)
    return pieces.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
