"""A classifier of the same data through whose eyes images are compared: its features and its posteriors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palimpsest.catalog import find, load, make, setting
from palimpsest.errors import BadInput, told
from palimpsest.learn.plain import Plain
from palimpsest.learn.recipe import Recipe
from palimpsest.models.base import Model
from palimpsest.rng import Rng
from palimpsest.task import Classification, evaluating
from palimpsest.types import Examples, Split


@dataclass(frozen=True)
class Extractor:
    """name: a model of the catalog that has `encode`, trained `epochs` times over what `taught` gives, records to be forgotten
    included where none are public: it is the evaluator's. Or `my_module:make` without arguments, whose module is taken as it is:
    images (n, c, h, w) in [0, 1] → logits, and `encode` → features (n, d)."""

    name: str
    width: int
    epochs: int

    @property
    def short(self) -> str:
        """As measures are named after it."""
        return "".join(letter if letter.isalnum() else "_" for letter in self.name)

    @property
    def given(self) -> bool:
        return ":" in self.name

    @property
    def recipe(self) -> Recipe:
        return Recipe(epochs=self.epochs)

    @property
    def rng(self) -> Rng:
        return Rng(0).child("extractor")

    def model(self) -> Model:
        fields = {field.name for field in dataclasses.fields(find("models", self.name))}
        made: Model = make("models", self.name, {"width": self.width} if "width" in fields else {})
        return made

    def module(self) -> nn.Module:
        """The user's own. Raises BadInput where it cannot be had."""
        try:
            module = load(self.name)()
        except BadInput:
            raise
        except Exception as error:  # whatever a stranger's code raises is its failure, and is told
            raise BadInput(self.name, got=told(error), expected="a torch.nn.Module", do="mend it") from error
        if not isinstance(module, nn.Module):
            raise BadInput(self.name, got=type(module).__name__, expected="a torch.nn.Module", do="return the module")
        return module.eval()


@dataclass(frozen=True)
class Eyes:
    """The settings of those that compare images by a classifier's features."""

    extractor: str = setting(
        "resnet18", "classifier by whose features images are compared, or my_module:make", source="ours; Inception, VGG"
    )
    extractor_width: int = setting(16, "width of a classifier that is trained here", source="ours", least=1)
    extractor_epochs: int = setting(10, "passes over the records that it is trained by", source="ours", least=1)

    @property
    def eyes(self) -> Extractor:
        return Extractor(self.extractor, self.extractor_width, self.extractor_epochs)


Extract = Callable[[Extractor, Split], nn.Module]


def taught(split: Split) -> Examples:
    """The records that an extractor learns from, with their first input alone, as a classifier needs no masks: the public ones
    where there are some, which are neither forgotten nor held out, else all training records."""
    examples = split.train if split.public is None else split.public
    name = next(iter(examples.inputs))
    return replace(examples, inputs={name: examples.inputs[name]})


def trained_here(wanted: Extractor, split: Split) -> nn.Module:
    """The extractor of these data, trained when it is asked for."""
    if wanted.given:
        return wanted.module()
    task, train = Classification.of(split), taught(split)
    return Plain().fit(task, train, wanted.recipe, wanted.model(), rng=wanted.rng, device=train.targets.device).model


@torch.no_grad()
def seen(extractor: nn.Module, images: Tensor, name: str, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """Features (n, d) and posteriors (n, k) of images, on the CPU. Raises BadInput, as `name`, for a model without features."""
    encode = getattr(extractor, "encode", None)
    inner = getattr(extractor, "network", extractor)
    if not callable(encode) or not callable(getattr(inner, "encode", None)):
        do = "choose resnet18, or a model of your own that has encode(images)"
        raise BadInput(name, got="a model without `encode`", expected="one that gives features", do=do)
    device = next((parameter.device for parameter in extractor.parameters()), images.device)
    features, posteriors = [], []
    with evaluating(extractor):
        for part in torch.split(images, batch_size):
            features.append(encode(part.to(device)).float().flatten(1).cpu())
            posteriors.append(F.softmax(extractor(part.to(device)).float(), 1).cpu())
    return torch.cat(features), torch.cat(posteriors)
