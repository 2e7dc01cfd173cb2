"""The workspace's own package, importable without being installed: its code stays in the workspace."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec

from runner.environment.files import Generated, launcher, record_file
from runner.environment.layout import FILE, PROGRAM, WORKSPACE, Interpreter
from runner.errors import UsageError
from runner.state.decode import convert
from runner.state.spec import Value

UNKNOWN_VERSION = "0"
"""For a project whose version only its build backend can tell (`dynamic = ["version"]`)."""

_SCRIPT_NAME = re.compile(r"[\w+-][\w.+-]*")
_FUNCTION = re.compile(r"(?P<module>\w+(\.\w+)*)\s*:\s*(?P<attr>\w+(\.\w+)*)")
_POINT_NAME = re.compile(r"[^\s=\[#;][^=\n]*")
_OBJECT = re.compile(r"\w+(\.\w+)*(\s*:\s*\w+(\.\w+)*)?\s*(\[[^\n]*\])?")


class Project(Value, frozen=True):
    """`package_dirs` are relative to the workspace; `entry_points` maps a group's names to their objects."""

    name: str
    version: str = UNKNOWN_VERSION
    package_dirs: tuple[str, ...] = (".",)
    scripts: dict[str, str] = {}
    entry_points: dict[str, dict[str, str]] = {}


class _Table(msgspec.Struct, rename="kebab"):
    """What is read of `[project]`."""

    name: str
    version: str | None = None
    dynamic: list[str] = []
    scripts: dict[str, str] = {}
    gui_scripts: dict[str, str] = {}
    entry_points: dict[str, dict[str, str]] = {}


class _Document(msgspec.Struct):
    project: _Table | None = None


def read_project(pyproject: bytes, has_src: bool) -> Project | None:
    """The package that a `pyproject.toml` describes; None if it has no `[project]` table.

    `has_src`: the workspace has a folder `src`, which then holds the packages.
    """
    import tomllib

    try:
        table = convert(tomllib.loads(pyproject.decode()), _Document).project
        return _project_of(table, ("src",) if has_src else (".",)) if table else None
    except (ValueError, RecursionError) as error:
        why = str(error).replace("`$.", "`")
        raise UsageError("pyproject.toml does not describe a package", why, "mend it in pyproject.toml") from None


def _project_of(table: _Table, package_dirs: tuple[str, ...]) -> Project:
    scripts = {**table.scripts, **table.gui_scripts}
    _require("project.scripts", scripts, _SCRIPT_NAME, _FUNCTION)
    for group, points in table.entry_points.items():
        _require(f"project.entry-points.{group}", points, _POINT_NAME, _OBJECT)
    return Project(
        name=_normal_name(table.name),
        version=_normal_version(table),
        package_dirs=package_dirs,
        scripts=scripts,
        entry_points=table.entry_points,
    )


def _require(where: str, items: Mapping[str, str], name: re.Pattern[str], target: re.Pattern[str]) -> None:
    for key, value in items.items():
        if not name.fullmatch(key):
            raise ValueError(f"{where}: {key!r} cannot be a name")
        if not target.fullmatch(value):
            raise ValueError(f"{where}.{key}: expected `module:function`, found {value!r}")


def _normal_name(name: str) -> str:
    from packaging.utils import InvalidName, canonicalize_name

    try:
        return canonicalize_name(name, validate=True)
    except InvalidName:
        raise ValueError(f"project.name: {name!r} is no package name") from None


def _normal_version(table: _Table) -> str:
    if table.version is None and "version" in table.dynamic:
        return UNKNOWN_VERSION
    if table.version is None:
        raise ValueError('project.version is absent, and `dynamic = ["version"]` is not there')
    from packaging.version import InvalidVersion, Version

    try:
        return str(Version(table.version))
    except InvalidVersion:
        raise ValueError(f"project.version: {table.version!r} is no version") from None


# --- in the environment ---------------------------------------------------------------------------------


def project_files(project: Project, interpreter: Interpreter) -> list[Generated]:
    """What makes the project importable and known to `importlib.metadata`."""
    dist_info = f"{project.name.replace('-', '_')}-{project.version}.dist-info"
    files = list(_files(project, interpreter.site_packages, dist_info))
    record = record_file((file.entry for file in files), interpreter.site_packages, f"{dist_info}/RECORD")
    return [*files, Generated(f"{interpreter.site_packages}/{dist_info}/RECORD", FILE, record)]


def _files(project: Project, site_packages: str, dist_info: str) -> Iterator[Generated]:
    folders = (WORKSPACE if name == "." else f"{WORKSPACE}/{name}" for name in project.package_dirs)
    path_lines = "".join(f"{folder}\n" for folder in folders)
    metadata = f"Metadata-Version: 2.1\nName: {project.name}\nVersion: {project.version}\n"
    yield Generated(f"{site_packages}/{project.name}.pth", FILE, path_lines.encode())
    yield Generated(f"{site_packages}/{dist_info}/METADATA", FILE, metadata.encode())
    yield Generated(f"{site_packages}/{dist_info}/entry_points.txt", FILE, _entry_points(project).encode())
    for name, target in sorted(project.scripts.items()):
        yield Generated(f"bin/{name}", PROGRAM, _launcher(name, target))


def _launcher(name: str, target: str) -> bytes:
    module, _, attr = target.partition(":")
    return launcher(name, module.strip(), attr.strip())


def _entry_points(project: Project) -> str:
    groups = {**project.entry_points, "console_scripts": project.scripts}
    return "\n".join(
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in sorted(points.items()))
        for group, points in sorted(groups.items())
        if points
    )
