"""What shows on standard error while somebody waits."""

import io
import sys

import pytest

from ragassets.cli.progress import waiting


class Screen(io.StringIO):
    """A terminal, as far as anybody can tell."""

    def isatty(self) -> bool:
        """Somebody looks."""
        return True


def test_a_person_who_waits_sees_for_what(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model takes seconds: a silent terminal looks like a hanging one."""
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with waiting("Loading the model ..."):
        pass
    assert "Loading the model ..." in screen.getvalue()


def test_a_log_gets_no_spinner(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with waiting("Loading the model ..."):
        pass
    assert log.getvalue() == ""
