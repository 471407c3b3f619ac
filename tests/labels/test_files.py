"""Files as people and programs leave them: what is good is taken, and what is not is told with its line."""

import gzip
import io
import json
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import InvalidInput, Unavailable
from tidemill.events.replay import Outgoing
from tidemill.labels.check import LabelCheck
from tidemill.labels.columns import Columns
from tidemill.labels.csv_file import CsvRows
from tidemill.labels.exporting import rows_reader
from tidemill.labels.importing import Importing, Refused, Summary
from tidemill.labels.jsonl_file import JsonlRows
from tidemill.labels.lines import LONGEST, Format, guess_format, open_labels
from tidemill.labels.said import SaidBefore
from tidemill.testing.clock import ManualClock
from tidemill.testing.loop import example_resource

RESOURCE = example_resource()
HEADER = "station,event_id,defect,box,labeller,time\n"


class Sink:
    """Keeps what is written, and fails when it is told to."""

    def __init__(self) -> None:
        self.records: list[Outgoing] = []
        self.fails_after: int | None = None

    def write(self, records: Sequence[Outgoing]) -> None:
        if self.fails_after is not None and len(self.records) >= self.fails_after:
            raise Unavailable("the broker is away")
        self.records += records

    @property
    def labels(self) -> list[dict[str, Any]]:
        return [json.loads(one.value or b"") for one in self.records]


class Imported:
    """A file that was imported, and what came of it."""

    def __init__(self, content: bytes, kind: Format = Format.CSV, *, new_classes: bool = False, **columns: Any) -> None:
        self.sink, self.refused = Sink(), list[Refused]()
        check = LabelCheck(RESOURCE, clock=ManualClock(), new_classes=new_classes)
        rows = rows_reader(kind, RESOURCE, Columns(RESOURCE, **columns))(io.BytesIO(content))
        with SaidBefore() as said:
            importing = Importing("t", check, sink=self.sink, said=said, on_refused=self.refused.append)
            self.summary = importing.run(rows)

    @property
    def taken(self) -> list[str]:
        """The events that were labelled."""
        return [one["event_id"] for one in self.sink.labels]

    @property
    def why(self) -> list[str]:
        """What was said of the others."""
        return [str(one) for one in self.refused]


def csv_of(*rows: str) -> bytes:
    return (HEADER + "".join(f"{row}\n" for row in rows)).encode()


def good(event: str) -> str:
    return f"A,{event},ok,,eve,"


def test_each_row_is_a_label_keyed_by_what_it_is_about() -> None:
    rows = ('A,e1,scratch,"[1, 2, 3, 4]",eve,2026-01-01T12:00:00Z', "A,e2,ok,null,,1767268800000", "A,e3,ok,,,")
    found = Imported(csv_of(*rows), by="adam")
    assert found.summary == Summary(taken=3)
    value = {"defect": "scratch", "box": [1, 2, 3, 4]}
    time = 1_767_268_800_000
    assert found.sink.labels == [
        {"value": value, "labeller": "eve", "entity": "A", "event_id": "e1", "time": time},
        {"value": {"defect": "ok", "box": None}, "labeller": "adam", "entity": "A", "event_id": "e2", "time": time},
        {"value": {"defect": "ok"}, "labeller": "adam", "entity": "A", "event_id": "e3"},
    ]
    assert {(one.topic, one.key) for one in found.sink.records} == {("t", b"A")}


def test_a_label_of_a_prediction_is_keyed_by_it() -> None:
    found = Imported(b"prediction_id,defect\np1,ok\n")
    assert [one.key for one in found.sink.records] == [b"p1"]


def test_a_refusal_names_line_and_reason_and_what_is_good_is_kept() -> None:
    bad = [
        ("A,e2,dirt,,,", "defect should be one of ok, scratch, not 'dirt'"),
        ('A,e3,ok,"[1,2,3]",,', "box should be [x0, y0, x1, y1] with x0 < x1 and y0 < y1, or null, not [1, 2, 3]"),
        ("A,e4,ok,big,,", "box should be [x0, y0, x1, y1] with x0 < x1 and y0 < y1, or null, not 'big'"),
        (",e5,ok,,,", "names neither a prediction (prediction_id) nor an event (entity and event_id)"),
        ("A,e6,ok,,,2036-01-01T00:00:00Z", "was said in the future: time is 2036-01-01T00:00:00.000Z"),
        ("A,e7,ok,,,yesterday", "time should be ISO 8601 with a zone, or milliseconds, not 'yesterday'"),
        ("A,e8,ok,,,2026-01-01T00:00:00", "time has no zone: '2026-01-01T00:00:00'; in UTC it ends in Z"),
        ("A,e9,ok", "has 3 cells, and the header 6"),
        ("A,e10,ok,,,,,", "has 8 cells, and the header 6"),
        ('A,"e"11,ok,,,', "',' expected after '\"'"),
        ("A,e12,,,,", "says nothing: value should be an object with the label's fields"),
        (f"A,{'e' * 2000},ok,,,", "event_id is longer than 1000 characters"),
    ]
    rows = [good("first"), *(row for row, _ in bad), good("last")]
    found = Imported(csv_of(*rows))
    assert found.taken == ["first", "last"]
    assert found.why == [f"line {number}: {why}" for number, (_, why) in enumerate(bad, 3)]
    assert (found.summary.taken, found.summary.refused) == (2, len(bad))
    assert found.summary.reasons["box should be [x0, y0, x1, y1] with x0 < x1 and y0 < y1, or null"] == 2
    assert found.summary.examples == found.refused[:10]


def test_bytes_that_are_no_text_cost_their_own_row_alone() -> None:
    content = csv_of(good("e1")) + b"A,e\xff2,ok,,,\nA,e\x003,ok,,,\n" + csv_of(good("e4")).split(b"\n", 1)[1]
    found = Imported(content)
    assert found.taken == ["e1", "e4"]
    assert found.why == ["line 3: is not UTF-8", "line 4: holds a NUL character"]


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm() -> None:
    content = b"\xef\xbb\xbf" + csv_of(good("e1"), good("e2")).replace(b"\n", b"\r\n")
    assert Imported(content).taken == ["e1", "e2"]
    lines = b'\xef\xbb\xbf{"value":{"defect":"ok"},"entity":"A","event_id":"e1"}\r\n\r\n'
    assert Imported(lines, Format.JSONL).taken == ["e1"]


def test_utf_16_is_refused_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes("a,b\n".encode("utf-16"))
    with pytest.raises(InvalidInput, match="UTF-16"), open_labels(path):
        pass


def test_a_quote_that_is_never_closed_costs_one_line() -> None:
    found = Imported(csv_of(good("e1"), 'A,"e2,ok,,,', good("e3"), good("e4")))
    assert found.taken == ["e1", "e3", "e4"]
    assert found.why == ["line 3: a quote is opened and not closed"]
    many = [good(f"n{number}") for number in range(20_000)]  # more than the csv module looks ahead
    found = Imported(csv_of('A,"e2,ok,,,', *many))
    assert (len(found.taken), found.why) == (20_000, ["line 2: a quote is opened and not closed"])


def test_a_cell_of_several_lines_is_one_row_told_by_its_first() -> None:
    found = Imported(csv_of('A,"e\n1",ok,,,', 'A,"e\n2",dirt,,,', good("e3")))
    assert found.taken == ["e\n1", "e3"]
    assert found.why == ["line 4: defect should be one of ok, scratch, not 'dirt'"]


def test_a_line_of_100_mb_is_refused_and_never_held() -> None:
    class Endless(io.RawIOBase):
        """A good row, a line of 100 MB, a good row; made as it is read."""

        left = 100 << 20
        rest: bytes = csv_of(good("e1"))
        tail = b"\n" + good("e3").encode() + b"\n"

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            if not self.rest and self.left:
                self.rest = b"x" * min(self.left, 1 << 16)
                self.left -= len(self.rest)
            elif not self.rest:
                self.rest, self.tail = self.tail, b""
            size = min(len(buffer), len(self.rest))
            buffer[:size], self.rest = self.rest[:size], self.rest[size:]
            return size

    tracemalloc.start()
    rows = list(CsvRows(Columns(RESOURCE))(io.BufferedReader(Endless())))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [row.line for row in rows if row.said] == [2, 4]
    assert [str(row.why) for row in rows if not row.said] == [f"is longer than {LONGEST:,} bytes"]
    assert peak < 8 << 20


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"[1]", "is no JSON object"),
        (b'{"value": {"defect": "ok"}, "entity": "A"', "is no JSON object"),
        (b'{"a":' * 100_000, "is no JSON object"),
        (b'{"value": ' + b'{"a":' * 800 + b"1" + b"}" * 800 + b', "entity": "A", "event_id": "e"}', "defect should be"),
        (b'{"value": "ok", "entity": "A", "event_id": "e"}', "value should be a JSON object"),
        (b'{"value": {"defect": "ok\\u0000"}, "entity": "A", "event_id": "e"}', "holds a NUL character"),
        (b'{"value": {"defect": "\\ud800"}, "entity": "A", "event_id": "e"}', "is no JSON object"),
        (b'{"value": {"defect": "ok"}, "entity": "A", "event_id": "e", "time": 1e400}', "is no JSON object"),
        (b'{"value": {"defect": "ok"}, "entity": "A", "event_id": "e", "time": true}', "not a label"),
        (b'{"value": {"defect": "ok"}, "entity": "A", "event_id": "e", "model": "other"}', "is of the model 'other'"),
        (b'{"value": {"defect": "ok"}, "entity": {"$ne": 1}, "event_id": "e"}', "not a label"),
        (
            b'{"value": {"defect": "ok", "note": "' + b"x" * 200_000 + b'"}, "prediction_id": "p"}',
            "larger than 128 KiB",
        ),
        (b"x" * (LONGEST + 1), "is longer than"),
        (b"\xff\xfe{}", "is not UTF-8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_json_line_that_is_no_label_is_refused_with_its_line(line: bytes, why: str) -> None:
    fine = b'{"value": {"defect": "ok"}, "entity": "A", "event_id": "e%d"}\n'
    found = Imported(fine % 1 + line + b"\n" + fine % 3, Format.JSONL)
    assert found.taken == ["e1", "e3"]
    assert len(found.why) == 1
    assert found.why[0].startswith("line 2: ")
    assert why in found.why[0]
    assert len(found.why[0]) < 400


def test_keys_of_json_lines_are_known_as_columns_are() -> None:
    lines = b'{"station": 7, "event_id": 12, "defect": "ok", "other": 1}\n'
    assert Imported(lines, Format.JSONL).sink.labels == [{"value": {"defect": "ok"}, "entity": "7", "event_id": "12"}]


def test_a_mapping_says_what_columns_of_other_names_mean() -> None:
    content = b"serial;Befund;event_id;value.note;x\n7;ok;e1;deep;y\n"
    found = Imported(content, mapping={"serial": "entity", "Befund": "value.defect"})
    assert found.sink.labels == [{"value": {"defect": "ok", "note": "deep"}, "entity": "7", "event_id": "e1"}]


@pytest.mark.parametrize(
    ("content", "mapping", "why"),
    [
        (b"", {}, "there is no header"),
        (b"\n\n", {}, "there is no header"),
        (b"\xff\n", {}, "there is no header: line 1 is not UTF-8"),
        (b"station,event_id\nA,e\n", {}, "no column says what the label is: defect, box"),
        (b"station,entity,event_id,defect\n", {}, "more than one column says entity"),
        (b"station,event_id,defect\n", {"Befund": "value.defect"}, "there is no column Befund"),
        (b"station,event_id,defect\n", {"defect": "klass"}, "mapped to 'klass', which no label has"),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused_as_a_whole(
    content: bytes, mapping: Mapping[str, str], why: str
) -> None:
    with pytest.raises(InvalidInput, match=why):
        Imported(content, mapping=mapping)


def test_a_new_class_is_refused_until_it_is_meant() -> None:
    content = csv_of("A,e1,dirt,,,")
    assert Imported(content).why == ["line 2: defect should be one of ok, scratch, not 'dirt'"]
    assert Imported(content, new_classes=True).sink.labels[0]["value"] == {"defect": "dirt"}


def test_a_row_that_stands_twice_counts_once() -> None:
    found = Imported(csv_of(good("e1"), good("e1"), 'A,e1,ok,"[0,0,4,4]",eve,', 'A,e1,ok,"[0, 0.0, 4.0, 4]",eve,'))
    assert (found.summary.taken, found.summary.repeated) == (2, 2)


def test_an_import_that_fails_says_how_far_it_came_and_the_next_takes_the_rest() -> None:
    rows = JsonlRows(Columns(RESOURCE))
    line = b'{"value": {"defect": "ok"}, "entity": "A", "event_id": "%d"}\n'
    content = b"".join(line % number for number in range(12_000))
    sink, check = Sink(), LabelCheck(RESOURCE, clock=ManualClock())
    sink.fails_after = 5_000
    with SaidBefore() as said, pytest.raises(Unavailable) as failed:
        Importing("t", check, sink=sink, said=said).run(rows(io.BytesIO(content)))
    assert "5,000 labels were taken" in (failed.value.hint or "")


def test_a_packed_file_that_is_cut_off_gives_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv.gz"
    rows = [good(f"{number * 7919 % 100_003}") for number in range(20_000)]
    path.write_bytes(gzip.compress(csv_of(*rows))[:-2000])
    check, sink = LabelCheck(RESOURCE, clock=ManualClock()), Sink()
    with open_labels(path) as file:
        summary = Importing("t", check, sink=sink, said=None).run(CsvRows(Columns(RESOURCE))(file))
    assert summary.taken > 10_000
    assert "cannot be read from here on" in summary.examples[-1].reason


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.csv", b"[", Format.CSV),
        ("a.tsv.gz", b"", Format.CSV),
        ("a.ndjson", b"[", Format.JSONL),
        ("a.json", b"[]", Format.LABEL_STUDIO),
        ("a.json", b'{"a": 1}\n', Format.JSONL),
        ("a", b"\xef\xbb\xbf \n[", Format.LABEL_STUDIO),
        ("a.txt", b'{"a"', Format.JSONL),
        ("a.txt", b"a,b", Format.CSV),
    ],
)
def test_the_format_is_guessed_by_name_and_content(name: str, content: bytes, kind: Format) -> None:
    file = io.BytesIO(content)
    assert guess_format(Path(name), file) is kind
    assert file.tell() == 0


@given(st.binary(max_size=300), st.sampled_from(Format))
def test_no_bytes_break_an_import(content: bytes, kind: Format) -> None:
    start = {Format.CSV: b"station,event_id,defect\n", Format.JSONL: b"", Format.LABEL_STUDIO: b"["}[kind]
    assert Imported(start + content, kind).summary.taken == 0
