"""Commands that compute: audit, train, unlearn."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palimpsest.cli import words
from palimpsest.errors import BadInput, UnknownName

if TYPE_CHECKING:
    from palimpsest.record import Record


def audit(
    data: words.Data = None,
    limit: words.Limit = None,
    model: words.Model = None,
    forget: words.Forget = None,
    separate: Annotated[
        bool,
        typer.Option("--separate", help="Each request is of the original alone; their findings are taken together."),
    ] = False,
    detected: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE", help="Share of what an attack handed in that is found, and forgotten (default: 1)."
        ),
    ] = None,
    unlearn: Annotated[str | None, typer.Option(metavar="A,B", help="Unlearning methods, or all.")] = None,
    attack: Annotated[str | None, typer.Option(metavar="A,B", help="Attacks.")] = None,
    verify: Annotated[
        str | None, typer.Option(metavar="A,B", help="Verifiers (default: all), beside accuracy.")
    ] = None,
    defend: Annotated[str | None, typer.Option(metavar="A,B", help="Defences, each tried on every method.")] = None,
    search: words.Search = None,
    seeds: Annotated[str | None, typer.Option(metavar="N", help="Seeds of everything random (default 3).")] = None,
    controls: Annotated[str | None, typer.Option(metavar="N", help="Retrained controls a seed (default 2).")] = None,
    learner: words.Learner = None,
    recipe: words.Recipe = None,
    settings: words.SettingsFile = None,
    sets: words.Set = None,
    original: Annotated[
        str | None, typer.Option(metavar="FILE", help="Audit given weights: those before unlearning.")
    ] = None,
    unlearned: Annotated[
        list[str] | None, typer.Option(metavar="[NAME=]FILE", help="Weights after unlearning; repeatable.")
    ] = None,
    retrained: Annotated[
        str | None, typer.Option(metavar="FILE", help="Weights trained without the forgotten records.")
    ] = None,
    train_ids: words.TrainIds = None,
    retrain_control: Annotated[
        bool, typer.Option("--retrain-control", help="Train the missing retrained control, with the default recipe.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where record and report go (default: out/DATA).")
    ] = None,
    store: words.StoreFolder = words.STORE,
    device: words.Device = "cpu",
    threads: words.Threads = None,
    workers: words.Workers = 1,
    backend: words.Backend = "processes",
    redact: Annotated[bool, typer.Option("--redact", help="Keep records' contents out of store and report.")] = False,
    require: Annotated[
        str | None, typer.Option(metavar="forgotten", help="Exit 3 where any verdict is another.")
    ] = None,
) -> None:
    """Train, forget, unlearn, attack and verify against controls; write a record and a report.

    Without data and settings it runs the embedded default, the preset "digits". With --original and --unlearned it audits
    weights that were trained and unlearned elsewhere.
    """
    from palimpsest.data.memory_map import unkept
    from palimpsest.options import dataset, imported_weights, make_plan, ranges, reader
    from palimpsest.pipeline import audit as run
    from palimpsest.store import Store
    from palimpsest.workers import Workers

    crew = Workers(workers, backend)
    if require not in (None, "forgotten"):
        raise UnknownName("--require", got=str(require), known=["forgotten"])
    given = {
        "data": data, "limit": limit, "model": model, "learner": learner, "recipe": recipe, "forget": forget,
        "separate": separate or None, "detected": detected, "unlearn": unlearn, "attack": attack, "verify": verify,
        "defend": defend, "search": ranges(search or []) or None, "seeds": seeds, "controls": controls, "threads": threads,
    }  # fmt: skip
    imported = None
    if original or unlearned or retrained or train_ids or retrain_control:
        if not original:
            raise BadInput("--original", got="nothing", expected="weights before unlearning", do="pass --original FILE")
        imported = imported_weights(original, unlearned or [], retrained, train_ids, retrain_control or bool(recipe))
    chosen, asked = words.choose(given, settings, sets, preset=None if imported else "digits")
    data_set = dataset(chosen)
    read = cache(lambda: unkept(data_set, data_set.load())) if redact else reader(chosen)
    plan = make_plan(chosen, read, asked=asked, imported=imported, device=device)
    split = read()
    if imported and imported.retrained is None:
        words.say(_missing_control(imported.retrain, plan.controls))
    folder = out or Path("out") / Path(split.name).name
    with words.progress():
        record = run(
            plan,
            Store(store, redact),
            folder,
            split=split,
            command=words.session.get().command,
            say=words.say,
            workers=crew,
        )
    _show(record, folder, words.session.get().verbose)
    if require and any(row.verdict != require for row in record.verdicts):
        raise typer.Exit(3)


def _missing_control(retrain: bool, controls: int) -> str:
    if retrain:
        return (
            f"No retrained weights were given: {controls} controls are trained here, as good as the recipe fits yours."
        )
    return (
        "No retrained weights were given: records never trained on stand in for them, a weaker control; "
        "verdicts that need a retrained one are inconclusive. Pass --retrained, or --recipe to train one."
    )


def _show(record: Record, folder: Path, verbose: bool) -> None:
    from palimpsest.cli import present

    console = present.console()
    console.print()
    console.print(present.verdicts(record, verbose))
    console.print()
    if (leaks := present.leaks(record)) is not None:
        console.print(leaks)
        console.print()
    for line in present.warnings(record.warnings, verbose):
        console.print(line, style="yellow", soft_wrap=True)
    console.print(f"record  {folder / 'record.json'}", soft_wrap=True)
    console.print(f"report  {folder / 'report.html'}", soft_wrap=True)


def train(
    out: words.WeightsOut,
    data: words.Data = None,
    limit: words.Limit = None,
    model: words.Model = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="SELECTION", help="Records to leave out, as for --forget; repeatable.")
    ] = None,
    learner: words.Learner = None,
    recipe: words.Recipe = None,
    settings: words.SettingsFile = None,
    sets: words.Set = None,
    seed: words.Seed = 0,
    store: words.StoreFolder = words.STORE,
    device: words.Device = "cpu",
    threads: words.Threads = None,
    workers: words.Workers = 1,
    backend: words.Backend = "processes",
) -> None:
    """Train one model and write its weights: an audit's original, or with --exclude its retrained control."""
    from palimpsest import steps
    from palimpsest.options import parts, reader, usable_device
    from palimpsest.rng import determinism
    from palimpsest.store import Store
    from palimpsest.workers import Workers, at_work

    crew = Workers(workers, backend)
    given = {"data": data, "limit": limit, "model": model, "learner": learner, "recipe": recipe, "threads": threads}
    chosen, asked = words.choose(given, settings, sets, preset="digits")
    steps.check_target(out)
    read = reader(chosen)
    made = parts(chosen, read, asked)
    with words.progress(), determinism(crew.threads(chosen.threads)), at_work(crew):
        trained = steps.train(
            made, read(), Store(store), out, exclude=exclude or (), seed=seed, device=usable_device(device)
        )
    words.say(f"trained on {len(trained.ids)} records of {read().name}: {out}")


def unlearn(
    out: words.WeightsOut,
    weights: Annotated[str, typer.Option(metavar="FILE", help="Weights to unlearn from.")],
    method: Annotated[str, typer.Option("--with", metavar="NAME", help="Unlearning method.")],
    data: words.Data = None,
    limit: words.Limit = None,
    model: words.Model = None,
    forget: words.Forget = None,
    train_ids: words.TrainIds = None,
    learner: words.Learner = None,
    recipe: words.Recipe = None,
    settings: words.SettingsFile = None,
    sets: words.Set = None,
    seed: words.Seed = 0,
    device: words.Device = "cpu",
    threads: words.Threads = None,
) -> None:
    """Take records out of given weights with one method, and write what comes out."""
    from palimpsest import steps
    from palimpsest.forget.selection import read_ids
    from palimpsest.options import parts, reader, usable_device
    from palimpsest.rng import determinism

    given = {"data": data, "limit": limit, "model": model, "learner": learner, "recipe": recipe, "forget": forget,
             "unlearn": method, "threads": threads}  # fmt: skip
    chosen, asked = words.choose(given, settings, sets, preset="digits")
    steps.check_target(out)
    ids = None if train_ids is None else read_ids(Path(train_ids))
    read = reader(chosen)
    made = parts(chosen, read, asked)
    if not chosen.forget or len(made.unlearners) != 1:
        got = f"{len(made.unlearners)} methods and {len(chosen.forget or ())} selections"
        raise BadInput("unlearn", got=got, expected="--with one method, and something to --forget")
    with words.progress(), determinism(chosen.threads):
        trained = steps.unlearn(
            made, read(), Path(weights), chosen.forget or (), out,
            train_ids=ids, recipe_known=bool(chosen.recipe or "recipe" in asked), seed=seed,
            device=usable_device(device),
        )  # fmt: skip
    spent = trained.cost
    words.say(
        f"{spent.seconds:.1f} s, {spent.gradient_evaluations:,} gradient evaluations, {len(trained.ids)} records left: {out}"
    )


def tune(
    data: words.Data = None,
    limit: words.Limit = None,
    model: words.Model = None,
    forget: words.Forget = None,
    unlearn: Annotated[str | None, typer.Option(metavar="A,B", help="Unlearning methods, or all.")] = None,
    trials: Annotated[int, typer.Option(metavar="N", help="Settings tried of each method.")] = 20,
    tuning_seeds: Annotated[int, typer.Option(metavar="N", help="Seeds that each setting is tried on.")] = 2,
    seeds: Annotated[
        str | None, typer.Option(metavar="N", help="Seeds that the audit will report, kept apart (default 3).")
    ] = None,
    share: Annotated[float, typer.Option(help="Most that one run may cost, as a share of training.")] = 0.2,
    learner: words.Learner = None,
    recipe: words.Recipe = None,
    settings: words.SettingsFile = None,
    sets: words.Set = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Settings file to write.")] = Path("tuned.json"),
    store: words.StoreFolder = words.STORE,
    device: words.Device = "cpu",
    threads: words.Threads = None,
    workers: words.Workers = 1,
    backend: words.Backend = "processes",
) -> None:
    """Search settings for every method under one budget, on seeds, forget sets and records that no audit reports; write them as
    a file for `palimpsest audit --settings`."""
    from palimpsest import tuning
    from palimpsest.options import make_plan, reader
    from palimpsest.store import Store
    from palimpsest.workers import Workers

    crew = Workers(workers, backend)
    if out.suffix != ".json" or out.is_dir():
        raise BadInput("--out", got=str(out), expected="a file name that ends in .json")
    given = {"data": data, "limit": limit, "model": model, "learner": learner, "recipe": recipe, "forget": forget,
             "unlearn": unlearn, "seeds": seeds, "threads": threads}  # fmt: skip
    chosen, asked = words.choose(given, settings, sets, preset="digits")
    read = reader(chosen)
    plan = make_plan(chosen, read, asked=asked, device=device)
    with words.progress():
        found = tuning.tune(
            plan,
            Store(store),
            trials=trials,
            seeds=tuning_seeds,
            share=share,
            split=read(),
            say=words.say,
            workers=crew,
        )
    tuning.write(out, chosen, plan, found, seeds=tuning_seeds, share=share)
    words.say(f"settings  {out}; next: palimpsest audit --settings {out}")
