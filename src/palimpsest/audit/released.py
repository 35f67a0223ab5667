"""Behind a release: the same models as before, each served through it, to an attacker who knows of it and to one who does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from palimpsest.audit.failures import FAILURES
from palimpsest.audit.plan import Plan
from palimpsest.audit.stage import Home, Stage, stages
from palimpsest.audit.workshop import Made, Workshop
from palimpsest.catalog import name_of, settings_of
from palimpsest.defend.base import ModelRelease, OutputRelease
from palimpsest.errors import PalimpsestError, StoreError
from palimpsest.rng import Rng
from palimpsest.types import Split

UNKNOWN = " (unknown)"


def every_stage(plan: Plan, home: Home, split: Split, shop: Workshop, seed: int) -> Iterator[Stage]:
    """The stages of one seed and home, each followed by the same behind every release of the plan."""
    for stage in stages(plan, home, split, shop, seed):
        yield stage
        for release in plan.releases:
            yield from _behind(release, stage, shop, any(attack.threat.sees == "weights" for attack in plan.attacks))


def _behind(release: ModelRelease, stage: Stage, shop: Workshop, weights: bool) -> Iterator[Stage]:
    """Two stages: the attacker knows the release, as nothing else counts as safe; and where attacks read weights, does not."""
    name, shop = name_of(release), replace(shop, fingerprint=stage.split.fingerprint)
    stream = Rng(stage.seed).child("release", name, stage.turn)
    retain = shop.task.remove(stage.split.train, stage.forgotten)

    def served(made: Made) -> Made:
        return shop.release(release, made, retain, stream)

    unknowns = (False, True) if weights and not isinstance(release, OutputRelease) else (False,)
    try:
        original, controls = served(stage.original), tuple(served(control) for control in stage.controls)
    except StoreError:
        raise
    except FAILURES as error:  # recorded with every method, and the rest of the audit goes on
        lost = dict.fromkeys(stage.unlearned, PalimpsestError(f"{name} could not be made: {error}"))
        yield from (_stage(stage, release, (), lost, unknown) for unknown in unknowns)
        return
    models: dict[str, Made | Exception] = {}
    for label, made in stage.unlearned.items():
        try:
            models[label] = made if isinstance(made, Exception) else served(made)
        except StoreError:
            raise
        except FAILURES as error:
            models[label] = error
    pairs = [(original, stage.original), *zip(controls, stage.controls, strict=True)]
    pairs += [
        (new, old)
        for new, old in zip(models.values(), stage.unlearned.values(), strict=True)
        if isinstance(new, Made) and isinstance(old, Made)
    ]
    for unknown in unknowns:
        made_so = _stage(stage, release, controls, models, unknown)
        yield replace(made_so, served=original, behind={new.key: old for new, old in pairs} if unknown else {})


def _stage(
    stage: Stage,
    release: ModelRelease,
    controls: tuple[Made, ...],
    models: Mapping[str, Made | Exception],
    unknown: bool,
) -> Stage:
    """The stage with these models, under labels that say what they are served through."""
    name = name_of(release)
    ending = f"+{name}" + UNKNOWN * unknown
    methods = {label + ending: unlearner for label, unlearner in stage.home.methods.items()}
    return replace(
        stage,
        controls=controls,
        unlearned={label + ending: made for label, made in models.items()},
        home=Home(stage.home.told + ending, stage.home.learner, stage.home.recipe, methods, release, unknown),
        settings={label + ending: {**own, name: settings_of(release)} for label, own in stage.settings.items()},
    )
