"""The reader of the API model, judged by what the API promises."""

from __future__ import annotations

import pytest

from belvedere import awsmodel


def test_the_model_has_all_34_operations_with_documentation() -> None:
    operations = awsmodel.panorama().operations
    assert len(operations) == 34
    assert [name for name, operation in operations.items() if len(operation.documentation) < 10] == []


def test_every_member_of_every_structure_is_documented() -> None:
    document = (awsmodel.model_folder() / "panorama/2019-07-24/service-2.json").read_text()
    import json

    undocumented = [
        f"{shape}.{member}"
        for shape, raw in json.loads(document)["shapes"].items()
        for member, reference in raw.get("members", {}).items()
        if not reference.get("documentation")
    ]
    assert undocumented == []


def test_an_operation_knows_its_route_members_and_errors() -> None:
    model = awsmodel.panorama()
    untag = model.operations["UntagResource"]
    assert (untag.method, untag.segments) == ("DELETE", ("tags", "{ResourceArn}"))
    assert untag.input is not None
    keys = untag.input.members["TagKeys"]
    assert (keys.location, keys.wire_name, keys.required, keys.shape.minimum, keys.shape.maximum) == (
        "querystring",
        "tagKeys",
        True,
        1,
        50,
    )
    assert untag.declares("ResourceNotFoundException") and not untag.declares("ConflictException")
    assert model.shapes["ServiceQuotaExceededException"].http_status == 402
    assert model.shapes["ManifestPayload"].union and model.shapes["TemplateValue"].sensitive


def test_a_pattern_matches_the_whole_value_and_spans_lines_of_a_document() -> None:
    shapes = awsmodel.panorama().shapes
    name, manifest = shapes["DeviceName"].pattern, shapes["ManifestPayloadData"].pattern
    assert name is not None and manifest is not None
    assert name.fullmatch("camera-1") and not name.fullmatch("camera-1\n")
    assert manifest.fullmatch('{\n  "nodeGraph": {}\n}\n')


def test_a_damaged_model_is_refused_with_the_place() -> None:
    with pytest.raises(awsmodel.ModelInvalid, match="Missing"):
        awsmodel.ServiceModel.from_json(
            {
                "metadata": {},
                "operations": {},
                "shapes": {"A": {"type": "structure", "members": {"B": {"shape": "Missing"}}}},
            }
        )


def test_a_missing_model_file_is_refused_with_its_path(tmp_path: object) -> None:
    from pathlib import Path

    with pytest.raises(awsmodel.ModelInvalid, match="nowhere"):
        awsmodel.load(Path(str(tmp_path)) / "nowhere.json")
