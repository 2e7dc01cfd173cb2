"""How the image's interpreter is told to compile trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from runner.environment.layout import EPOCH, PREFIX, Interpreter

Compile = Callable[[Sequence[Path]], None]
"""Runs `compile_command` on new trees, which are all folders of one parent. Raises `ReplayError` when it fails."""

COMPILE_ENV = {
    "PYTHONHASHSEED": "0",
    "PYTHONHOME": "",
    "PYTHONPATH": "",
    "PYTHONNODEBUGRANGES": "",
}
"""What the environment of that command must hold, over what the image sets: byte code depends on it."""


def compile_command(interpreter: Interpreter, trees: Sequence[str]) -> tuple[str, ...]:
    """The command that compiles `trees`, named as they are mounted (writable) in the container."""
    script = Path(__file__).with_name("compile_in_image.py").read_text()
    return (interpreter.executable, "-s", "-S", "-B", "-c", script, PREFIX, str(EPOCH), *trees)
