"""What every part of a ContinualModel is made of: names and their patterns, the base of the models."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AliasGenerator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

__all__ = [
    "PATTERNS",
    "QUANTITY",
    "URI_PREFIX",
    "Identifier",
    "ImageName",
    "ImportPath",
    "Name",
    "Part",
    "Share",
    "TopicName",
    "Variable",
    "Windowed",
    "refuse_repeated",
]

_NAME = r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
_IDENTIFIER = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"
_WINDOWED = r"^(label\.)?[A-Za-z_][A-Za-z0-9_]{0,62}$"
_TOPIC = r"^[A-Za-z0-9._-]{1,200}$"
URI_PREFIX = r"^(file|s3|gs|gcs|abfs|abfss|hdfs)://.*/$"
_VARIABLE = r"^[A-Z_][A-Z0-9_]{0,62}$"
_IMAGE = r"^[a-z0-9][a-z0-9._/:@-]{0,254}$"
QUANTITY = r"^[1-9][0-9]*(Mi|Gi|Ti)$"
_IMPORT_PATH = r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$"

PATTERNS = {
    _NAME: "a name of lower-case letters, digits and dashes that starts with a letter",
    _IDENTIFIER: "a field name: letters, digits and _, not starting with a digit",
    _WINDOWED: "a field name (letters, digits and _, not starting with a digit), or label. and a label's field",
    _TOPIC: "a topic name: letters, digits, dots, dashes and _",
    URI_PREFIX: "the beginning of a URI that ends with a slash, such as s3://pictures/",
    _VARIABLE: "an environment variable: capital letters, digits and _, not starting with a digit",
    _IMAGE: "an image such as registry.example/inspection:1, in lower case",
    QUANTITY: "an amount of memory such as 512Mi or 4Gi",
    _IMPORT_PATH: "module:Class, such as inspection.model:Codec",
}
"""Each pattern that text must match, in words."""

Name = Annotated[str, Field(pattern=_NAME, max_length=63)]
# What a pattern says of a length is said again as a number: an API server reckons the cost of a rule by it.
Identifier = Annotated[str, Field(pattern=_IDENTIFIER, json_schema_extra={"maxLength": 63})]
Windowed = Annotated[str, Field(pattern=_WINDOWED, json_schema_extra={"maxLength": 69})]
TopicName = Annotated[str, Field(pattern=_TOPIC, json_schema_extra={"maxLength": 200})]
Variable = Annotated[str, Field(pattern=_VARIABLE, json_schema_extra={"maxLength": 63})]
ImageName = Annotated[
    str,
    Field(pattern=_IMAGE, examples=["registry.example/inspection:1"], json_schema_extra={"maxLength": 255}),
]
ImportPath = Annotated[str, Field(pattern=_IMPORT_PATH, examples=["inspection.model:Codec"])]
Share = Annotated[float, Field(ge=0, le=1)]


def refuse_repeated(names: Sequence[str], what: str) -> None:
    """Raise `ValueError` that names the first of `names` that is there twice."""
    for position, name in enumerate(names):
        if name in names[:position]:
            raise ValueError(f"{what} {name} is there twice")


class Part(BaseModel):
    """The base of every part: camelCase outside, unknown fields refused, immutable."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=AliasGenerator(alias=to_camel),
        populate_by_name=False,
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )
