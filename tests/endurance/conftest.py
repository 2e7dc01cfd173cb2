"""The workspaces of the engine's tests serve here, too."""

from __future__ import annotations

from tests.engine.conftest import packaged, python_template, recorded, recorded_template

__all__ = ["packaged", "python_template", "recorded", "recorded_template"]
