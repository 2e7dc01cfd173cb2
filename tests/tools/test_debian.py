"""Recipes: what they may say, what is made of them, and that the same recipe makes the same bytes."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from runner.errors import OutsideError, UsageError
from runner.state.digest import Digest, digest_file
from runner.tools.containers import connect
from runner.tools.debian import Packages, Recipe, RecipeConfig, bootstrap, import_changes, load_recipe

SMALL = Recipe(recipe=1, mmdebstrap=Packages(suite="bookworm", variant="essential", epoch=1_750_000_000))


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_is_read(tmp_path: Path) -> None:
    text = """
recipe: 1
mmdebstrap: {suite: bookworm, include: [python3, libstdc++6], epoch: 0}
config: {env: {LANG: C.UTF-8}}
"""
    assert load_recipe(written(tmp_path, text)) == Recipe(
        recipe=1,
        mmdebstrap=Packages(suite="bookworm", include=("python3", "libstdc++6"), epoch=0),
        config=RecipeConfig(env={"LANG": "C.UTF-8"}),
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("recipe: 2\nmmdebstrap: {suite: bookworm, epoch: 0}\n", "recipe"),
        ("recipe: 1\nmmdebstrap: {suite: bookworm, epoch: 0, mirror: x}\n", "mirror"),
        ("recipe: 1\nmmdebstrap: {suite: bookworm}\n", "epoch"),
        ("recipe: 1\nmmdebstrap: {suite: bookworm, epoch: -1}\n", "epoch"),
        ("recipe: 1\nmmdebstrap: {suite: --help, epoch: 0}\n", "suite"),
        ("recipe: 1\nmmdebstrap: {suite: bookworm, include: ['a,b'], epoch: 0}\n", "include"),
        ("recipe: 1\nmmdebstrap: {suite: bookworm, include: ['?x'], epoch: 0}\n", "include"),
        ("recipe: 1\nmmdebstrap: {suite: bookworm, epoch: 0}\nconfig: {env: {A B: x}}\n", "env"),
    ],
)
def test_a_recipe_that_says_anything_else_is_refused(tmp_path: Path, text: str, named: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    message = f"{caught.value.what} {caught.value.why}"
    assert str(path) in message and named in message


def test_a_missing_recipe_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load_recipe(tmp_path / "recipe.yaml")


def test_without_mmdebstrap_the_command_that_installs_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OutsideError) as caught:
        bootstrap(SMALL, tmp_path / "image.tar")
    assert "apt-get install" in caught.value.next and "mmdebstrap" in caught.value.next


@pytest.mark.engine
def test_variables_reach_the_image_as_the_recipe_has_them(tmp_path: Path) -> None:
    env = {"PATH": "/bin", "A": "two words", "B": 'a "quote"', "C": "$PATH \\ ${A}", "D": "", "E": "é #x"}
    changes = import_changes(Recipe(recipe=1, mmdebstrap=SMALL.mmdebstrap, config=RecipeConfig(env=env)))
    tar = tmp_path / "empty.tar"
    with tarfile.open(tar, "w") as archive:
        archive.addfile(tarfile.TarInfo("file"), io.BytesIO())
    tag = f"replay-test/{os.getpid()}:recipe"
    try:
        image = connect().import_tar(tar, tag, changes)
        assert image.identity.config.env == env
    finally:
        subprocess.run(["docker", "rmi", tag], capture_output=True, check=False)


@pytest.mark.network
@pytest.mark.slow
def test_the_same_recipe_makes_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(Path(__file__).parents[2] / "images" / "python311" / "recipe.yaml")
    first = digest_of_image(recipe, tmp_path)
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = os.umask(0o077)
    try:
        assert digest_of_image(recipe, tmp_path) == first
    finally:
        os.umask(before)


def digest_of_image(recipe: Recipe, folder: Path) -> Digest:
    tar = bootstrap(recipe, folder / "image.tar")
    try:
        return digest_file(tar)
    finally:
        tar.unlink()


@pytest.mark.network
def test_a_release_that_does_not_exist_is_named(tmp_path: Path) -> None:
    assert "nosuch" in why_not(Packages(suite="nosuch", epoch=0), tmp_path)


@pytest.mark.network
@pytest.mark.slow
def test_a_package_that_does_not_exist_is_named(tmp_path: Path) -> None:
    packages = Packages(suite="bookworm", variant="essential", include=("no-such-package",), epoch=0)
    assert why_not(packages, tmp_path) == "Unable to locate package no-such-package"


def why_not(packages: Packages, folder: Path) -> str:
    with pytest.raises(OutsideError) as caught:
        bootstrap(Recipe(recipe=1, mmdebstrap=packages), folder / "image.tar")
    assert list(folder.iterdir()) == []
    return caught.value.why
