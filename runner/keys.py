"""Keys: the one that signs here, and those that are trusted.

    signing.pem   the private key and its public half, readable by its owner alone
    trusted/      public keys, one a file; what they sign is believed

They lie in the user's own configuration, `REPLAY_KEYS` or `$XDG_CONFIG_HOME/replay/keys`, never in a workspace: who
can write to a workspace could add a key to it as easily as forge a record. Public keys in `state_specs/keys/` are
offers. One counts once its fingerprint was compared and it was trusted by hand.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner.errors import RefusedError, UsageError, disk_error
from runner.store.files import write_atomic

if TYPE_CHECKING:
    from runner.tools.signing import PublicKey, Signer

OFFERED = "keys"
_PRIVATE = 0o600
_PUBLIC_BLOCK = b"-----BEGIN PUBLIC KEY-----"
_NAME = 16
_LARGEST = 1 << 16

Ask = Callable[[], str]
AskNew = Callable[[], str | None]


class Listed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key as `keys list` shows it."""

    id: str
    signs: bool = False
    trusted: bool = False
    offered: bool = False


class Keyring:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.signing = folder / "signing.pem"
        self.trusted_folder = folder / "trusted"

    # --- looking

    def can_sign(self) -> bool:
        return self.signing.exists() or bool(os.environ.get("REPLAY_SIGN_COMMAND"))

    def trusted(self) -> list[PublicKey]:
        return _keys_in(self.trusted_folder)

    def own(self) -> PublicKey | None:
        """The public half of what signs here."""
        if os.environ.get("REPLAY_SIGN_COMMAND"):
            return _key_of_command()
        from runner.tools import signing

        if not self.signing.exists():
            return None
        return signing.load_public_key(_public_block(self.signing.read_bytes()), str(self.signing))

    def listed(self, specs: Path | None) -> list[Listed]:
        own, trusted, offers = self.own(), self.trusted(), offered(specs)
        ids = {key.id for key in (*trusted, *offers, *([own] if own else []))}
        return [
            Listed(
                id=one,
                signs=own is not None and one == own.id,
                trusted=one in {key.id for key in trusted},
                offered=one in {key.id for key in offers},
            )
            for one in sorted(ids)
        ]

    def signer(self, ask: Ask) -> Signer | None:
        """What signs here; None when nothing does. `ask` gives the passphrase when the key needs one."""
        if not self.can_sign():
            return None
        from runner.tools import signing

        command = os.environ.get("REPLAY_SIGN_COMMAND")
        if command:
            return signing.command_signer(command, _key_of_command())
        _refuse_readable(self.signing)
        kept = self.signing.read_bytes()
        passphrase = ask() if signing.is_encrypted(kept) else None
        signer = signing.open_private_key(kept, passphrase, str(self.signing))
        if signer.key.pem != _public_block(kept):
            raise UsageError(f"{self.signing} holds two keys that do not belong together", next="`replay keys rotate`")
        return signer

    # --- changing

    def init(self, ask: AskNew, workspace: Path | None) -> PublicKey:
        """Make the key that signs here, and trust it. Raises `UsageError` when there is one."""
        if self.signing.exists():
            why = "a second one would make the first unusable"
            raise UsageError(f"there is a signing key already: {self.signing}", why, "`replay keys rotate` replaces it")
        return self._make(ask, workspace)

    def rotate(self, ask: AskNew, workspace: Path | None) -> PublicKey:
        """Replace the key that signs here. What the old one signed stays trusted; the old private key is gone."""
        if not self.signing.exists():
            raise UsageError("there is no signing key to replace", next="`replay keys init` makes one")
        return self._make(ask, workspace)

    def trust(self, key: PublicKey) -> None:
        self._make_folders()
        write_atomic(self._place(key), key.pem)

    def distrust(self, key: PublicKey) -> None:
        self._place(key).unlink(missing_ok=True)

    def _make(self, ask: AskNew, workspace: Path | None) -> PublicKey:
        from runner.tools import signing

        if workspace and workspace.resolve() in (self.folder / "x").resolve().parents:
            why = f"{self.folder} is in the workspace {workspace}"
            raise RefusedError("a private key does not belong into a workspace", why, "choose another REPLAY_KEYS")
        self._make_folders()
        passphrase = ask()
        private = signing.new_private_key(passphrase)
        key = signing.open_private_key(private, passphrase, str(self.signing)).key
        self.trust(key)
        write_atomic(self.signing, private + key.pem, mode=_PRIVATE)
        return key

    def _make_folders(self) -> None:
        try:
            self.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            self.trusted_folder.mkdir(exist_ok=True)
        except OSError as error:
            raise disk_error(error, f"make {self.trusted_folder}") from error

    def _place(self, key: PublicKey) -> Path:
        return self.trusted_folder / f"{key.id[:_NAME]}.pem"


def keyring() -> Keyring:
    """The user's own: REPLAY_KEYS, else below XDG_CONFIG_HOME."""
    named = os.environ.get("REPLAY_KEYS")
    if named:
        return Keyring(Path(named).expanduser().absolute())
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Keyring(Path(config).expanduser() / "replay" / "keys")


def read_public_key(file: Path) -> PublicKey:
    """The public key in a PEM file. Raises `UsageError` when it holds none."""
    from runner.tools import signing

    try:
        with file.open("rb") as opened:
            data = opened.read(_LARGEST)  # an offer may be a link to a device that never ends
    except OSError as error:
        raise UsageError(f"cannot read {file}", error.strerror or str(error)) from None
    return signing.load_public_key(data, str(file))


def find_key(name: str, known: Sequence[PublicKey]) -> PublicKey:
    """The key whose id begins so, of those that are known; or the one in a PEM file of that name."""
    if Path(name).is_file():
        return read_public_key(Path(name))
    fits = list({key.id: key for key in known if name and key.id.startswith(name.lower())}.values())
    if len(fits) != 1:
        what = f"{name!r} fits {len(fits)} keys" if fits else f"{name!r} is no file and no key that is known here"
        raise UsageError(what, next="give the path of a public key in PEM, or an id from `replay keys list`")
    return fits[0]


def offer(key: PublicKey, specs: Path) -> Path:
    """Put the public key where others who get the workspace find it."""
    folder = specs / OFFERED
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{key.id[:_NAME]}.pem"
    write_atomic(file, key.pem)
    return file


def offered(specs: Path | None) -> list[PublicKey]:
    return _keys_in(specs / OFFERED) if specs else []


def _keys_in(folder: Path) -> list[PublicKey]:
    return [read_public_key(file) for file in sorted(folder.glob("*.pem"))] if folder.is_dir() else []


def _public_block(kept: bytes) -> bytes:
    return kept[kept.find(_PUBLIC_BLOCK) :]


def _key_of_command() -> PublicKey:
    file = os.environ.get("REPLAY_SIGN_KEY")
    if not file:
        why = "REPLAY_SIGN_COMMAND signs, and nothing tells with which key"
        raise UsageError("REPLAY_SIGN_KEY is not set", why, "set it to the path of the public key in PEM")
    return read_public_key(Path(file).expanduser())


def _refuse_readable(file: Path) -> None:
    """Others who can read the key could have signed as well."""
    if file.stat().st_mode & 0o077:
        raise RefusedError(f"{file} can be read by others", "it holds a private key", f"`chmod 600 {file}`")
