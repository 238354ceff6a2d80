"""Variables both ways: every type, every refusal, and the round trip through an engine's rules."""

import json
import math
import re
from base64 import b64decode, b64encode
from datetime import datetime
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bridge.errors import ValueRefused
from bridge.variables.from_engine import MAX_DEPTH, plain
from bridge.variables.to_engine import MAX_VARIABLES, names_allowed, typed
from bridge.variables.types import READERS

FILE = {"filename": "a.pdf", "mimeType": "application/pdf", "encoding": "UTF-8"}
JAVA_OBJECT = {"objectTypeName": "a.B", "serializationDataFormat": "application/xml"}
JSON_OBJECT = {"objectTypeName": "a.B", "serializationDataFormat": "application/json"}
JAVA_BYTES = {
    "objectTypeName": "a.B",
    "serializationDataFormat": "application/x-java-serialized-object",
}


def address(name: str) -> str:
    return f"http://engine/{name}"


def shown(type_name: str, value: Any) -> Any:
    values, types = plain({"v": {"value": value, "type": type_name}}, file_address=address)
    assert types == {"v": type_name}
    json.dumps(values, allow_nan=False)
    return values["v"]


def sent(value: Any) -> dict[str, Any]:
    return typed({"v": value})["v"]


def label(value: Any) -> str | None:
    """A short name in the test's id; None leaves it to pytest."""
    if isinstance(value, int) and abs(value) > 2**64:
        return "huge"
    return ascii(value)[:30] if isinstance(value, str) else None


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def same(one: Any, other: Any) -> bool:
    """Equal in value and in kind: 1, 1.0 and True are three values."""
    return repr(one) == repr(other)


# Engine to message


@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        ("Boolean", True),
        ("Short", -32768),
        ("Integer", 2**31 - 1),
        ("Long", 2**63 - 1),
        ("Double", 0.1),
        ("Double", 3.0),
        ("String", "Grüße \U0001f600"),
        ("Null", None),
        ("Date", "2026-01-31T23:59:59.123+0200"),
        ("Bytes", "AAECAw=="),
        ("Xml", "<a>1</a>"),
        ("Object", '{"a":1}'),
        ("Json", None),
        ("Gadget", {"a": [1]}),
    ],
    ids=label,
)
def test_a_value_of_the_engine_passes_as_it_is(type_name: str, value: Any) -> None:
    """Existing consumers compare texts and numbers; any rewriting would be a loss."""
    assert same(shown(type_name, value), value)


def test_an_untyped_null_is_named_null() -> None:
    """variableTypes must have a text for each variable."""
    assert plain({"v": {"value": None}}, file_address=address) == ({"v": None}, {"v": "Null"})


@pytest.mark.parametrize(
    ("value", "text"),
    [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity"), ("NaN", "NaN")],
)
def test_a_double_that_is_no_number_becomes_text(value: Any, text: str) -> None:
    """A bare NaN is no JSON: strict consumers would reject the whole message."""
    assert shown("Double", value) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
        ("18446744073709551617", 2**64 + 1),
        ("0.30000000000000004", 0.1 + 0.2),
        ("1.50", 1.5),
        ("1e2", 100.0),
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('{"a":1,"a":2}', {"a": 2}),
        ("[" * MAX_DEPTH + "]" * MAX_DEPTH, nested(MAX_DEPTH)),
    ],
    ids=label,
)
def test_a_json_variable_is_parsed(text: str, value: Any) -> None:
    """Workers read documents, not texts that hold documents."""
    assert same(shown("Json", text), value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{not json",
        "1e400",
        "[1e-400]",
        "1e-9999999999999999999999",
        "0.1000000000000000055",
        "12345678901234567.89",
        "9" * 4301,
        "[NaN]",
        "-Infinity",
        '"\\ud800"',
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
    ids=label,
)
def test_a_json_text_that_parsing_would_change_stays_text(text: str) -> None:
    """The worker still gets every digit; and no document of a process may break the dispatcher."""
    assert shown("Json", text) == text


def test_a_file_is_its_metadata_and_an_address() -> None:
    """The engine sends no content with a task; the worker fetches it where it needs it."""
    values, types = plain(
        {"v": {"value": None, "type": "File", "valueInfo": {"filename": "a.pdf"}}},
        file_address=address,
    )

    assert types == {"v": "File"}
    assert values["v"] == {
        "filename": "a.pdf",
        "mimeType": None,
        "encoding": None,
        "url": "http://engine/v",
    }


def test_a_file_whose_content_is_at_hand_carries_it_in_base64() -> None:
    """Small files inline spare the worker the way to the engine; the empty file counts too."""
    engine = {name: {"value": None, "type": "File", "valueInfo": FILE} for name in ("v", "w", "x")}

    values, _ = plain(engine, file_address=address, file_contents={"v": b"\x00\xff", "w": b""})

    assert values["v"] == {**FILE, "url": "http://engine/v", "content": "AP8="}
    assert values["w"]["content"] == ""
    assert "content" not in values["x"]


# Message to engine


@pytest.mark.parametrize(
    ("value", "type_name"),
    [
        (True, "Boolean"),
        (False, "Boolean"),
        (0, "Integer"),
        (2**31 - 1, "Integer"),
        (-(2**31), "Integer"),
        (2**31, "Long"),
        (-(2**31) - 1, "Long"),
        (2**63 - 1, "Long"),
        (-(2**63), "Long"),
        (1.0, "Double"),
        (-0.0, "Double"),
        (5e-324, "Double"),
        ("", "String"),
        ("x" * 4000, "String"),
        (None, "Null"),
    ],
    ids=label,
)
def test_a_plain_value_gets_the_narrowest_type_that_holds_it(value: Any, type_name: str) -> None:
    """Expressions in the process depend on the type; without one the engine would choose."""
    variable = sent(value)

    assert variable.keys() == {"value", "type"}
    assert variable["type"] == type_name
    assert same(variable["value"], value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, "{}"),
        ([1, {"a": None}], '[1,{"a":null}]'),
        (
            {"n": 2**70, "f": 0.1, "s": "ü\x00"},
            '{"n":1180591620717411303424,"f":0.1,"s":"ü\\u0000"}',
        ),
        ({"value": 1}, '{"value":1}'),
        ({"value": 1, "type": "Gadget"}, '{"value":1,"type":"Gadget"}'),
        ({"value": 1, "type": "LONG"}, '{"value":1,"type":"LONG"}'),
        ({"value": 1, "type": 5}, '{"value":1,"type":5}'),
        ({"value": 1, "type": "Long", "unit": "m"}, '{"value":1,"type":"Long","unit":"m"}'),
        ({"value": 1, "valueInfo": {}}, '{"value":1,"valueInfo":{}}'),
        (["x" * 5000], '["' + "x" * 5000 + '"]'),
        (nested(MAX_DEPTH), "[" * MAX_DEPTH + "]" * MAX_DEPTH),
    ],
    ids=label,
)
def test_an_object_or_array_becomes_json_text(value: Any, text: str) -> None:
    """Untyped, the engine would store a serialized Java object that no other worker can read."""
    assert sent(value) == {"value": text, "type": "Json"}


@pytest.mark.parametrize(
    ("type_name", "value", "info", "expected"),
    [
        ("boolean", "true", None, True),
        ("Boolean", False, None, False),
        ("Short", 32767, None, 32767),
        ("Short", "-32768", None, -32768),
        ("Integer", 3.0, None, 3),
        ("long", "9223372036854775807", None, 2**63 - 1),
        ("Long", 7, None, 7),
        ("Long", 2.0**53 - 1, None, 2**53 - 1),
        ("Double", 3, None, 3.0),
        ("Double", 2**60, None, 2.0**60),
        ("Double", "1152921504606846976", None, 2.0**60),
        ("Double", "-0", None, -0.0),
        ("Double", "2.50e-3", None, 0.0025),
        ("String", "a", None, "a"),
        ("String", "a", {"transient": True}, "a"),
        ("String", "a", {"transient": None}, "a"),
        ("Null", None, None, None),
        ("Date", "2026-01-31T23:59:59.123-0530", None, "2026-01-31T23:59:59.123-0530"),
        ("Date", "2026-01-31T23:59:59Z", None, "2026-01-31T23:59:59.000+0000"),
        ("date", "2026-01-31T23:59:59.5+02:00", None, "2026-01-31T23:59:59.500+0200"),
        ("Date", "2028-02-29T00:00:00.123000Z", None, "2028-02-29T00:00:00.123+0000"),
        ("Bytes", "AAECAw==", None, "AAECAw=="),
        ("Bytes", "AAEC\r\nAw==\n", None, "AAECAw=="),
        ("Bytes", "", None, ""),
        ("File", "AAECAw==", FILE, "AAECAw=="),
        ("File", "", {"filename": "empty"}, ""),
        ("Json", ' {"a": 1.50} ', None, ' {"a": 1.50} '),
        ("Json", "12345678901234567.89", None, "12345678901234567.89"),
        ("Json", {"a": [1]}, None, '{"a":[1]}'),
        ("Json", 5, None, "5"),
        ("Json", False, None, "false"),
        ("Xml", '<?xml version="1.0" encoding="UTF-16"?><ä/>', None, None),
        ("Xml", '<a xmlns:b="c"><b:d/></a>', None, '<a xmlns:b="c"><b:d/></a>'),
        ("Object", "<b/>", JAVA_OBJECT, "<b/>"),
        ("Object", '{"a":1}', JSON_OBJECT, '{"a":1}'),
        ("Object", None, JSON_OBJECT, None),
    ],
    ids=label,
)
def test_a_typed_value_arrives_in_its_type(
    type_name: str, value: Any, info: dict[str, Any] | None, expected: Any
) -> None:
    """What the worker states is what the engine is told, in the spelling the engine reads."""
    given_info = {} if info is None else {"valueInfo": info}

    variable = sent({"value": value, "type": type_name, **given_info})

    assert variable["type"] == type_name.capitalize()
    assert same(variable["value"], value if type_name == "Xml" else expected)
    kept = {key: item for key, item in (info or {}).items() if item is not None}
    assert variable.get("valueInfo", {}) == kept


@pytest.mark.parametrize(
    "type_name",
    [name for name in READERS if name not in {"File", "Object"}],
)
def test_a_typed_value_may_be_null(type_name: str) -> None:
    """A process may empty a variable and keep its type."""
    assert sent({"value": None, "type": type_name}) == {"value": None, "type": type_name}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (2**63, "Long holds"),
        (-(2**63) - 1, "Long holds"),
        (10**5000, "Long holds"),
        (math.nan, "finite"),
        (math.inf, "finite"),
        ("x" * 4001, "more than 4000 characters"),
        ("\U0001f600" * 2001, "more than 4000 characters"),
        ("a\x00b", "NUL"),
        ("\ud800", "lone surrogate"),
        ([math.nan], "NaN"),
        ([math.inf], "infinite"),
        ([10**5000], "4300 digits"),
        (["\ud800"], "lone surrogate"),
        ({"\udfff": 1}, "lone surrogate"),
        (nested(MAX_DEPTH + 1), "100 levels"),
        (nested(50_000), "100 levels"),
        (b"bytes", "no JSON value"),
    ],
    ids=label,
)
def test_a_plain_value_that_would_lose_something_is_refused(value: Any, why: str) -> None:
    """A clear refusal before the call; the engine would cut it or fail in its database."""
    with pytest.raises(ValueRefused, match=why):
        sent(value)


@pytest.mark.parametrize(
    ("type_name", "value", "info", "why"),
    [
        ("Boolean", "True", None, "true or false"),
        ("Boolean", 1, None, "true or false"),
        ("Short", 32768, None, "-32768 to 32767"),
        ("Short", True, None, "whole number"),
        ("Integer", 2**31, None, "send a larger number as Long"),
        ("Integer", "2147483648", None, "send a larger number as Long"),
        ("Integer", 3.5, None, "whole number"),
        ("Integer", "3.0", None, "whole number"),
        ("Integer", "007", None, "whole number"),
        ("Integer", "+1", None, "whole number"),
        ("Integer", " 1", None, "whole number"),
        ("Integer", "1\n", None, "whole number"),
        ("Integer", "٣", None, "whole number"),
        ("Integer", [], None, "whole number"),
        ("Long", 2.0**53, None, "whole number"),
        ("Long", math.nan, None, "whole number"),
        ("Long", "9223372036854775808", None, "Long holds"),
        ("Long", "9" * 5000, None, "Long holds"),
        ("Double", 2**53 + 1, None, "at most 17 digits"),
        ("Double", "9007199254740993", None, "at most 17 digits"),
        ("Double", "9" * 5000, None, "at most 17 digits"),
        ("Double", 10**400, None, "finite"),
        ("Double", "1e400", None, "finite"),
        ("Double", "1e-400", None, "finite"),
        ("Double", "0.1000000000000000055", None, "at most 17 digits"),
        ("Double", "NaN", None, "finite"),
        ("Double", "0x1", None, "finite"),
        ("Double", True, None, "finite"),
        ("Double", math.nan, None, "finite"),
        ("String", 5, None, "takes a text"),
        ("String", "x" * 4001, None, "more than 4000"),
        ("Null", 0, None, "must have the value null"),
        ("Date", "2026-02-30T00:00:00.000+0000", None, "exist"),
        ("Date", "2026-01-31T24:00:00.000+0000", None, "exist"),
        ("Date", "2026-01-31T00:00:00.000+2400", None, "exist"),
        ("Date", "0000-01-31T00:00:00.000+0000", None, "exist"),
        ("Date", "2026-01-31T00:00:00.000+0060", None, "exist"),
        ("Date", "0001-01-01T00:00:00.000+1400", None, "exist"),
        ("Date", "1582-10-10T00:00:00.000+0000", None, "exist"),
        ("Date", "2026-01-31T00:00:00.000", None, "offset"),
        ("Date", "2026-01-31", None, "offset"),
        ("Date", "2026-01-31T00:00:00.1234Z", None, "milliseconds"),
        ("Date", "2026-01-31T00:00:00.000+0000\n", None, "offset"),
        ("Date", 1769817600000, None, "offset"),
        ("Bytes", "QQ=", None, "Base64"),
        ("Bytes", "QQ", None, "Base64"),
        ("Bytes", "_-8=", None, "Base64"),
        ("Bytes", "ä", None, "Base64"),
        ("Bytes", [1], None, "Base64"),
        ("File", "QQ==", None, "needs valueInfo.filename"),
        ("File", "QQ==", {"filename": ""}, "valueInfo.filename"),
        ("File", "QQ==", {"filename": "a\x00"}, "NUL"),
        ("File", "QQ==", {"filename": "a", "charset": "x"}, "mimeType"),
        ("File", None, {"filename": "a"}, "Base64"),
        ("File", "QQ==", {"filename": "a", "mimetype": "x", "mimeType": "y"}, "only transient"),
        ("File", "QQ==", {"filename": "a", "mimeType": "a#b"}, "no #"),
        ("File", None, None, "needs valueInfo.filename"),
        ("Json", "{not json", None, "no valid JSON"),
        ("Json", "", None, "no valid JSON"),
        ("Json", "[NaN]", None, "NaN"),
        ("Json", "9" * 4301, None, "4300 digits"),
        ("Json", "[" * 100_000, None, "100 levels"),
        ("Json", "[" * 101 + "]" * 101, None, "100 levels"),
        ("Json", '"\\ud800"', None, "lone surrogate"),
        ("Json", '"\ud800"', None, "lone surrogate"),
        ("Json", [math.nan], None, "NaN"),
        ("Xml", "<a>", None, "well-formed"),
        ("Xml", "", None, "well-formed"),
        ("Xml", "<a/>\ud800", None, "well-formed"),
        ("Xml", "<b:a/>", None, "well-formed"),
        ("Xml", {"a": 1}, None, "well-formed"),
        ("Xml", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', None, "DOCTYPE"),
        ("Object", "<b/>", None, "needs valueInfo.objectTypeName"),
        ("Object", None, None, "needs valueInfo.objectTypeName"),
        ("Object", "<b/>", {"objectTypeName": "a.B"}, "serializationDataFormat"),
        ("Object", {"a": 1}, JSON_OBJECT, "serialized text"),
        ("Object", "{not json", JSON_OBJECT, "no valid JSON"),
        ("Object", "\ud800", JAVA_OBJECT, "lone surrogate"),
        ("Object", "rO0AB", JAVA_BYTES, "serialization format"),
        ("Object", None, JAVA_BYTES, "serialization format"),
        ("String", "a", {"transient": "yes"}, "true or false"),
        ("String", "a", {"tranisent": True}, "only transient"),
        ("String", "a", [], "valueInfo must be an object"),
    ],
    ids=label,
)
def test_a_typed_value_that_would_lose_something_is_refused(
    type_name: str, value: Any, info: Any, why: str
) -> None:
    """The engine converts or ignores some of these in silence and fails late on others."""
    given_info = {} if info is None else {"valueInfo": info}

    with pytest.raises(ValueRefused, match=why):
        sent({"value": value, "type": type_name, **given_info})


def test_a_refusal_names_the_variable_and_keeps_its_value_secret() -> None:
    """The reason goes into logs and incidents, where values must not appear."""
    secret = "s3cr3t-" * 1000

    for value in [secret, {"value": secret, "type": "Date"}, {"value": secret, "type": "Json"}]:
        with pytest.raises(ValueRefused) as refusal:
            typed({"password": value})

        assert refusal.value.name == "password"
        assert refusal.value.reason == "value-refused"
        assert "s3cr3t" not in str(refusal.value)


def test_both_spellings_of_the_mime_type_reach_the_engine() -> None:
    """The engine's manual says mimetype, the engine reads mimeType and drops the other unsaid."""
    for key in ("mimetype", "mimeType"):
        info = {"filename": "a", key: "text/plain"}
        variable = sent({"value": "QQ==", "type": "File", "valueInfo": info})

        assert variable["valueInfo"] == {"filename": "a", "mimeType": "text/plain"}


def test_the_limit_of_texts_is_the_callers() -> None:
    """Databases differ: 2000 on Oracle, more where the column was widened."""
    assert typed({"v": "x" * 9000}, string_max=9000)["v"]["value"] == "x" * 9000
    with pytest.raises(ValueRefused, match="more than 2000"):
        typed({"v": "x" * 2001}, string_max=2000)


@pytest.mark.parametrize(
    "name", ["", "x" * 256, "\U0001f600" * 128, "a\nb", "a\x00", "a\x85", "\ud800"]
)
def test_a_name_that_the_engine_cannot_hold_is_refused(name: str) -> None:
    """The column has 255 characters; control characters end in logs and expressions."""
    with pytest.raises(ValueRefused) as refusal:
        typed({name: 1})
    assert len(refusal.value.name) <= 255


def test_a_name_of_255_characters_in_any_script_is_accepted() -> None:
    """The limit is the engine's, not a shorter one of ours."""
    assert typed({"é" * 255: 1}).keys() == {"é" * 255}


def test_the_first_variable_beyond_the_limit_is_refused_by_name() -> None:
    """A flood in one result would hold one engine transaction open for all of it."""
    values = {f"v{number}": number for number in range(MAX_VARIABLES + 1)}

    with pytest.raises(ValueRefused) as refusal:
        typed(values)

    assert refusal.value.name == f"v{MAX_VARIABLES}"
    del values[refusal.value.name]
    assert len(typed(values)) == MAX_VARIABLES


def test_only_allowed_names_may_be_written() -> None:
    """A topic's workers must not overwrite what they have no business with."""
    names_allowed(["a", "b"], None)
    names_allowed(["a"], ("a", "b"))
    names_allowed([], ())

    with pytest.raises(ValueRefused, match="allowed_variables") as refusal:
        names_allowed(["a", "c"], ("a", "b"))
    assert refusal.value.name == "c"


# Round trips


def engine_holds(variable: dict[str, Any]) -> dict[str, Any]:
    """A small model of the engine: reads a variable as it does and answers it in a fetch."""
    value, type_name = variable["value"], variable["type"]
    ranges = {"Short": 2**15, "Integer": 2**31, "Long": 2**63}
    if value is not None:
        if limit := ranges.get(type_name):
            assert type(value) is int
            assert -limit <= value < limit
        elif type_name == "Boolean":
            assert type(value) is bool
        elif type_name == "Double":
            assert type(value) is float
        elif type_name == "Date":
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d{4}", value)
            datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%f%z")
        elif type_name in {"Bytes", "File"}:
            value = b64encode(b64decode(value, validate=True)).decode()
        else:
            assert type(value) is str
        if type_name == "String":
            assert len(value.encode("utf-16-le")) <= 2 * 4000
    return {"value": value, "type": type_name, "valueInfo": variable.get("valueInfo", {})}


def there_and_back(value: Any) -> Any:
    request = json.dumps(typed({"v": value}), allow_nan=False).encode()
    held = engine_holds(json.loads(request)["v"])
    answer = json.loads(json.dumps({"v": held}, allow_nan=False))
    values, types = plain(answer, file_address=address)
    assert types["v"] == held["type"]
    return json.loads(json.dumps(values, allow_nan=False))["v"]


def json_values(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=12,
    )


clean = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
)
anything = json_values(st.none() | st.booleans() | st.integers() | st.floats() | st.text())
type_names = st.sampled_from(
    [*sorted(set(READERS) - {"Integer", "Xml"}), "integer", "xml", "Gadget"]
)
hostile = st.characters(categories=["L", "N", "P", "Cc", "Cs", "So"])


@given(json_values(clean))
def test_every_clean_json_value_survives_the_round_trip(value: Any) -> None:
    """Without loss, both ways: what a worker answers is what the next worker gets."""
    assume(not (isinstance(value, dict) and value.keys() >= {"value", "type"}))

    assert same(there_and_back(value), value)


@given(
    type_names,
    anything
    | st.text(hostile)
    | st.from_regex(r"-?[0-9]{1,20}(\.[0-9]{1,20})?([eE]-?[0-9]{1,3})?", fullmatch=True)
    | st.binary().map(lambda data: b64encode(data).decode()),
    st.none()
    | st.fixed_dictionaries(
        {},
        optional={
            "transient": st.none() | st.booleans() | st.text(),
            "filename": st.text(hostile),
            "objectTypeName": st.text(),
            "serializationDataFormat": st.sampled_from(["application/json", "application/xml"]),
            "other": st.integers(),
        },
    ),
)
def test_a_typed_value_survives_the_round_trip_or_is_refused(
    type_name: str, value: Any, info: Any
) -> None:
    """No third way: nothing else is raised, and nothing accepted arrives as something else."""
    typed_value = {"value": value, "type": type_name, "valueInfo": info}
    try:
        back = there_and_back(typed_value)
    except ValueRefused:
        return

    if type_name == "File":
        assert back["filename"] == info["filename"]
    elif type_name in {"Json", "Object"} and isinstance(value, str):
        assert same(back, value) or same(back, json.loads(value))
    elif type_name == "Gadget":
        assert same(back, typed_value)
    elif isinstance(value, str) and type_name in {"Short", "integer", "Long"}:
        assert str(back) == value
    elif isinstance(value, str) and type_name == "Double":
        assert back == float(value)
    elif isinstance(value, str) and type_name == "Boolean":
        assert json.dumps(back) == value
    elif type_name in {"Short", "integer", "Long", "Double"} and value is not None:
        assert back == value
    else:
        assert same(back, value)


@given(st.dictionaries(st.text(hostile), anything))
def test_any_json_object_is_typed_or_refused(values: dict[str, Any]) -> None:
    """A worker's nonsense must end in a parked message, never in a dead thread."""
    try:
        request = typed(values)
    except ValueRefused as refusal:
        str(refusal).encode()
        return

    assert request.keys() == values.keys()
    json.dumps(request, allow_nan=False, ensure_ascii=False).encode()


@given(st.text() | anything.map(json.dumps), st.data())
def test_any_json_text_of_the_engine_makes_strict_json(text: str, data: st.DataObject) -> None:
    """One odd document in one process must not stop the messages of the others."""
    cut = data.draw(st.integers(0, len(text)))

    for document in (text, text[:cut]):
        value = shown("Json", document)
        if not isinstance(value, str):
            assert same(value, json.loads(document))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_in_its_shortest_text_is_parsed(number: float) -> None:
    """Documents written from doubles, the common case, never stay text."""
    assert same(shown("Json", f"[{number!r}]"), [number])


since_java_and_python_agree = st.datetimes(
    min_value=datetime.fromisoformat("1583-01-01"), max_value=datetime.fromisoformat("9999-12-30")
)


@given(since_java_and_python_agree, st.integers(-1439, 1439))
def test_every_moment_of_a_millisecond_is_kept(moment: datetime, offset: int) -> None:
    """ISO 8601 is what workers' libraries write; the engine knows only its own spelling."""
    sign, minutes = "-" if offset < 0 else "+", abs(offset)
    zone = f"{sign}{minutes // 60:02}:{minutes % 60:02}"
    text = f"{moment.isoformat(timespec='microseconds')}{zone}"
    try:
        back = there_and_back({"value": text, "type": "Date"})
    except ValueRefused:
        assert moment.microsecond % 1000
        return

    assert datetime.fromisoformat(back) == datetime.fromisoformat(text)
