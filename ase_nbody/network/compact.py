"""``Compact``: configurations that can grow without changing the files of those who do not use what is new."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_serializer
from pydantic import SerializerFunctionWrapHandler as Handler


class Compact(BaseModel):
    """A configuration that leaves out newer options where they have their default.

    So the files and checksums of models that do not use them stay the same.

    Attributes:
        newer: names of these options.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    newer: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unused_options(self, serialise: Handler) -> dict[str, Any]:
        content: dict[str, Any] = serialise(self)
        for name in self.newer:
            if getattr(self, name) == type(self).model_fields[name].default:
                content.pop(name, None)
        return content
