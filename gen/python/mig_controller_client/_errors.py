"""Reads what the controller attaches to its errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migcontroller.v1.error_pb2 import ErrorDetail

if TYPE_CHECKING:
    from connectrpc.errors import ConnectError


def error_detail(error: ConnectError) -> ErrorDetail | None:
    """Return the controller's detail of an error: its reason, field and rule.

    None when there is none, as with an error that arose on the way to the controller.
    """
    for detail in error.details:
        if detail.type_name == ErrorDetail.DESCRIPTOR.full_name:
            return ErrorDetail.FromString(detail.message_bytes)
    return None
