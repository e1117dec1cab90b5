"""A process that reads the topics of a project, and may be killed at a moment of its work."""

import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from ragassets.adapters.sources import kafka_topic
from ragassets.adapters.workspace import Workspace
from ragassets.config import load_config
from ragassets.stages.source_objects import discover
from ragassets_tests.scenario import Executioner, watched_effects


def main(arguments: Sequence[str]) -> int:
    """Read, so many messages at a time: `CONFIG MESSAGES MOMENT`."""
    config_file, n_messages, moment = arguments
    kafka_topic.BATCH_MESSAGES = int(n_messages)  # pyright: ignore[reportConstantRedefinition]
    workspace = Workspace(load_config(config_file))
    executioner = Executioner(int(moment), lambda: os.kill(os.getpid(), signal.SIGKILL))
    with watched_effects(executioner):
        discover(workspace, list(workspace.config.sources), now=datetime.now(UTC))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
