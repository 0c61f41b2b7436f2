"""A package's document (`nodePackage`) and its assets' descriptors (`mlModelDescriptor`, `runtimeDescriptor`), typed.

Source: the application manifest schema 2021-01-01 of the AWS Panorama developer guide. One reading finds every problem.
Must not know where documents and assets are stored.
"""

from __future__ import annotations

from dataclasses import dataclass

from belvedere.graph._reading import Fields, Problems, Value, clean_text, is_expression, literal, load, shown
from belvedere.graph.application import LITERAL_TYPES, NODE_NAME, VERSION, check_envelope
from belvedere.graph.errors import DocumentInvalid
from belvedere.graph.requirements import read_requirements
from belvedere.graph.resolved import (
    NO_LIMITS,
    Entry,
    ImageInput,
    InputPort,
    Limits,
    Literal,
    OutputPort,
    PackageRef,
    PortType,
    TensorInput,
)

PORT_NAME = r"[$A-Z_a-z0-9]+"
CATEGORIES = ("media_source", "media_sink", "business_logic", "ml_model")
CATEGORY_ALIASES = {"data_sink": "media_sink"}
"""The AWS test utility's documents say data_sink where the schema says media_sink."""
IMPLEMENTATION_TYPES = ("system", "container", "model")
FRAMEWORKS = ("TENSORFLOW", "PYTORCH", "MXNET", "ONNX", "TFLITE")
"""The first three are the schema's; the others are read as they are by the inference backends."""
PRECISIONS = ("FP32", "FP16", "INT8")
"""INT8 is not in the schema: for models that are quantised already."""
COLORS = ("BGR", "RGB", "GRAY")
FITS = ("stretch", "letterbox")
TENSOR_TYPES = (
    "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"
)  # fmt: skip
MAX_INBOUND_PORTS = 10
MAX_DIMENSION = 2**31 - 1


@dataclass(frozen=True)
class Implementation:
    """How an asset is there: a file, or something an appliance has (`system`)."""

    type: str
    asset_uri: str
    """For files: the name under the package's binaries."""
    descriptor_uri: str = ""
    limits: Limits = NO_LIMITS
    """What it asks of the appliance."""


@dataclass(frozen=True)
class PackageAsset:
    """Something a package brings along."""

    name: str
    implementations: tuple[Implementation, ...]


@dataclass(frozen=True)
class PackageInput:
    """An input port of an interface."""

    name: str
    type: PortType
    description: str = ""
    default: Literal | None = None
    max_connections: int = 0
    """0: any number."""
    constraint_regex: str = ""


@dataclass(frozen=True)
class PackageOutput:
    """An output port of an interface."""

    name: str
    type: PortType
    description: str = ""


@dataclass(frozen=True)
class Interface:
    """What a node made from the package looks like."""

    name: str
    category: str
    """media_source, media_sink, business_logic or ml_model."""
    asset: str
    description: str
    inputs: tuple[PackageInput, ...]
    outputs: tuple[PackageOutput, ...]
    inbound_ports: tuple[int, ...]

    def input(self, name: str) -> PackageInput | None:
        """The named input port."""
        return next((port for port in self.inputs if port.name == name), None)

    def output(self, name: str) -> PackageOutput | None:
        """The named output port."""
        return next((port for port in self.outputs if port.name == name), None)

    @property
    def code_inputs(self) -> tuple[InputPort, ...]:
        """The inputs as a resolved graph has them."""
        return tuple(InputPort(port.name, port.type, port.default) for port in self.inputs)

    @property
    def code_outputs(self) -> tuple[OutputPort, ...]:
        """The outputs as a resolved graph has them."""
        return tuple(OutputPort(port.name, port.type) for port in self.outputs)


@dataclass(frozen=True)
class PackageDocument:
    """A package.json."""

    name: str
    version: str
    description: str
    assets: tuple[PackageAsset, ...]
    interfaces: tuple[Interface, ...]

    def asset(self, name: str) -> PackageAsset | None:
        """The named asset."""
        return next((asset for asset in self.assets if asset.name == name), None)

    def interface(self, name: str) -> Interface | None:
        """The named interface."""
        return next((interface for interface in self.interfaces if interface.name == name), None)


@dataclass(frozen=True)
class ModelDescriptor:
    """How a model file is to be loaded."""

    framework: str
    framework_version: str
    precision: str
    inputs: tuple[TensorInput, ...]


@dataclass(frozen=True)
class RuntimeDescriptor:
    """How a container is to be started."""

    entry: Entry


Descriptor = ModelDescriptor | RuntimeDescriptor


@dataclass(frozen=True)
class RegisteredAsset:
    """An asset whose file is stored."""

    name: str
    type: str
    """container, model or system."""
    digest: str
    """`sha256:<hex>`; empty for system assets."""
    size_bytes: int
    descriptor: Descriptor | None = None


@dataclass(frozen=True)
class Release:
    """One registered patch of a package version: what a graph is resolved with."""

    ref: PackageRef
    document: PackageDocument
    assets: tuple[RegisteredAsset, ...] = ()

    def asset(self, name: str, type: str) -> RegisteredAsset | None:
        """The stored file of the named asset in this form."""
        return next((asset for asset in self.assets if (asset.name, asset.type) == (name, type)), None)

    def limits(self, asset: str) -> Limits:
        """What the container of the named asset asks for."""
        found = self.document.asset(asset)
        containers = [item for item in found.implementations if item.type == "container"] if found else []
        return containers[0].limits if containers else NO_LIMITS


def parse_package(text: str | bytes) -> PackageDocument:
    """Reads a package.json. Raises DocumentInvalid with every problem."""
    problems = Problems()
    fields = _envelope(
        text, "nodePackage", problems, "envelopeVersion", "name", "version", "description", "assets", "interfaces"
    )
    document = PackageDocument(
        name=fields.text("name", limit=128),
        version=fields.text("version", pattern=VERSION, says='a version such as "1.0"'),
        description=fields.text("description"),
        assets=tuple(_asset(item) for item in fields.items("assets")),
        interfaces=tuple(_interface(item) for item in fields.items("interfaces", minimum=1)),
    )
    _check_names(fields, "assets", [asset.name for asset in document.assets])
    _check_names(fields, "interfaces", [interface.name for interface in document.interfaces])
    named = {asset.name for asset in document.assets}
    for index, interface in enumerate(document.interfaces):
        if interface.asset and interface.asset not in named:
            problems.add(fields.at(f"interfaces[{index}].asset"), f'no asset "{interface.asset}" in assets')
    _raise_if_any(problems)
    return document


def parse_descriptor(text: str | bytes) -> Descriptor:
    """Reads an asset's descriptor, of whichever kind it is. Raises DocumentInvalid with every problem."""
    problems = Problems()
    value = load(text, problems, "")
    outer = value.fields("mlModelDescriptor", "runtimeDescriptor") if value is not None else None
    descriptor: Descriptor | None = None
    if outer is not None and outer.has("mlModelDescriptor"):
        descriptor = _model(Value(outer.get("mlModelDescriptor").value, "", problems))
    elif outer is not None and outer.has("runtimeDescriptor"):
        descriptor = _runtime(Value(outer.get("runtimeDescriptor").value, "", problems))
    elif outer is not None and outer.valid:
        problems.add("", 'has neither "mlModelDescriptor" nor "runtimeDescriptor": is this the right document?')
    if descriptor is None or problems.found:
        raise DocumentInvalid(problems.found)
    return descriptor


def _raise_if_any(problems: Problems) -> None:
    if problems.found:
        raise DocumentInvalid(problems.found)


def _envelope(text: str | bytes, kind: str, problems: Problems, *known: str) -> Fields:
    value = load(text, problems, "")
    if value is None:
        return Fields({}, "", problems, valid=False)
    outer = value.fields(kind)
    if not outer.has(kind):
        if outer.valid:
            problems.add("", f'has no "{kind}": is this the right document?')
        return Fields({}, "", problems, valid=False)
    fields = Value(outer.get(kind).value, "", problems).fields(*known)
    check_envelope(fields)
    return fields


def _check_names(fields: Fields, name: str, names: list[str]) -> None:
    for index, item in enumerate(names):
        if item and item in names[:index]:
            place = fields.at(f"{name}[{index}].name")
            fields.problems.add(place, f'"{item}" is the name of {name}[{names.index(item)}] already')


def _asset(item: Value) -> PackageAsset:
    fields = item.fields("name", "description", "implementations")
    return PackageAsset(
        fields.text("name", required=True, minimum=1),
        tuple(_implementation(inner) for inner in fields.items("implementations")),
    )


def _implementation(item: Value) -> Implementation:
    fields = item.fields("type", "assetUri", "descriptorUri", "description", "requirements")
    return Implementation(
        fields.choice("type", IMPLEMENTATION_TYPES, required=True),
        fields.text("assetUri", required=True),
        fields.text("descriptorUri"),
        read_requirements(fields),
    )


def _interface(item: Value) -> Interface:
    fields = item.fields("name", "category", "asset", "description", "inputs", "outputs", "network")
    category = fields.choice("category", (*CATEGORIES, *CATEGORY_ALIASES), required=True)
    inputs = tuple(_input(inner) for inner in fields.items("inputs"))
    outputs = tuple(_output(inner) for inner in fields.items("outputs"))
    _check_names(fields, "inputs", [port.name for port in inputs])
    _check_names(fields, "outputs", [port.name for port in outputs])
    return Interface(
        name=fields.text(
            "name", required=True, limit=128, minimum=1, pattern=NODE_NAME, says="letters, digits, $, _ and -"
        ),
        category=CATEGORY_ALIASES.get(category, category),
        asset=fields.text("asset"),
        description=fields.text("description"),
        inputs=inputs,
        outputs=outputs,
        inbound_ports=_inbound_ports(fields),
    )


def _inbound_ports(fields: Fields) -> tuple[int, ...]:
    if not fields.has("network"):
        return ()
    network = fields.get("network").fields("inboundPorts")
    items = network.items("inboundPorts", maximum=MAX_INBOUND_PORTS)
    return tuple(item.fields("port", "description").whole("port", 1, 65535, required=True) for item in items)


def _port_name(fields: Fields) -> str:
    return fields.text(
        "name", required=True, limit=50, minimum=1, pattern=PORT_NAME, says="letters, digits, $ and _ only (no -)"
    )


def _input(item: Value) -> PackageInput:
    fields = item.fields(
        "name", "type", "description", "default", "maxConnections", "constraintRegex", "reference", "referenceSource"
    )  # fmt: skip
    type = fields.choice("type", (*LITERAL_TYPES, PortType.MEDIA.value), required=True, default=PortType.MEDIA.value)
    default: Literal | None = None
    if fields.has("default") and type != PortType.MEDIA:
        given = fields.get("default").value
        default = literal(given, type)
        if default is None:
            fields.problems.add(fields.at("default"), f"{shown(given)} is no {type}")
    regex = fields.text("constraintRegex")
    if regex and not is_expression(regex):
        fields.problems.add(fields.at("constraintRegex"), f"{shown(regex)} is not a regular expression")
    return PackageInput(
        _port_name(fields),
        PortType(type),
        fields.text("description"),
        default,
        fields.whole("maxConnections", 0, MAX_DIMENSION),
        regex,
    )


def _output(item: Value) -> PackageOutput:
    fields = item.fields("name", "type", "description")
    type = fields.choice("type", (*LITERAL_TYPES, PortType.MEDIA.value), required=True, default=PortType.MEDIA.value)
    return PackageOutput(_port_name(fields), PortType(type), fields.text("description"))


def _model(value: Value) -> ModelDescriptor:
    fields = value.fields("envelopeVersion", "framework", "frameworkVersion", "precisionMode", "inputs")
    check_envelope(fields)
    return ModelDescriptor(
        fields.choice("framework", FRAMEWORKS, required=True),
        fields.text("frameworkVersion", limit=10),
        fields.choice("precisionMode", PRECISIONS, default="FP32"),
        tuple(_tensor(item) for item in fields.items("inputs", minimum=1)),
    )


def _tensor(item: Value) -> TensorInput:
    fields = item.fields("name", "shape", "type", "image")
    shape: list[int] = []
    for dimension in fields.items("shape", minimum=1):
        if isinstance(dimension.value, bool) or not isinstance(dimension.value, int):
            dimension.problem(f"must be a whole number, not {shown(dimension.value)}")
        elif not (dimension.value == -1 or 1 <= dimension.value <= MAX_DIMENSION):
            dimension.problem(f"must be 1 or more, or -1 for any, not {shown(dimension.value)}")
        else:
            shape.append(dimension.value)
    name = fields.text("name", required=True, minimum=1)
    image = _image(fields.get("image")) if fields.has("image") else None
    return TensorInput(name, tuple(shape), fields.choice("type", TENSOR_TYPES, default="float32"), image)


def _image(value: Value) -> ImageInput:
    fields = value.fields("color", "fit", "scale", "mean", "std")
    color = fields.choice("color", COLORS, default="BGR")
    scale = _numbers(fields.get("scale"), nonzero=True) if fields.has("scale") else (1.0,)
    lists = {}
    for name in ("mean", "std"):
        numbers = [number for item in fields.items(name) for number in _numbers(item, nonzero=name == "std")]
        if len(numbers) not in (0, 1, len(color) if color != "GRAY" else 1):
            fields.problems.add(fields.at(name), "must have one number, or one for each channel")
        lists[name] = tuple(numbers)
    fit = fields.choice("fit", FITS, default="stretch")
    return ImageInput(color, fit, scale[0] if scale else 1.0, lists["mean"], lists["std"])


def _numbers(value: Value, nonzero: bool) -> tuple[float, ...]:
    """The number, or none where there was a problem."""
    number = value.value
    if isinstance(number, bool) or not isinstance(number, int | float) or (nonzero and not number):
        value.problem(f"must be a number{' other than 0' if nonzero else ''}, not {shown(number)}")
        return ()
    return (float(number),)


def _runtime(value: Value) -> RuntimeDescriptor:
    # `events` belongs to the schema, but only to its preview: it starts nothing.
    fields = value.fields("envelopeVersion", "entry", "events")
    check_envelope(fields)
    if not fields.has("entry") and fields.valid:
        fields.problems.add(fields.at("entry"), "is missing: it says what to start")
        return RuntimeDescriptor(Entry("", ""))
    entry = fields.get("entry").fields("path", "name", "arguments", "environment")
    arguments = [_argument(item) for item in entry.items("arguments")]
    environment = dict(_variable(item) for item in entry.items("environment"))
    path = entry.text("path", default="$default", limit=4096, minimum=1)
    return RuntimeDescriptor(Entry(path, entry.text("name", required=True, limit=4096), tuple(arguments), environment))


def _argument(item: Value) -> str:
    if not isinstance(item.value, str) or not clean_text(item.value):
        item.problem(f"must be text, not {shown(item.value)}")
        return ""
    return item.value


def _variable(item: Value) -> tuple[str, str]:
    fields = item.fields("name", "value")
    name = fields.text("name", required=True, minimum=1, pattern="[^=]+", says="a name without =")
    return name, fields.text("value", limit=32768)
