"""New applications, and applications that came from somebody else: whose account stands in the folder."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from belvedere.appdir.errors import NotAnAppFolder
from belvedere.appdir.folder import AppFolder

_STARTER = Path(__file__).parent / "starter"
_SUFFIX = ".in"
"""Of the starter's files: they become documents and code only with their names filled in."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}")


def new_app(target: Path, account: str) -> AppFolder:
    """Makes an application folder in the layout of AWS's tools, with an example that works: it marks what moves.

    Its name is the folder's. Raises NotAnAppFolder where something is there already, or for a name that packages can't
    have.
    """
    name = target.name
    if not _NAME.fullmatch(name):
        raise NotAnAppFolder(target, "its name must be letters, digits, - and _ only")
    if target.exists() and any(target.iterdir()):
        raise NotAnAppFolder(target, "it exists already and is not empty")
    words = {
        "@NAME@": name,
        "@ACCOUNT@": account,
        "@PACKAGE@": f"{name.upper().replace('-', '_')}_CODE",
        "@ASSET@": f"{name.lower().replace('-', '_')}_code",
    }
    for source in sorted(_STARTER.rglob(f"*{_SUFFIX}")):
        path = target / _filled(str(source.relative_to(_STARTER)).removesuffix(_SUFFIX), words)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_filled(source.read_text(), words))
    return AppFolder.load(target)


def take_over(app: AppFolder, account: str) -> tuple[str, ...]:
    """Puts `account` in the place of the accounts that the packages' folders name: in those names, in the graph, and in
    the other documents beside it. What panorama-cli's import-application does. Returns the accounts that went."""
    others = sorted({package.account for package in app.packages()} - {account})
    for other in others:
        for document in sorted(app.graph_path.parent.glob("*.json")):
            text = document.read_text()
            if (mine := text.replace(f'"{other}::', f'"{account}::')) != text:
                document.write_text(mine)
        for package in app.packages():
            if package.account == other:
                target = package.folder.with_name(f"{account}-{package.folder.name.removeprefix(f'{other}-')}")
                if target.exists():
                    raise NotAnAppFolder(app.root, f"both {package.folder.name} and {target.name} are there: keep one")
                shutil.move(package.folder, target)
    return tuple(others)


def _filled(text: str, words: dict[str, str]) -> str:
    for mark, word in words.items():
        text = text.replace(mark, word)
    return text
