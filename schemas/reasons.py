"""Why a record became a dead letter: the closed list, in order of precedence (the first that applies wins)."""

from __future__ import annotations

from enum import StrEnum


class DeadLetterReason(StrEnum):
    """Each member's comment says when it applies."""

    NOT_CLOUDEVENTS = "not_cloudevents"  # in neither mode, or a context attribute is missing
    NOT_JSON = "not_json"  # the envelope (structured) or the data (binary) is not UTF-8 JSON
    UNKNOWN_TYPE = "unknown_type"  # `type` is none of ours, or another version of one
    INVALID_DATA = "invalid_data"  # a required member is missing, or a value is outside its contract (R10)
    KEY_MISMATCH = "key_mismatch"  # the record's key is not the event's subject
    TIME_IN_FUTURE = "time_in_future"  # a time later than the record's timestamp by more than five minutes
    TIME_TOO_OLD = "time_too_old"  # a time more than 90 days before the record's timestamp
    WRONG_PARTITION = "wrong_partition"  # not the account's home partition
    UNKNOWN_ACCOUNT = "unknown_account"  # no such account at this offset
    NO_PRICE = "no_price"  # the plan's tariff has no match
    AMOUNT_OUT_OF_RANGE = "amount_out_of_range"  # the price is not below 2^53 micro-units
