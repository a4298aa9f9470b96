"""`create`, `get`, `list`, `wait`: single tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import click

from kling_async.cli.environment import Connection, connects, writable_folder
from kling_async.cli.intake import takes_pictures
from kling_async.cli.report import show_task, show_tasks, task_fields
from kling_async.cli.voice import Voice, exit_code, finish, speaks
from kling_async.errors import InvalidJob, KlingError
from kling_async.protocol.jobs import ASPECT_RATIOS, DEFAULT_MODEL, MOST_IMAGES, MultiImage
from kling_async.protocol.naming import TEMPLATE, file_stem
from kling_async.protocol.pictures import PictureRules
from kling_async.protocol.rows import job_from_row
from kling_async.protocol.tasks import ResultImage

__all__ = ["create_command", "get_command", "list_command", "wait_command"]

_JOB_OPTIONS = (
    click.option(
        "-s",
        "--subject",
        "subject_images",
        multiple=True,
        metavar="PICTURE",
        help="Path or URL; 1 to 4 times.",
    ),
    click.option("--scene", "scene_image", metavar="PICTURE", help="Picture of the scene."),
    click.option("--style", "style_image", metavar="PICTURE", help="Picture of the style."),
    click.option("-p", "--prompt", help="What to make of them, up to 2500 characters."),
    click.option("--negative-prompt", help="What to keep out."),
    click.option("-n", type=click.IntRange(1, MOST_IMAGES), help="How many images.  [default: 1]"),
    click.option("--aspect-ratio", type=click.Choice(ASPECT_RATIOS), help="Width to height."),
    click.option("--model", "model_name", help=f"Model.  [default: {DEFAULT_MODEL}]"),
    click.option("--watermark/--no-watermark", default=None, help="Ask for watermarked copies as well."),
    click.option("--callback-url", help="Where the service reports the end."),
    click.option(
        "--external-id", "external_task_id", help="Your own id for the task, unique for the account."
    ),
    click.option("--extra", metavar="JSON", help="Further fields of the request, as a JSON object."),
)


def _takes_a_job(command: Any) -> Any:
    for option in reversed(_JOB_OPTIONS):
        command = option(command)
    return command


@click.command(
    name="create",
    epilog="""\b
Examples:
  kling-async create -s dress.png --scene meadow.jpg -p "A red dress on the grassland" --dry-run
  kling-async create -s robot.png -n 2 -o out --name robot
""",
)
@_takes_a_job
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Wait for the end and save the pictures here."
)
@click.option(
    "--name", help="With -o: what the pictures are called, before _0, _1, …  [default: the external id]"
)
@click.option("--wait", is_flag=True, help="Wait for the end.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=1800.0,
    show_default=True,
    help="Seconds to wait.",
)
@click.option("--dry-run", is_flag=True, help="Show the request, pictures elided; no key, nothing sent.")
@takes_pictures
@speaks
@connects
def create_command(
    *, connection: Connection, voice: Voice, dry_run: bool, extra: str | None, **options: Any
) -> None:
    """Create one task and print its id; with --wait or -o, wait for its end and show it."""
    waits = {name: options.pop(name) for name in ("out", "name", "wait", "timeout")}
    rules = PictureRules(fit=options.pop("fit"), verify=options.pop("verify"))
    row = {name: value for name, value in options.items() if value is not None} | _extra(extra)
    job = job_from_row(row | {"subject_images": list(row["subject_images"])}, None)
    if dry_run:
        from kling_async.cli.dryrun import show_request

        anyio.run(show_request, job, connection, voice, rules)
    else:
        finish(anyio.run(_create, job, connection, voice, rules, waits))


def _extra(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        return {"extra": json.loads(text)}
    except ValueError as error:
        raise InvalidJob.because(
            "extra", "a JSON object", str(error), 'write it as {"name": value}'
        ) from None


async def _create(
    job: MultiImage, connection: Connection, voice: Voice, rules: PictureRules, waits: dict[str, Any]
) -> int:
    name = waits["name"]
    if name is not None and (waits["out"] is None or not name.strip()):
        raise click.UsageError("--name: expected a name that is not empty, and -o FOLDER; found one of them")
    out = writable_folder(waits["out"]) if waits["out"] else None
    if out is not None and name is not None:
        _refuse_taken(out, name, job.n)
    async with connection.open() as kling:
        images = kling.with_options(fit=rules.fit, verify=rules.verify).images
        handle = await images.multi_image.create(job)
        for each in handle.fitted:
            voice.say(f"made to fit: {each}")
        voice.say(f"created {handle.task_id}, external id {handle.external_task_id}")
        if out is None and not waits["wait"]:
            if voice.json:
                voice.emit({"task_id": handle.task_id, "external_task_id": handle.external_task_id})
            else:
                voice.data(handle.task_id)
            return 0
        task = await handle.wait(waits["timeout"])
        files = [await image.save(out, name=_called(name, image)) for image in task.images] if out else []
        show_task(task, voice, files)
    return 0


def _called(name: str | None, image: ResultImage) -> str | None:
    # The ending is that of the content, whatever stands here.
    return None if name is None else f"{name}_{image.index}.png"


def _refuse_taken(out: Path, name: str, count: int) -> None:
    """Raise UsageError, before anything is paid for, if a picture in *out* is called as one that is to come."""
    stems = {file_stem(TEMPLATE, name, index) for index in range(count)}
    taken = next((each.name for each in out.iterdir() if each.stem in stems), None)
    if taken is not None:
        raise click.UsageError(f"--name: expected one that is free in {out}, found {taken}; choose another")


@click.command(
    name="get", epilog="\b\nExample:\n  kling-async get 833446756123456789 --json | jq -r '.images[].url'"
)
@click.argument("task_id", metavar="ID")
@speaks
@connects
def get_command(*, task_id: str, connection: Connection, voice: Voice) -> None:
    """Show the task with ID: the service's id, or your own external id."""

    async def get() -> None:
        async with connection.open() as kling:
            show_task(await kling.images.multi_image.retrieve(task_id), voice)

    anyio.run(get)


@click.command(
    name="list", epilog="\b\nExamples:\n  kling-async list --page-size 100\n  kling-async list --all --json"
)
@click.option("--page", type=click.IntRange(1, 1000), default=1, show_default=True, help="Which page.")
@click.option(
    "--page-size", type=click.IntRange(1, 500), default=30, show_default=True, help="Tasks on a page."
)
@click.option("--all", "everything", is_flag=True, help="All tasks; one JSON object a line with --json.")
@speaks
@connects
def list_command(
    *, page: int, page_size: int, everything: bool, connection: Connection, voice: Voice
) -> None:
    """List the account's tasks: id, status, units, time, external id; in the service's order."""

    async def one_page() -> None:
        async with connection.open() as kling:
            tasks = await kling.images.multi_image.list(page=page, page_size=page_size)
        if voice.json:
            voice.emit([task_fields(task) for task in tasks])
        else:
            show_tasks(tasks, voice)

    async def all_pages() -> None:
        async with connection.open() as kling:
            async for task in kling.images.multi_image.iter():
                if voice.json:
                    voice.emit(task_fields(task))
                else:
                    show_tasks([task], voice)

    anyio.run(all_pages if everything else one_page)


@click.command(name="wait", epilog="\b\nExample:\n  kling-async wait 833446756123456789 -o out")
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder to save the pictures in.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=1800.0,
    show_default=True,
    help="Seconds to wait.",
)
@speaks
@connects
def wait_command(
    *, task_ids: tuple[str, ...], out: Path | None, timeout: float, connection: Connection, voice: Voice
) -> None:
    """
    Wait until the tasks have ended and show them; with -o, save their pictures.

    With --json: one object a line, in the order of their ends.
    """
    finish(anyio.run(_wait_all, task_ids, out, timeout, connection, voice))


async def _wait_all(
    task_ids: tuple[str, ...], out: Path | None, timeout: float, connection: Connection, voice: Voice
) -> int:
    folder = writable_folder(out) if out else None
    codes: list[int] = []
    async with connection.open() as kling:

        async def wait_one(task_id: str) -> None:
            try:
                task = await kling.images.multi_image.handle(task_id).wait(timeout)
                files = [await image.save(folder) for image in task.images] if folder else []
            except KlingError as error:
                voice.fail(error, task_id=task_id)
                codes.append(exit_code(error))
            else:
                show_task(task, voice, files)

        async with anyio.create_task_group() as group:
            for task_id in dict.fromkeys(task_ids):
                group.start_soon(wait_one, task_id)
    return max(codes, default=0)
