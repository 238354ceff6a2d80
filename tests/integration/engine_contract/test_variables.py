"""Variables of every type, both ways, and what is refused."""

from typing import Any

import pytest

from tests.integration.engine_contract.client import Engine, Json, refused, unreadable

VALUES: list[tuple[str, Any, Any]] = [
    ("Boolean", True, True),
    ("Boolean", "true", True),
    ("Short", -32768, -32768),
    ("Integer", 2147483647, 2147483647),
    ("Integer", "7", 7),
    ("Integer", None, None),
    ("Long", 9223372036854775807, 9223372036854775807),
    ("Long", "-9223372036854775808", -9223372036854775808),
    ("Double", 1.5, 1.5),
    ("Double", 5, 5.0),
    ("String", 'ü€😀 "quoted" \\ \n', 'ü€😀 "quoted" \\ \n'),
    ("String", "", ""),
    ("String", 5, "5"),
    ("String", "x" * 4000, "x" * 4000),
    ("Null", None, None),
    ("Bytes", "aGVsbG8=", "aGVsbG8="),
    ("Bytes", "", ""),
]
REFUSED_VALUES: list[tuple[str, Any, str]] = [
    ("Short", 40000, "java.lang.Short"),
    ("Integer", 3000000000, "java.lang.Integer"),
    ("Integer", -2147483649, "java.lang.Integer"),
    ("Integer", 1.5, "java.lang.Integer"),
    ("Integer", True, "java.lang.Integer"),
    ("Integer", "abc", "java.lang.Integer"),
    ("Long", 9223372036854775808, "java.lang.Long"),
    ("Double", "abc", "java.lang.Double"),
    ("Boolean", 1, "java.lang.Boolean"),
    ("Boolean", "yes", "java.lang.Boolean"),
    ("Date", "2026-01-02", "java.util.Date"),
    ("Date", "2026-01-02T03:04:05.678Z", "java.util.Date"),
    ("Date", "2026-01-02T03:04:05+0000", "java.util.Date"),
    ("Bytes", "%%", r"\[B"),
]
UNTYPED: list[tuple[Any, str]] = [
    (None, "Null"),
    (True, "Boolean"),
    (5, "Integer"),
    (2147483648, "Long"),
    (1.5, "Double"),
    ("s", "String"),
]


class TestVariables:
    def stored(self, engine: Engine, task: Json, variable: Json) -> Json:
        """Write through /failure, read through fetchAndLock: both ways at once."""
        engine.done(task, "failure", retries=1, variables={"x": variable})
        engine.await_expiry(task)
        found: Json = engine.one(task["topicName"], variables=["x"])["variables"]["x"]
        return found

    @pytest.mark.parametrize(("kind", "value", "expected"), VALUES)
    def test_primitive_values(
        self, engine: Engine, task: Json, kind: str, value: Any, expected: Any
    ) -> None:
        """What goes in comes out, with numbers and booleans read from text too."""
        found = self.stored(engine, task, {"value": value, "type": kind})

        assert found == {"value": expected, "type": kind, "valueInfo": {}}

    @pytest.mark.parametrize(("value", "kind"), UNTYPED)
    def test_without_a_type_json_decides(
        self, engine: Engine, task: Json, value: Any, kind: str
    ) -> None:
        """By size for whole numbers."""
        found = self.stored(engine, task, {"value": value})

        assert (found["value"], found["type"]) == (value, kind)

    @pytest.mark.parametrize(
        ("value", "name"), [({"a": 1}, "LinkedHashMap"), ([1, "x"], "ArrayList")]
    )
    def test_without_a_type_an_object_becomes_javas(
        self, engine: Engine, task: Json, value: Any, name: str
    ) -> None:
        """Unreadable for workers in other languages, so the bridge always sends a type."""
        found = self.stored(engine, task, {"value": value})

        assert found["type"] == "Object"
        assert found["value"].startswith("rO0AB")
        assert found["valueInfo"] == {
            "objectTypeName": f"java.util.{name}",
            "serializationDataFormat": "application/x-java-serialized-object",
        }

    def test_dates_keep_the_moment(self, engine: Engine, task: Json) -> None:
        """The offset of the answer is the engine's own."""
        given = {"value": "2026-01-02T03:04:05.678+0200", "type": "Date"}

        found = self.stored(engine, task, given)

        assert found["type"] == "Date"
        assert found["value"] == "2026-01-02T01:04:05.678+0000" or engine.kind != "simulated"
        assert found["value"][13:23] == ":04:05.678"

    def test_serialized_objects_are_kept_as_text(self, engine: Engine, task: Json) -> None:
        """The engine asks for no class while nobody asks to deserialize."""
        info = {
            "objectTypeName": "java.util.LinkedHashMap",
            "serializationDataFormat": "application/json",
        }
        given = {"value": '{"a": 1}', "type": "Object", "valueInfo": info}

        assert self.stored(engine, task, given) == given

    @pytest.mark.parametrize("text", ['{"a":[1,null]}', "[]", "{not json"])
    def test_json_is_text_and_never_checked(self, engine: Engine, task: Json, text: str) -> None:
        """Invalid JSON is accepted: the bridge must check it before."""
        given = {"value": text, "type": "Json", "valueInfo": {}}
        if engine.kind == "operaton":  # 1.0.3: its JSON data format cannot be had
            answer = engine.act(task, "complete", variables={"x": given})
            message = "Cannot find serializer for value .* of type 'json'.*"
            refused(answer, 500, "ProcessEngineException", message, 0)
            return

        assert self.stored(engine, task, given) == given

    def test_xml_needs_its_data_format(self, engine: Engine, task: Json) -> None:
        """Operaton is built without it, because its artifact cannot be had."""
        given = {"value": "<a/>", "type": "Xml", "valueInfo": {}}
        if engine.kind == "operaton":
            answer = engine.act(task, "complete", variables={"x": given})
            message = "Cannot find serializer for value .* of type 'xml'.*"
            refused(answer, 500, "ProcessEngineException", message, 0)
            return

        assert self.stored(engine, task, given) == given

    def test_a_file_comes_without_its_content(self, engine: Engine, task: Json) -> None:
        """Only its valueInfo is sent (`mimeType`, with a capital T); the bytes come apart."""
        info = {"filename": "a b.txt", "mimeType": "text/plain", "encoding": "UTF-8"}
        given = {"value": "aGVsbG8=", "type": "File", "valueInfo": info}

        found = self.stored(engine, task, given)

        assert found == {"value": None, "type": "File", "valueInfo": info}
        for scope in (task["processInstanceId"], task["executionId"]):
            data = engine.call("GET", f"/process-instance/{scope}/variables/x/data")
            assert (data.status_code, data.content) == (200, b"hello")
            assert data.headers["Content-Type"] == "text/plain;charset=UTF-8"
            assert 'filename="a b.txt"' in data.headers["Content-Disposition"]

    def test_bytes_can_be_fetched_apart_and_other_types_not(
        self, engine: Engine, task: Json
    ) -> None:
        """Also from the task's own scope."""
        local = {"raw": {"value": "aGVsbG8=", "type": "Bytes"}, "n": {"value": 1}}
        engine.done(task, "failure", retries=1, localVariables=local)
        path = f"/execution/{task['executionId']}/localVariables"

        raw = engine.call("GET", f"{path}/raw/data")
        assert (raw.content, raw.headers["Content-Type"]) == (b"hello", "application/octet-stream")
        refused(
            engine.call("GET", f"{path}/n/data"),
            400,
            "InvalidRequestException",
            "Value of variable with id .* is not a binary value.",
            None,
        )
        refused(
            engine.call("GET", f"{path}/nope/data"),
            404,
            "InvalidRequestException",
            "execution variable with name nope does not exist",
            None,
        )

    @pytest.mark.parametrize(("kind", "value", "java"), REFUSED_VALUES)
    def test_what_cannot_be_converted_is_refused(
        self, engine: Engine, task: Json, kind: str, value: Any, java: str
    ) -> None:
        """400, nothing changed: repeating it is useless."""
        answer = engine.act(task, "complete", variables={"x": {"value": value, "type": kind}})

        message = f"Cannot convert value '.*' of type '{kind}' to java type {java}"
        refused(answer, 400, "InvalidRequestException", message, None)
        assert engine.task(task)["workerId"] == "w"

    @pytest.mark.parametrize(
        ("variable", "status", "kind", "message", "code"),
        [
            (
                {"value": 1, "type": "Foo"},
                400,
                "RestException",
                "Unsupported value type 'Foo'",
                None,
            ),
            (
                {"value": {"a": 1}, "type": "Json"},
                400,
                "InvalidRequestException",
                "Must provide 'null' or String value for value of SerializableValue type 'Json'.",
                None,
            ),
            (
                {"value": "YQ==", "type": "File"},
                500,
                "IllegalArgumentException",
                "Cannot create file without valueInfo.",
                None,
            ),
            (
                {"value": "YQ==", "type": "File", "valueInfo": {"mimeType": "text/plain"}},
                500,
                "IllegalArgumentException",
                "Cannot create file without filename!.*",
                None,
            ),
            (
                {"value": None, "type": "File", "valueInfo": {"filename": "a"}},
                500,
                "IllegalArgumentException",
                "Provided value is not of .* type.",
                None,
            ),
            (
                {
                    "value": "rO0ABXA=",
                    "type": "Object",
                    "valueInfo": {
                        "objectTypeName": "java.lang.String",
                        "serializationDataFormat": "application/x-java-serialized-object",
                    },
                },
                500,
                "ProcessEngineException",
                ".*Cannot set variable with name x. Java serialization format is prohibited",
                0,
            ),
            (
                {"value": "x" * 4001, "type": "String"},
                500,
                "ProcessEnginePersistenceException",
                "An exception occurred in the persistence layer. .*",
                10002,
            ),
            (None, 500, "NullPointerException", ".*", None),
        ],
    )
    def test_refusals(
        self,
        engine: Engine,
        task: Json,
        *,
        variable: Any,
        status: int,
        kind: str,
        message: str,
        code: int | None,
    ) -> None:
        """Each has its own status, type and code: the bridge's classifier reads them."""
        answer = engine.act(task, "complete", variables={"x": variable})

        refused(answer, status, kind, message, code)
        assert engine.task(task)["workerId"] == "w"

    def test_a_variable_that_is_no_object_is_refused(self, engine: Engine, task: Json) -> None:
        """A bare value where `{"value":…}` belongs."""
        unreadable(engine, engine.act(task, "complete", variables={"x": "bare"}))

        assert engine.task(task)["workerId"] == "w"

    def test_the_instances_variables_can_be_changed_from_outside(
        self, engine: Engine, topic: str
    ) -> None:
        """What an `extendLock` result with variables does."""
        instance_id = engine.start(topic, {"old": {"value": 1}})
        path = f"/process-instance/{instance_id}/variables"

        body = {"modifications": {"new": {"value": "5", "type": "Long"}}, "deletions": ["old"]}
        assert engine.call("POST", path, body).status_code == 204

        variables = engine.variables_of(instance_id)
        assert variables["new"] == {"value": 5, "type": "Long", "valueInfo": {}}
        assert "old" not in variables
        refused(
            engine.call("POST", path, {"modifications": {"new": {"value": "x", "type": "Long"}}}),
            400,
            "InvalidRequestException",
            "Cannot modify variables for process instance: Cannot convert value 'x' .*",
            None,
        )
        refused(
            engine.call("POST", "/process-instance/nope/variables", body),
            500,
            "RestException",
            "Cannot modify variables for process instance nope: execution nope doesn't exist.*",
            0,
        )
