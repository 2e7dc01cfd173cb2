"""The script that the image's interpreter runs to compile trees. Standard library only, Python 3.8 or later.

    python -s -S -B -c <this text> <prefix> <mtime> <tree> ...

Each tree is compiled by a process of its own, forked before anything was compiled: what `marshal` writes
depends on which strings the process holds already, so only then are a tree's bytes independent of the
trees that happen to be compiled beside it. Source that does not compile (test data for other versions)
is left without byte code; so are packages' own tests, which no job imports and which are half of what there is.
"""

from __future__ import annotations

import gc
import os
import py_compile
import sys
import warnings
from pathlib import Path


def byte_code_path(source: Path) -> Path:
    return source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"


def compile_source(source: Path, final: Path, mtime: int) -> None:
    target = byte_code_path(source)
    try:
        py_compile.compile(
            str(source),
            cfile=str(target),
            dfile=str(final),
            doraise=True,
            optimize=0,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
    except py_compile.PyCompileError:
        return
    target.chmod(0o644)
    os.utime(target, (mtime, mtime))


def compile_tree(tree: Path, prefix: Path, mtime: int) -> None:
    root = tree / "root"
    for source in sorted((root / "lib").rglob("*.py")):
        if source.is_file() and "tests" not in source.relative_to(root).parts:
            compile_source(source, prefix / source.relative_to(root), mtime)


def compile_in_child(tree: Path, prefix: Path, mtime: int) -> None:
    if os.fork():
        return
    status = 1
    try:
        compile_tree(tree, prefix, mtime)
        status = 0
    except OSError as error:
        print(f"{tree.name}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def child_succeeded() -> bool:
    return os.wait()[1] == 0


def compile_all(trees: list[Path], prefix: Path, mtime: int) -> bool:
    at_once = len(os.sched_getaffinity(0))
    results = []
    for started, tree in enumerate(trees):
        if started >= at_once:
            results.append(child_succeeded())
        compile_in_child(tree, prefix, mtime)
    results += [child_succeeded() for _ in range(len(trees) - len(results))]
    return all(results)


def main(prefix: str, mtime: str, *trees: str) -> int:
    if sys.flags.hash_randomization:
        print("PYTHONHASHSEED must be 0: byte code that holds a set depends on it", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")
    gc.disable()  # what compiling leaves behind is freed without it
    return 0 if compile_all([Path(tree) for tree in trees], Path(prefix), int(mtime)) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
