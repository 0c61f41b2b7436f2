"""An application folder in the layout of AWS's tools (`graphs/`, `packages/`, `assets/`): found, packaged,
addressed by digest.

    folder = AppFolder.load("examples/people-counter", into="build/people-counter")   # a copy: the checkout stays clean
    build_container_asset(folder.package("PEOPLE_COUNTER_CODE").folder, folder.assets)
    add_model_asset(folder.package("PERSON_DETECTOR").folder, folder.assets, "model.pb", "descriptor.json")
    for package in folder.packages():
        package.patch_version, package.files(folder.assets)      # what to register, what to upload

Works on files only: knows no network, no account, no container engine.
"""

from belvedere.appdir.errors import (
    AppFolderError,
    AssetMissing,
    DocumentInvalid,
    NeedsContainerBuild,
    NotAnAppFolder,
    PackageNotFound,
)
from belvedere.appdir.folder import AppFolder, AssetFile, Package
from belvedere.appdir.packaging import BuiltAsset, add_model_asset, build_container_asset

__all__ = [
    "AppFolder",
    "AppFolderError",
    "AssetFile",
    "AssetMissing",
    "BuiltAsset",
    "DocumentInvalid",
    "NeedsContainerBuild",
    "NotAnAppFolder",
    "Package",
    "PackageNotFound",
    "add_model_asset",
    "build_container_asset",
]
