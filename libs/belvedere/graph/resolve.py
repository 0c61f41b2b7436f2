"""Manifest, overrides and registered packages to one resolved graph, or to every reason why there is none.

    manifest, overrides = parse_application(manifest_text, overrides_text)
    releases = {…: what `package_queries(manifest, overrides)` asks for}
    graph = resolve(manifest, overrides, releases, account="123456789012")

Must not know where packages are stored: who calls brings them along.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from belvedere.fleet.target import camera_id
from belvedere.graph._reading import NODES, OVERRIDDEN, PACKAGES, Problems
from belvedere.graph.application import Draft, InterfaceNode, LiteralNode, Manifest, Overrides, PackageItem, RoutingRule
from belvedere.graph.builtin import ABSTRACT_CAMERA, BUILT_IN, CAMERA_INPUTS
from belvedere.graph.edges import Ports, check_edges
from belvedere.graph.errors import GraphInvalid
from belvedere.graph.merge import Merged, MergedNode, merge
from belvedere.graph.package import Interface, ModelDescriptor, RegisteredAsset, Release, RuntimeDescriptor
from belvedere.graph.resolved import (
    BUILT_IN_OWNER,
    Asset,
    CameraNode,
    CodeNode,
    DisplayNode,
    ModelNode,
    NetworkRule,
    ParameterNode,
    ResolvedGraph,
)

HOST_PORTS = range(8000, 9001)
"""Ports of the appliance that applications may open (developer guide)."""


@dataclass(frozen=True)
class PackageQuery:
    """A package as a graph asks for it."""

    owner: str
    name: str
    version: str
    patch_version: str = ""
    """Empty: the latest."""


def package_queries(manifest: Manifest, overrides: Overrides) -> tuple[PackageQuery, ...]:
    """Which registered packages `resolve` needs to know; built-in ones not, nor those whose name or version can't be read."""
    items = merge(manifest, overrides, Problems()).packages
    return tuple(_query(item) for item in items if item.owner != BUILT_IN_OWNER and item.name and item.version)


def resolve(
    manifest: Manifest,
    overrides: Overrides,
    releases: Mapping[PackageQuery, Release],
    account: str,
    taken: Mapping[int, str] | None = None,
) -> ResolvedGraph:
    """The graph of one deployment. A query without an entry in `releases` has no registered version.

    `account` is the one that deploys; it is named in messages only. `taken`: the device's ports that others have, and
    who. Raises GraphInvalid with every problem.
    """
    return resolve_draft(Draft(manifest, overrides), releases, account, taken)


def resolve_draft(
    draft: Draft,
    releases: Mapping[PackageQuery, Release],
    account: str,
    taken: Mapping[int, str] | None = None,
) -> ResolvedGraph:
    """`resolve`, of documents that may have problems already: these are told first, then all that is wrong besides, but for
    what only follows from them."""
    problems = Problems(draft.problems, draft.unread)
    merged = merge(draft.manifest, draft.overrides, problems)
    resolver = _Resolver(merged, releases, account, problems, taken or {})
    graph = resolver.graph()
    if problems.found:
        raise GraphInvalid(problems.found)
    return graph


def _query(item: PackageItem) -> PackageQuery:
    return PackageQuery(item.owner, item.name, item.version, item.patch_version)


class _Resolver:
    """One run of `resolve`: what is found on the way."""

    def __init__(
        self,
        merged: Merged,
        releases: Mapping[PackageQuery, Release],
        account: str,
        problems: Problems,
        taken: Mapping[int, str],
    ) -> None:
        self._merged = merged
        self._problems = problems
        self._taken = taken
        self._releases = {item.full_name: self._release(item, releases, account) for item in merged.packages}
        self._code: list[CodeNode] = []
        self._cameras: list[CameraNode] = []
        self._models: list[ModelNode] = []
        self._displays: list[DisplayNode] = []
        self._parameters: list[ParameterNode] = []
        self._ports: dict[str, Ports] = {}

    def graph(self) -> ResolvedGraph:
        """The graph; of no use where problems were found."""
        for merged in self._merged.nodes:
            self._ports[merged.node.name] = self._node(merged)
        edges = check_edges(self._merged, self._ports, self._problems)
        for rule in self._merged.rules:
            self._check_rule(rule)
        return ResolvedGraph(
            code=tuple(self._code),
            cameras=tuple(self._cameras),
            models=tuple(self._models),
            displays=tuple(self._displays),
            parameters=tuple(self._parameters),
            edges=edges,
            network_rules=self._network_rules(),
        )

    def _release(self, item: PackageItem, releases: Mapping[PackageQuery, Release], account: str) -> Release | None:
        built_in = item.owner == BUILT_IN_OWNER
        release = BUILT_IN.get((item.name, item.version)) if built_in else releases.get(_query(item))
        if release is None:
            # The first words are AWS's own.
            text = (
                f"No registered package version found for accountId:{item.owner}, packageName:{item.name}, "
                f"packageVersion:{item.version}"
            )
            if item.patch_version:
                text += f", patchVersion:{item.patch_version}"
            if not built_in and item.owner != account:
                text += f" (you deploy for account {account})"
            self._problems.add(item.place, text)
        return release

    def _node(self, merged: MergedNode) -> Ports:
        node = merged.node
        if isinstance(node, LiteralNode):
            self._parameters.append(ParameterNode(node.name, node.type, node.value))
            return Ports(parameter=node)
        place = f"{node.place}.interface"
        if node.full_package not in self._releases:
            self._problems.add(place, f'no package "{node.full_package}" in packages', needs=PACKAGES)
            return Ports.unknown()
        release = self._releases[node.full_package]
        if release is None:
            return Ports.unknown()
        interface = release.document.interface(node.interface)
        if interface is None:
            has = ", ".join(f'"{item.name}"' for item in release.document.interfaces)
            self._problems.add(
                place,
                f'package "{node.full_package}" {release.ref.version} has no interface "{node.interface}" '
                f"(it has {has})",
            )
            return Ports.unknown()
        self._check_category(merged, interface, place)
        self._made(node, release, interface, place)
        return Ports(interface=interface)

    def _check_category(self, merged: MergedNode, interface: Interface, place: str) -> None:
        for old in merged.replaces:
            release = self._releases.get(old.full_package) if isinstance(old, InterfaceNode) else None
            before = release.document.interface(old.interface) if release and isinstance(old, InterfaceNode) else None
            if before is not None and before.category != interface.category:
                self._problems.add(
                    place,
                    f'"{merged.node.name}" is a {interface.category}, but "{old.name}", which it replaces, '
                    f"is a {before.category}",
                )

    def _made(self, node: InterfaceNode, release: Release, interface: Interface, place: str) -> None:
        match interface.category:
            case "media_source":
                self._camera(node, release, interface, place)
            case "media_sink":
                self._displays.append(DisplayNode(node.name, release.ref, interface.name))
            case "ml_model":
                self._model(node, release, interface, place)
            case _:
                self._code_node(node, release, interface, place)

    def _camera(self, node: InterfaceNode, release: Release, interface: Interface, place: str) -> None:
        if (release.ref.owner, release.ref.name) == (BUILT_IN_OWNER, ABSTRACT_CAMERA):
            self._problems.add(
                node.place,
                f'camera "{node.name}" is abstract: name the camera that takes its place in the overrides '
                f'(nodeOverrides: {{"replace": "{node.name}", "with": [{{"name": …}}]}})',
                needs=OVERRIDDEN,
            )
        elif interface.input(CAMERA_INPUTS[-1]) is None:
            self._problems.add(
                place, f'"{node.name}" is a media source, but no RTSP camera: other sources can not be run'
            )
        else:
            ref = release.ref
            self._cameras.append(
                CameraNode(
                    node.name, camera_id(ref.name, ref.version, ref.patch_version), ref, interface.name, node.launch
                )
            )

    def _model(self, node: InterfaceNode, release: Release, interface: Interface, place: str) -> None:
        asset = self._file(release, interface, "model", place)
        if asset is None:
            return
        if not isinstance(asset.descriptor, ModelDescriptor):
            self._problems.add(place, f'asset "{asset.name}" has no model descriptor: it must say framework and inputs')
            return
        descriptor = asset.descriptor
        stored = Asset(asset.digest, asset.size_bytes, asset.name)
        self._models.append(
            ModelNode(
                node.name,
                release.ref,
                interface.name,
                stored,
                descriptor.framework,
                descriptor.precision,
                descriptor.inputs,
            )
        )

    def _code_node(self, node: InterfaceNode, release: Release, interface: Interface, place: str) -> None:
        if self._code:
            self._problems.add(
                node.place,
                f'"{node.name}" is the second business logic node after "{self._code[0].name}": an application runs '
                "one; put both into one package, or deploy two applications",
            )
        asset = self._file(release, interface, "container", place)
        if asset is None:
            return
        if not isinstance(asset.descriptor, RuntimeDescriptor):
            self._problems.add(place, f'asset "{asset.name}" has no runtime descriptor: it must say what to start')
            return
        stored = Asset(asset.digest, asset.size_bytes, asset.name)
        self._code.append(
            CodeNode(
                node.name, release.ref, interface.name, stored, asset.descriptor.entry,
                interface.code_inputs, interface.code_outputs, release.limits(asset.name),
            )
        )  # fmt: skip

    def _file(self, release: Release, interface: Interface, type: str, place: str) -> RegisteredAsset | None:
        package = f'"{release.ref.owner}::{release.ref.name}" {release.ref.version}'
        if not interface.asset:
            self._problems.add(place, f'interface "{interface.name}" of {package} names no asset')
            return None
        asset = release.asset(interface.asset, type)
        if asset is None:
            self._problems.add(
                place, f'asset "{interface.asset}" of {package} has no implementation of the type {type}'
            )
        return asset

    def _check_rule(self, rule: RoutingRule) -> None:
        known = {node.name for node in self._code}
        if rule.node not in known:
            if rule.node not in self._ports or self._ports[rule.node].known:
                self._problems.add(f"{rule.place}.node", f'no business logic node "{rule.node}"', needs=NODES)
            return
        interface = self._ports[rule.node].interface
        if interface is not None and rule.container_port not in interface.inbound_ports:
            self._problems.add(
                f"{rule.place}.containerPort",
                f'{rule.container_port} is not among the inboundPorts of interface "{interface.name}"',
            )
        # 0: what it would have been could not be read, and that is told already.
        if rule.host_port and rule.host_port not in HOST_PORTS:
            self._problems.add(
                f"{rule.place}.hostPort", f"must lie between {HOST_PORTS[0]} and {HOST_PORTS[-1]}, not {rule.host_port}"
            )

    def _network_rules(self) -> tuple[NetworkRule, ...]:
        rules: dict[int, NetworkRule] = {}
        for rule in self._merged.open_rules:
            made = NetworkRule(rule.node, rule.container_port, rule.host_port)
            if rules.setdefault(rule.host_port, made) != made:
                self._problems.add(f"{rule.place}.hostPort", f"{rule.host_port} is taken by an earlier rule")
            elif rule.host_port in self._taken:
                self._problems.add(
                    f"{rule.place}.hostPort",
                    f"{rule.host_port} is taken on this device by {self._taken[rule.host_port]}: choose another",
                )
        return tuple(rules.values())
