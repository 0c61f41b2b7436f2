"""An application folder in the layout of AWS's tools (`graphs/`, `packages/`, `assets/`): found, packaged,
addressed by digest.

    folder = AppFolder.load("examples/people-counter", into="build/people-counter")   # a copy: the checkout stays clean
    build_container_asset(folder.package("PEOPLE_COUNTER_CODE").folder, folder.assets)
    add_model_asset(folder.package("PERSON_DETECTOR").folder, folder.assets, "model.pb", "descriptor.json")
    for package in folder.packages():
        package.patch_version, package.files(folder.assets)      # what to register, what to upload

    FolderWork(folder, built=tmp).resolve(Choices(cameras={"front_camera": ("entrance",)}))   # as it lies there
    build_code_asset(folder, package, say=print)         # with docker or buildah where the Dockerfile needs one

Works on files, and starts a container engine where one is needed; knows no account and nothing of the cloud side.
"""

from belvedere.appdir.building import AUTO, BARE, ENGINES, CodeBuild, add_model, build_code_asset, code_packages
from belvedere.appdir.errors import (
    AppFolderError,
    AssetMissing,
    BaseInvalid,
    DocumentInvalid,
    EngineFailed,
    EngineMissing,
    FolderInvalid,
    FolderProblem,
    NeedsContainerBuild,
    NotAnAppFolder,
    OverrideInvalid,
    PackageNotFound,
)
from belvedere.appdir.folder import AppFolder, AssetFile, Package, read_document
from belvedere.appdir.overrides import CameraNode, literal_type, overrides_document, with_open_ports
from belvedere.appdir.packaging import BuiltAsset, add_model_asset, build_container_asset
from belvedere.appdir.resolving import Choices, FolderWork, ResolvedFolder
from belvedere.appdir.starter import new_app, take_over

__all__ = [
    "AUTO",
    "BARE",
    "ENGINES",
    "AppFolder",
    "AppFolderError",
    "AssetFile",
    "AssetMissing",
    "BaseInvalid",
    "BuiltAsset",
    "CameraNode",
    "Choices",
    "CodeBuild",
    "DocumentInvalid",
    "EngineFailed",
    "EngineMissing",
    "FolderInvalid",
    "FolderProblem",
    "FolderWork",
    "NeedsContainerBuild",
    "NotAnAppFolder",
    "OverrideInvalid",
    "Package",
    "PackageNotFound",
    "ResolvedFolder",
    "add_model",
    "add_model_asset",
    "build_code_asset",
    "build_container_asset",
    "code_packages",
    "literal_type",
    "new_app",
    "overrides_document",
    "read_document",
    "take_over",
    "with_open_ports",
]
