"""Tags of resources: their limits, and what TagResource and UntagResource make of them.

    row.tags = add_tags(row.tags, dict(request.tags))
    row.tags = remove_tags(row.tags, request.tag_keys)

Pure. Source of the limits: the API's shapes TagKey, TagValue, TagMap.
"""

from collections.abc import Iterable, Mapping

from belvedere.chassis.errors import FieldError, Invalid

MAX_TAGS = 50
MAX_KEY_LENGTH = 128
MAX_VALUE_LENGTH = 256


def check_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags as they may be stored. Raises Invalid naming every wrong one."""
    wrong: list[FieldError] = []
    for key, value in tags.items():
        if not 1 <= len(key) <= MAX_KEY_LENGTH:
            wrong.append((f"Tags.{key[:32]}", f"a key has 1 to {MAX_KEY_LENGTH} characters"))
        elif key.lower().startswith("aws:"):
            wrong.append((f"Tags.{key}", 'keys that begin with "aws:" are reserved'))
        if len(value) > MAX_VALUE_LENGTH:
            wrong.append((f"Tags.{key[:32]}", f"a value has at most {MAX_VALUE_LENGTH} characters"))
    if len(tags) > MAX_TAGS:
        wrong.append(("Tags", f"a resource has at most {MAX_TAGS} tags, these are {len(tags)}"))
    if wrong:
        raise Invalid("The tags are not valid: " + "; ".join(f"{path}: {text}" for path, text in wrong), fields=wrong)
    return dict(tags)


def add_tags(present: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """Both together, `added` winning. Raises Invalid where a limit is passed."""
    return check_tags({**present, **added})


def remove_tags(present: Mapping[str, str], keys: Iterable[str]) -> dict[str, str]:
    """`present` without `keys`; keys that are not there do not matter."""
    gone = set(keys)
    return {key: value for key, value in present.items() if key not in gone}
