"""Replay of a window of time as a Dagster run, started by the command or in the UI.

The run lists the sources and says which documents are to be fetched again. Who fetches them is
what fetches any other: the command's own next runs, or the sensor `process_changed_documents`.
"""

import dagster as dg
from pydantic import Field

from ragassets.core.periods import parse_window
from ragassets.defs.assets.source_objects import NAME as SOURCE_OBJECTS
from ragassets.defs.assets.source_objects import observe
from ragassets.defs.assets.stage_asset import RETRY_POLICY
from ragassets.defs.failures import failing_once
from ragassets.defs.resources import WorkspaceResource, now

REPLAY_WINDOW = "replay_window"
STEP = "mark_documents_for_replay"
"""The one step of the job: Dagster wants another name for it."""


class ReplayRequest(dg.Config):
    """Which documents are fetched again."""

    since: str = Field(
        description="Where the window begins: 12h, 7d, 4w before now, or a date or time such as"
        " 2026-11-01 (UTC where it names no zone). 2026-11-01..2026-11-07 names both ends."
    )
    until: str = Field(
        default="", description="Where it ends; a date with the whole day. Empty for now."
    )
    sources: list[str] = Field(default_factory=list, description="Empty for all sources.")
    confirm_deletions: list[str] = Field(
        default_factory=list,
        description="Sources that really lost as many documents as their listing says.",
    )


@dg.op(
    name=STEP,
    description="Lists the sources, and has the documents of a window of time fetched again.",
    retry_policy=RETRY_POLICY,
)
def mark_documents_for_replay(
    context: dg.OpExecutionContext,
    config: ReplayRequest,
    workspace: dg.ResourceParam[WorkspaceResource],
) -> None:
    """List, then doubt."""
    from ragassets.stages.replay import mark_for_replay

    opened = workspace.workspace
    with failing_once(context):
        window = parse_window(config.since, now(), until=config.until)
        names = list(config.sources) or list(opened.config.sources)
        for name in names:
            opened.config.source(name)
        observe(context, opened, names, confirmed=config.confirm_deletions)
        n_documents = mark_for_replay(opened, names, window)
    context.log.info("%s documents of %s are fetched again", n_documents, window)
    context.add_output_metadata({"n_documents": n_documents, "window": str(window)})


@dg.job(  # pyright: ignore[reportUnknownMemberType] - an untyped PathLike
    name=REPLAY_WINDOW,
    description="Fetch the documents of a window of time again, from the sources that the run"
    " config names. What is as before costs nothing more. Lists the sources first"
    f" (`{SOURCE_OBJECTS}`); the sensors carry on with what it found.",
    executor_def=dg.in_process_executor,
)
def replay_window() -> None:
    """The one step."""
    mark_documents_for_replay()


def run_config(request: ReplayRequest) -> dict[str, object]:
    """What the job is started with."""
    return {"ops": {STEP: {"config": request.model_dump()}}}
