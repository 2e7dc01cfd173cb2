"""Keys: made outside the workspace, closed to others, trusted by hand only; what a passphrase and a command do."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import termios
from pathlib import Path

import pytest

from runner.errors import OutsideError, RefusedError, UsageError
from runner.keys import Keyring, offered
from runner.tools import signing
from tests.conftest import Workspace, until


def listed(workspace: Workspace) -> dict[str, set[str]]:
    found = workspace.replay("keys", "list", "--json").json["keys"]
    return {key["id"]: {word for word, holds in key.items() if holds is True} for key in found}


@pytest.fixture
def project(workspace: Workspace) -> Workspace:
    workspace.jobs()
    return workspace


def test_a_key_is_made_outside_the_workspace_and_closed_to_others(project: Workspace) -> None:
    made = project.replay("keys", "init", "--json", REPLAY_KEY_PASSPHRASE="secret").json
    private = Path(made["private"])
    assert project.root not in private.parents
    assert private.stat().st_mode & 0o777 == 0o600 and private.parent.stat().st_mode & 0o777 == 0o700
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in private.read_bytes()
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", made["public"], "-outform", "DER"], capture_output=True, check=True
    ).stdout
    fingerprint = subprocess.run(["sha256sum"], input=der, capture_output=True, check=True).stdout
    assert fingerprint.split()[0].decode() == made["key"]
    assert listed(project) == {made["key"]: {"signs", "trusted", "offered"}}
    again = project.replay("keys", "init", "--plain", "--json")
    assert again.code == 2 and "rotate" in again.json["error"]["next"]


def test_a_key_in_the_workspace_is_refused(project: Workspace) -> None:
    done = project.replay("keys", "init", "--plain", "--json", REPLAY_KEYS=str(project.root / "keys"))
    assert done.code == 6 and not (project.root / "keys").exists()


def test_without_a_passphrase_or_a_terminal_none_is_made(project: Workspace) -> None:
    for env in ({}, {"REPLAY_KEY_PASSPHRASE": ""}):
        done = project.replay("keys", "init", "--json", **env)
        assert done.code == 2 and "next" in done.json["error"]
    assert listed(project) == {}


def test_xdg_says_where_keys_are(project: Workspace, tmp_path: Path) -> None:
    made = project.replay("keys", "init", "--plain", "--json", REPLAY_KEYS="", XDG_CONFIG_HOME=str(tmp_path / "xdg"))
    assert made.json["private"] == str(tmp_path / "xdg/replay/keys/signing.pem")


def test_rotating_keeps_what_was_trusted_and_drops_the_old_private_key(project: Workspace) -> None:
    first = project.replay("keys", "init", "--plain", "--json").json
    before = Path(first["private"]).read_bytes()
    second = project.replay("keys", "rotate", "--plain", "--json").json
    assert first["private"] == second["private"] and Path(first["private"]).read_bytes() != before
    assert listed(project) == {
        first["key"]: {"trusted", "offered"},
        second["key"]: {"signs", "trusted", "offered"},
    }


def test_rotating_nothing_is_an_error(project: Workspace) -> None:
    assert project.replay("keys", "rotate", "--plain").code == 2


def test_an_offered_key_counts_only_when_it_was_trusted(project: Workspace, tmp_path: Path) -> None:
    made = project.replay("keys", "init", "--plain", "--json").json
    mine = {"REPLAY_KEYS": str(tmp_path / "mine")}
    project.env |= mine
    assert listed(project) == {made["key"]: {"offered"}}
    assert project.replay("keys", "trust", made["key"][:8], "--json").json == {"key": made["key"], "trusted": True}
    assert listed(project) == {made["key"]: {"trusted", "offered"}}
    assert project.replay("keys", "trust", made["key"], "--remove").code == 0
    assert listed(project) == {made["key"]: {"offered"}}
    assert project.replay("keys", "trust", made["public"]).code == 0
    assert listed(project) == {made["key"]: {"trusted", "offered"}}
    for wrong in ("nothere", "", "replay.yaml", made["private"].replace("signing", "none")):
        assert project.replay("keys", "trust", wrong).code == 2


@pytest.mark.parametrize(
    "make",
    [
        "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out k",
        "openssl genpkey -algorithm ED25519 -out k",
        "openssl ecparam -name secp384r1 -genkey -noout -out k",
    ],
)
def test_only_p256_will_do(project: Workspace, tmp_path: Path, make: str) -> None:
    subprocess.run(make.split(), cwd=tmp_path, check=True, capture_output=True)
    subprocess.run("openssl pkey -in k -pubout -out k.pem".split(), cwd=tmp_path, check=True)
    done = project.replay("keys", "trust", str(tmp_path / "k.pem"), "--json")
    assert done.code == 2 and "P-256" in done.json["error"]["what"]


# --- what signs ---------------------------------------------------------------------------------------------------


def test_a_key_that_others_can_read_does_not_sign(tmp_path: Path) -> None:
    keys = Keyring(tmp_path / "keys")
    key = keys.init(lambda: None, None)
    assert keys.own() == key and keys.trusted() == [key]
    keys.signing.chmod(0o640)
    with pytest.raises(RefusedError):
        keys.signer(lambda: "")
    keys.signing.chmod(0o600)
    signer = keys.signer(lambda: "")
    assert signer and signer.key == key and key.verifies(b"x", signer.sign(b"x"))


def test_a_passphrase_opens_the_key_and_nothing_else_does(tmp_path: Path) -> None:
    keys = Keyring(tmp_path / "keys")
    keys.init(lambda: "right", None)
    signer = keys.signer(lambda: "right")
    assert signer and signer.key.verifies(b"x", signer.sign(b"x"))
    with pytest.raises(UsageError, match="cannot be opened"):
        keys.signer(lambda: "wrong")


def test_two_halves_that_do_not_belong_together_do_not_sign(tmp_path: Path) -> None:
    keys, other = Keyring(tmp_path / "a"), Keyring(tmp_path / "b")
    keys.init(lambda: None, None)
    foreign = other.init(lambda: None, None)
    private = keys.signing.read_bytes().partition(b"-----BEGIN PUBLIC KEY-----")[0]
    keys.signing.write_bytes(private + foreign.pem)
    with pytest.raises(UsageError, match="two keys"):
        keys.signer(lambda: "")


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("exit 3", "exited 3"),
        ("echo sorry >&2; exit 1", "sorry"),
        ("echo no signature", "no ECDSA signature"),
        ("true", "no ECDSA signature"),
        ("openssl dgst -sha256 -sign other.pem", "not that of the key"),
        ("openssl dgst -sha512 -sign own.pem", "not that of the key"),
    ],
)
def test_a_command_that_does_not_sign_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("own", "other"):
        make = f"openssl ecparam -name prime256v1 -genkey -noout -out {name}.pem"
        subprocess.run(make.split(), check=True, capture_output=True)
    shown = subprocess.run("openssl pkey -in own.pem -pubout".split(), check=True, capture_output=True).stdout
    key = signing.load_public_key(shown, "own.pem")
    with pytest.raises(OutsideError) as raised:
        signing.command_signer(command, key).sign(b"message")
    assert why in raised.value.why
    good = signing.command_signer("openssl dgst -sha256 -sign own.pem", key)
    assert all(key.verifies(b"%d" % number, good.sign(b"%d" % number)) for number in range(4)), "whatever s is"


def test_a_command_needs_to_say_with_which_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLAY_SIGN_COMMAND", "true")
    monkeypatch.delenv("REPLAY_SIGN_KEY", raising=False)
    with pytest.raises(UsageError, match="REPLAY_SIGN_KEY"):
        Keyring(tmp_path).signer(lambda: "")


def test_where_a_command_signs_its_key_is_the_one_that_is_said_to(project: Workspace, tmp_path: Path) -> None:
    own = project.replay("keys", "init", "--plain", "--json").json["key"]
    other = signing.open_private_key(signing.new_private_key(None), None, "it").key
    (tmp_path / "other.pem").write_bytes(other.pem)
    assert "signs" in listed(project)[own]
    project.env |= {"REPLAY_SIGN_COMMAND": "true", "REPLAY_SIGN_KEY": str(tmp_path / "other.pem")}
    assert listed(project) == {own: {"trusted", "offered"}, other.id: {"signs"}}


def test_an_offer_that_never_ends_is_no_key(project: Workspace) -> None:
    offers = project.root / "state_specs" / "keys"
    offers.mkdir(parents=True)
    (offers / "x.pem").symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="holds no public key"):
        offered(offers.parent)


def test_without_a_key_nothing_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPLAY_SIGN_COMMAND", raising=False)
    assert Keyring(tmp_path).signer(lambda: "") is None
    assert offered(None) == offered(tmp_path) == []


# --- asked on a terminal -----------------------------------------------------------------------------------------


def test_a_passphrase_is_asked_for_on_a_terminal_and_not_shown(project: Workspace) -> None:
    controller, terminal = pty.openpty()
    started = subprocess.Popen(
        project.command("keys", "init"),
        cwd=project.root,
        env=project.env,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    said = b""
    for question in (b"New passphrase", b"Repeat"):
        while question not in said:
            said += os.read(controller, 4096)
        until(lambda: not termios.tcgetattr(controller)[3] & termios.ECHO, "the terminal to be quiet")
        os.write(controller, b"secret\n")
    with contextlib.suppress(OSError):  # the terminal is gone with its last user
        while more := os.read(controller, 4096):
            said += more
    os.close(controller)
    assert started.wait(300) == 0 and b"secret" not in said, said
    private = Path(project.env["REPLAY_KEYS"]) / "signing.pem"
    assert b"ENCRYPTED" in private.read_bytes()
    assert Keyring(private.parent).signer(lambda: "secret")
