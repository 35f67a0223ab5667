"""ViTMAE checkpoints: our mask is the one that is hidden, and the answer is the checkpoint's own."""

from __future__ import annotations

import copy
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from palimpsest.attack.residual.uma_generation import UmaGeneration
from palimpsest.audit.plan import Plan
from palimpsest.catalog import identity
from palimpsest.data.digits import Digits
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.base import blocks
from palimpsest.models.vit_mae import IMAGENET, VitMae
from palimpsest.pipeline import audit
from palimpsest.reconstruction import Reconstruction, drawn_masks, pixel_mask
from palimpsest.rng import Rng
from palimpsest.store import Store
from palimpsest.threat import same_weights
from palimpsest.types import Examples, Split
from palimpsest.unlearn.image_to_image import ImageToImage, encoder
from palimpsest.unlearn.retrain import Retrain
from palimpsest.verify.reconstruction import Reconstruction as Verified
from tests.models.checkpoints import transformers

COLOUR = {"num_channels": 3, "image_size": 16, "patch_size": 4}
SHAPE, COUNT = (3, 16, 16), 16
Made = Callable[..., Path]


@pytest.fixture(scope="module")
def pictures() -> Split:
    """48 images of 3×16×16, of three kinds: stripes that hidden patches can be told from."""
    draw = np.random.default_rng(0)
    kinds = np.arange(48) % 3
    waves = np.sin(np.arange(16) * (kinds[:, None] + 1) * 0.5 + draw.random((48, 1)) * 6)
    pixels = 120 + 80 * waves[:, None, None, :] + draw.normal(0, 8, (48, 3, 16, 16))
    images = torch.from_numpy(pixels.clip(0, 255).astype(np.uint8))
    whole = Examples.of({"image": images}, torch.from_numpy(kinds), [f"stripes/{row}" for row in range(48)])
    train, validation, test = (whole.take(list(range(*ends))) for ends in ((0, 30), (30, 36), (36, 48)))
    base = Digits(limit=30).load()
    return replace(
        base, name="stripes", classes=("a", "b", "c"), train=train, validation=validation, test=test, fingerprint="s"
    )


def images(n: int = 5) -> Tensor:
    return torch.rand(n, *SHAPE, generator=Rng(1).torch())


def masks(n: int = 5, hidden: int = 8) -> Tensor:
    return torch.from_numpy(drawn_masks(np.array([f"record {i}" for i in range(n)]), COUNT, hidden))


def built(folder: Path, hidden: float = 0.5) -> nn.Module:
    task = Reconstruction(SHAPE, 4, hidden, (0.5,) * 3, (0.25,) * 3, (torch.zeros(()), torch.ones(())), "image")
    return VitMae(str(folder), hidden).build(task, Rng(0)).eval()


@pytest.mark.parametrize("hidden", [1, 5, 8, 11, 12, 15])
def test_it_answers_as_the_checkpoint_itself_does(made: Made, hidden: int) -> None:
    """The same patches hidden by the model's own means, in another order: its reconstruction is ours."""
    package, folder = transformers(), made(**COLOUR)
    own = package.ViTMAEForPreTraining.from_pretrained(folder, mask_ratio=hidden / COUNT + 1e-6).eval()
    own.config.mask_ratio = (hidden - 0.25) / COUNT
    image, mask, model = images(), masks(hidden=hidden), built(folder)
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in IMAGENET)
    noise = torch.rand(mask.shape, generator=Rng(3).torch()) + mask
    with torch.no_grad():
        theirs = own((image - mean) / std, noise=noise)
        assert torch.equal(theirs.mask.bool(), mask)
        torch.testing.assert_close(model(image, mask), own.unpatchify(theirs.logits) * std + mean, rtol=1e-4, atol=1e-5)
        latent = own.vit((image - mean) / std, noise=noise).last_hidden_state
    ours = model.encode(image, mask)  # type: ignore[operator]
    assert ours.shape == (5, COUNT - hidden + 1, 16)
    into_place = noise.argsort(1)[:, : COUNT - hidden].argsort(1)
    moved = latent[:, 1:].gather(1, into_place[:, :, None].expand(-1, -1, 16))
    torch.testing.assert_close(ours, torch.cat([latent[:, :1], moved], 1), rtol=1e-4, atol=1e-5)


def test_hidden_pixels_have_no_influence(made: Made) -> None:
    """Not even pixels that are no numbers change a bit of the latent tokens, the prediction, or any gradient."""
    model, image, mask = built(made(**COLOUR)), images(), masks()
    hidden = pixel_mask(mask, SHAPE, 4).expand_as(image)
    seen = []
    for given in (image, torch.rand(image.shape), image.masked_fill(hidden, float("nan"))):
        given = torch.where(hidden, given, image).requires_grad_(True)
        predicted = model(given, mask)
        model.zero_grad()
        predicted.square().sum().backward()
        assert given.grad is not None
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert len(gradients) == len(list(model.parameters()))
        seen.append([model.encode(given, mask), predicted, given.grad, *gradients])  # type: ignore[operator]
    for other in seen[1:]:
        assert all(torch.equal(one, two) for one, two in zip(seen[0], other, strict=True))
    assert (seen[0][2][hidden] == 0).all()
    assert (seen[0][2][~hidden] != 0).float().mean() > 0.99  # the visible ones do have influence


def test_the_decoder_is_given_what_encode_tells_and_nothing_else(made: Made) -> None:
    model, image, mask = built(made(**COLOUR)), images(), masks()
    inner = model.network.inner  # type: ignore[union-attr]
    moving = {id(parameter) for parameter in encoder(model, batch_of(image, mask), "image")}
    assert moving == {id(parameter) for parameter in inner.vit.parameters()}
    order = (mask * COUNT + torch.arange(COUNT)).argsort(1).argsort(1)
    with torch.no_grad():
        latent = model.encode(image, mask)  # type: ignore[operator]
        drawn = inner.unpatchify(inner.decoder(latent, order).logits)
        mean, std = (torch.tensor(value).view(-1, 1, 1) for value in IMAGENET)
        torch.testing.assert_close(model(image, mask), drawn * std + mean)


def batch_of(image: Tensor, mask: Tensor) -> Any:
    names = [f"record {i}" for i in range(len(image))]
    return Examples.of({"image": image, "mask": mask}, torch.zeros(len(image), dtype=torch.long), names).batch()


def test_positions_are_no_weights_but_travel_with_them(made: Made) -> None:
    model = built(made(**COLOUR))
    assert all(parameter.requires_grad for parameter in model.parameters())
    tables = [name for name, _ in model.named_buffers() if "pos" in name]
    assert len(tables) == 2
    assert set(tables) < model.state_dict().keys()


def test_blocks_run_in_order_and_hold_every_parameter_once(made: Made) -> None:
    model, seen = built(made(**COLOUR)), []
    parts = blocks(model)
    assert len(parts) == 1 + 2 + 1 + 1
    held = [id(parameter) for part in parts for parameter in part.parameters()]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    for index, part in enumerate(parts):
        part.register_forward_hook(lambda *_, index=index: seen.append(index))
    model(images(), masks())
    assert seen == list(range(5))


def test_unlearning_moves_the_encoder_alone(made: Made, pictures: Split) -> None:
    """One step of I2I on 16×16 images, by way of the task, as an audit takes it."""
    factory = VitMae(str(made(**COLOUR)))
    task = factory.task(pictures)
    assert (task.shape, task.patch, task.count) == (SHAPE, 4, 8)
    train = task.prepare(pictures).train
    recipe = Recipe(epochs=4, batch_size=10, optimizer="adamw", lr=3e-3)
    trained = Plain().fit(task, train, recipe, factory, rng=Rng(0))
    start = factory.build(task, Rng(0)).eval()
    errors = [task.error(model, train.batch()).mean() for model in (start, trained.model)]
    assert errors[1] < 0.7 * errors[0]
    retain, forget = train.take(train.targets != 0), train.take(train.targets == 0)
    after = ImageToImage(lr=1e-3, epochs=1, batch_size=64).unlearn(trained, retain, forget, rng=Rng(1))
    before = trained.model.state_dict()
    for name, value in after.model.state_dict().items():
        if not re.search(r"key\.bias|k_proj\.bias", name):  # these have no influence, and no gradient but rounding
            moves = name.startswith("network.inner.vit.") and "position" not in name
            assert torch.equal(value, before[name]) != moves, name
    assert all(parameter.requires_grad for parameter in after.model.parameters())


def test_an_audit_runs_and_its_untrained_control_is_not_the_checkpoint(made: Made, tmp_path: Path) -> None:
    asked = Plan(
        data=Digits(limit=120),
        model=VitMae(str(made())),
        forget=("class=0",),
        unlearners=(Retrain(), ImageToImage(lr=1e-3, epochs=1)),
        attacks=(UmaGeneration(steps=2, records=6, extractor_width=2, extractor_epochs=1),),
        verifiers=(Verified(records=20),),
        recipe=Recipe(epochs=2, batch_size=32, optimizer="adamw", lr=3e-3),
        seeds=(0,),
        threads=1,
    )
    record = audit(asked, Store(tmp_path / "store", False), tmp_path / "out")
    assert all(cell.status == "ok" for cell in record.cells), [cell.reason for cell in record.cells]
    assert {cell.target for cell in record.cells} == {"original", "retrained", "unlearned", "untrained"}
    assert record.model["path"] == identity(asked.model)["path"]


def test_fresh_weights_are_the_streams_and_not_the_checkpoints(made: Made, digits: Split) -> None:
    factory = VitMae(str(made()))
    task, state = factory.task(digits), torch.random.get_rng_state()
    first, again, other = (factory.untrained(task, Rng(seed)) for seed in (0, 0, 1))
    given, same = (factory.build(task, Rng(seed)) for seed in (0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert same_weights(first, again)
    assert same_weights(given, same)
    assert not same_weights(first, other)
    for name, value in given.state_dict().items():
        fixed = "pos" in name or name in ("mean", "std")
        drawn = "weight" in name and value.dim() > 1
        assert not fixed or torch.equal(value, first.state_dict()[name]), name
        assert not drawn or not torch.equal(value, first.state_dict()[name]), name


def test_a_checkpoint_is_known_by_what_is_in_it(made: Made, tmp_path: Path) -> None:
    first, moved = made(), tmp_path / "moved"
    shutil.copytree(first, moved)
    assert identity(VitMae(str(first))) == identity(VitMae(str(moved)))
    others = [made(seed=1), made(layer_norm_eps=1e-6), made(num_attention_heads=4)]
    scaled = tmp_path / "scaled"
    shutil.copytree(first, scaled)
    (scaled / "preprocessor_config.json").write_text('{"image_mean": [0.4], "image_std": [0.25]}', encoding="utf-8")
    marks = [identity(VitMae(str(folder)))["path"] for folder in (first, *others, scaled)]
    assert len(set(marks)) == 5
    edited = safetensors.torch.load_file(moved / "model.safetensors")
    edited["decoder.mask_token"] += 1
    time.sleep(0.01)
    safetensors.torch.save_file(edited, moved / "model.safetensors", {"format": "pt"})
    assert identity(VitMae(str(moved)))["path"] not in marks
    ratio = tmp_path / "ratio"
    shutil.copytree(first, ratio)
    settings = json.loads((ratio / "config.json").read_text(encoding="utf-8"))
    (ratio / "config.json").write_text(json.dumps({**settings, "mask_ratio": 0.5}), encoding="utf-8")
    assert identity(VitMae(str(ratio)))["path"] == marks[0]  # ours is what counts


def test_half_precision_is_widened(made: Made, tmp_path: Path, digits: Split) -> None:
    folder = tmp_path / "half"
    shutil.copytree(made(), folder)
    state = {name: v.half() for name, v in safetensors.torch.load_file(folder / "model.safetensors").items()}
    safetensors.torch.save_file(state, folder / "model.safetensors", {"format": "pt"})
    factory = VitMae(str(folder))
    assert {v.dtype for v in factory.build(factory.task(digits), Rng(0)).state_dict().values()} == {torch.float32}


def test_the_checkpoint_is_left_as_it_is_and_copies_are_apart(made: Made, digits: Split) -> None:
    factory = VitMae(str(made()))
    before = identity(factory)
    one, two = (factory.build(factory.task(digits), Rng(0)) for _ in range(2))
    three = copy.deepcopy(one)
    with torch.no_grad():
        next(one.parameters()).add_(1)
    assert not same_weights(one, two)
    assert same_weights(two, three)
    assert identity(factory) == before
