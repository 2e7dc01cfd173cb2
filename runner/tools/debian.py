"""The door to mmdebstrap: a base image made of Debian packages where no container registry answers.

A recipe, `images/<name>/recipe.yaml`, says which packages of which Debian release. The same recipe and the
same packages give the same bytes: file times are clamped to the recipe's `epoch`, and neither the caller's
environment nor its umask gets in. Indexes, caches, manuals, documentation and translations are left out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from runner.errors import OutsideError, UsageError
from runner.state.decode import convert
from runner.state.job import EnvName
from runner.state.spec import Value
from runner.state.strict import load_yaml

Suite = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9.-]*$")]
PackageName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]

_MERGED_USR = "/usr/share/mmdebstrap/hooks/maybe-merged-usr"
_PASSED_ON = ("PATH", "HOME", "http_proxy", "https_proxy", "no_proxy")
_DPKG_OPTIONS = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
)
_ERROR_LINE = re.compile(r"^E: (?:setup failed: )?(?P<why>.+)$", re.MULTILINE)


class Packages(Value, frozen=True, kw_only=True):
    """`epoch` is the latest time that a file of the image may bear, in seconds since 1970."""

    suite: Suite
    variant: Literal["essential", "apt", "minbase", "standard"] = "minbase"
    include: tuple[PackageName, ...] = ()
    epoch: Annotated[int, Meta(ge=0)]


class RecipeConfig(Value, frozen=True, kw_only=True):
    env: dict[EnvName, str] = {}


class Recipe(Value, frozen=True, kw_only=True):
    recipe: Literal[1]
    mmdebstrap: Packages
    config: RecipeConfig = RecipeConfig()


def load_recipe(path: Path) -> Recipe:
    """Raises `UsageError` naming file and key for anything that a recipe does not know."""
    try:
        return convert(load_yaml(path.read_bytes(), str(path)), Recipe)
    except OSError as error:
        raise UsageError(f"cannot read {path}", str(error.strerror)) from None
    except msgspec.ValidationError as error:
        raise UsageError(f"{path} is not a valid recipe", str(error), f"correct {path}") from None


def bootstrap(recipe: Recipe, tar_path: Path) -> Path:
    """Write the image's file system to `tar_path`. Raises `OutsideError`, and leaves no file then."""
    if shutil.which("mmdebstrap") is None:
        raise OutsideError("cannot build an image from a recipe", "mmdebstrap is not installed", _install("mmdebstrap"))
    done = subprocess.run(
        _command(recipe.mmdebstrap, tar_path),
        env=_environment(recipe.mmdebstrap),
        umask=0o022,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        tar_path.unlink(missing_ok=True)
        raise _failure(recipe.mmdebstrap, done)
    return tar_path


def import_changes(recipe: Recipe) -> list[str]:
    """The recipe's configuration as Dockerfile instructions, for an engine's import."""
    return [f"ENV {name}={_quoted(value)}" for name, value in sorted(recipe.config.env.items())]


def _command(packages: Packages, tar_path: Path) -> list[str]:
    return [
        "mmdebstrap",
        f"--variant={packages.variant}",
        *(f"--include={name}" for name in packages.include),
        # Merges /usr by hand where the release knows how: the package that would do it drags in all of perl.
        f"--hook-dir={_MERGED_USR}",
        '--aptopt=Acquire::Languages "none"',
        *(f"--dpkgopt={option}" for option in _DPKG_OPTIONS),
        "--format=tar",
        packages.suite,
        str(tar_path),
    ]


def _environment(packages: Packages) -> dict[str, str]:
    """Without TMPDIR: the owner of apt's folders in the image would follow from who may enter that one."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return passed_on | {"LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": str(packages.epoch)}


def _quoted(value: str) -> str:
    """A double-quoted word of a Dockerfile: variables are not expanded."""
    return '"' + re.sub(r'([\\"$])', r"\\\1", value) + '"'


def _failure(packages: Packages, done: subprocess.CompletedProcess[str]) -> OutsideError:
    reason = _ERROR_LINE.search(done.stderr)
    if os.geteuid() != 0:
        mend = "run the command as root once, or allow user namespaces: " + _install("uidmap")
    else:
        mend = "check the recipe's `suite` and `include`, and that Debian's package mirror answers"
    return OutsideError(
        f"cannot install Debian {packages.suite} for an image",
        reason["why"] if reason else f"mmdebstrap ended with exit status {done.returncode}",
        mend,
    )


def _install(package: str) -> str:
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get install -y --no-install-recommends {package}"
