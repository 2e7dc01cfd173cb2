"""DVC's configuration, read without DVC: where the cache is, which remotes there are."""

from __future__ import annotations

import configparser
import os
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import platformdirs

from runner.errors import UsageError

_NAMED_REMOTE = re.compile(r'^\s*remote\s*"(.*)"\s*$')
_URL = re.compile(r"^\w+://")
_QUOTED = re.compile(r"""('{3}|"{3}|"|')(.*?)\1\s*(#.*)?""")
_PATH_OPTIONS = frozenset(
    {
        "dir",
        "url",
        "gdrive_user_credentials_file",
        "gdrive_service_account_json_file_path",
        "credentialpath",
        "configpath",
        "keyfile",
        "cert_path",
        "key_path",
    }
)


@dataclass(frozen=True, slots=True)
class DvcConfig:
    """All levels of the configuration merged, names in lower case, paths absolute. May hold passwords."""

    core: Mapping[str, str] = field(default_factory=dict)
    cache: Mapping[str, str] = field(default_factory=dict)
    remotes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def load_config(repo: Path) -> DvcConfig:
    """What DVC would use in `repo`: system, then global, then `.dvc/config`, then `.dvc/config.local`."""
    merged: dict[str, dict[str, str]] = {}
    for file in _config_files(repo):
        for section, options in _read_ini(file).items():
            merged.setdefault(section, {}).update(options)
    remotes = {match[1]: merged[name] for name in merged if (match := _NAMED_REMOTE.match(name))}
    return DvcConfig(merged.get("core", {}), merged.get("cache", {}), remotes)


def cache_dir(repo: Path) -> Path:
    """The cache that DVC uses in `repo`, the folder that holds `.dvc`; it need not exist."""
    named = load_config(repo).cache.get("dir")
    if named and is_url(named):
        raise UsageError(
            "DVC's cache is no folder of this machine",
            f"`cache.dir` in its configuration is {without_credentials(named)}",
        )
    return Path(named or repo.absolute() / ".dvc" / "cache")


def remote_name(config: DvcConfig, name: str | None = None) -> str | None:
    """The remote called `name`, or the default one, if it is configured."""
    wanted = (config.core.get("remote", "") if name is None else name).lower()
    return wanted if "url" in config.remotes.get(wanted, {}) else None


def remote_url(config: DvcConfig, name: str | None = None) -> str | None:
    """The URL of a remote, or of the default one, without credentials."""
    found = remote_name(config, name)
    return None if found is None else without_credentials(_full_url(config, found))


def full_options(config: DvcConfig, name: str) -> dict[str, str]:
    """The options of a remote with those of the remotes that its URL rests on, its own first. May hold passwords."""
    options, url = dict(config.remotes[name]), config.remotes[name]["url"]
    for _ in config.remotes:
        base = url.removeprefix("remote://").partition("/")[0].lower()
        if not url.startswith("remote://") or remote_name(config, base) is None:
            break
        options, url = {**config.remotes[base], **options}, config.remotes[base]["url"]
    return options | {"url": _full_url(config, name)}


def without_credentials(url: str) -> str:
    """A URL without password, query and fragment; a user name stays only in an SSH or HDFS address."""
    if not is_url(url):
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        # The error's own words would show a password.
        raise UsageError("a remote's URL in DVC's configuration is no URL", next="see `dvc remote list`") from None
    user, at, host = parts.netloc.rpartition("@")
    kept = user.partition(":")[0] + at if parts.scheme in {"ssh", "sftp", "hdfs"} else ""
    return urlunsplit((parts.scheme, kept + host, parts.path, "", ""))


def is_url(text: str) -> bool:
    return _URL.match(text) is not None


def config_text(sections: Mapping[str, Mapping[str, str]]) -> str:
    """A configuration file for DVC. Every value is quoted, so that it is read back as it is, and as one value."""
    lines: list[str] = []
    for name, options in sections.items():
        lines += [f"['{name}']", *(f"{key} = {_quoted(value)}" for key, value in options.items())]
    return "\n".join(lines) + "\n"


def _full_url(config: DvcConfig, name: str) -> str:
    """`remote://base/path` stands for a path under the remote called `base`; a circle is left as it is."""
    url = config.remotes[name]["url"]
    for _ in config.remotes:
        base, _slash, path = url.removeprefix("remote://").partition("/")
        if not url.startswith("remote://") or remote_name(config, base) is None:
            break
        url = posixpath.join(config.remotes[base.lower()]["url"], path)
    return url


def _config_files(repo: Path) -> tuple[Path, ...]:
    system = os.environ.get("DVC_SYSTEM_CONFIG_DIR") or platformdirs.site_config_dir("dvc", "iterative")
    user = os.environ.get("DVC_GLOBAL_CONFIG_DIR") or platformdirs.user_config_dir("dvc", "iterative")
    own = repo / ".dvc"
    return Path(system) / "config", Path(user) / "config", own / "config", own / "config.local"


def _read_ini(file: Path) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#",), default_section="")
    try:
        # DVC indents its keys, which configparser would take for continued values.
        lines = map(str.strip, file.read_text("utf-8").splitlines())
        parser.read_string("\n".join(lines), str(file))
        return {_unquoted(name).lower(): _options(file, parser[name]) for name in parser.sections()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, RuntimeError, ValueError, configparser.Error) as error:
        why = str(error).partition("\n")[0]
        raise UsageError(f"{file} cannot be read", why, "correct it, then check with `dvc config -l`") from error


def _options(file: Path, section: Mapping[str, str]) -> dict[str, str]:
    values = {key: _unquoted(value) for key, value in section.items()}
    return {key: _anchored(file, value) if key in _PATH_OPTIONS else value for key, value in values.items()}


def _unquoted(value: str) -> str:
    match = _QUOTED.fullmatch(value)
    return match[2] if match else value.partition("#")[0].rstrip()


def _quoted(value: str) -> str:
    for quote in ('"', "'", '"""', "'''"):
        if quote not in value and value.splitlines() in ([], [value]) and _unquoted(f"{quote}{value}{quote}") == value:
            return f"{quote}{value}{quote}"
    # It may be a password.
    raise UsageError("a remote's option cannot be written for DVC", "it has several lines or kinds of quotes")


def _anchored(file: Path, value: str) -> str:
    return value if is_url(value) else os.path.normpath(file.parent.absolute() / Path(value).expanduser())
