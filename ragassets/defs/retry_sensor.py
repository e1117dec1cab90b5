"""Asks for the documents of a shard again when a failure that may pass is due.

From `chunks` on the conditions of the assets ask (`defs/automation.py`); the stages before run in
one job, and this sensor starts it.
"""

import dagster as dg

from ragassets.defs import jobs
from ragassets.defs.automation import is_command_at_work
from ragassets.defs.resources import WorkspaceResource, now
from ragassets.defs.source_sensors import MAX_RUNS_PER_TICK, RUN_TAGS

RETRY_SENSOR = "retry_failed_documents"

RETRY_SECONDS = 60
"""The shortest delay is five minutes."""


def build_retry_sensor() -> dg.SensorDefinition:
    """The sensor, running by default."""

    @dg.sensor(  # pyright: ignore[reportUnknownMemberType] - an untyped PathLike
        name=RETRY_SENSOR,
        job_name=jobs.PROCESS_DOCUMENTS,
        minimum_interval_seconds=RETRY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks again for shards with documents that failed for a passing reason, after"
        " 5, 20, 80 and 320 minutes; then they are dead letters until somebody redrives them.",
    )
    def retry_failed_documents(
        context: dg.SensorEvaluationContext, workspace: dg.ResourceParam[WorkspaceResource]
    ) -> dg.SensorResult:
        from ragassets.core.asset_tables import STAGES
        from ragassets.stages.due_retries import due_retries

        if is_command_at_work(context.instance, now()):
            return dg.SensorResult(skip_reason="a command is at work")
        opened = workspace.workspace
        shards = set(opened.config.source_shards())
        in_job = jobs.PHASES[jobs.PROCESS_DOCUMENTS].assets
        due = {
            shard: moment
            for stage in STAGES
            if stage.name in in_job
            for shard, moment in due_retries(opened, stage, now()).items()
            if shard in shards
        }
        asked = sorted(due, key=lambda shard: (due[shard], shard))[:MAX_RUNS_PER_TICK]
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    partition_key=shard,
                    # One failure asks once: a run that dies changes neither row nor key.
                    run_key=f"retry {shard} {due[shard].isoformat()}",
                    tags=RUN_TAGS,
                )
                for shard in asked
            ],
            skip_reason=None if asked else "nothing is due",
        )

    return retry_failed_documents
