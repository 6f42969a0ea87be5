"""tools/bench answer: the load on a server, and what is compared."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from benchmarks import answer, load, report, turns
from benchmarks.context import Context
from benchmarks.targets import check


async def counted(fail_every: int) -> dict[str, float]:
    """The load of 3 clients on a server that answers every request but some."""
    served = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            asked = json.loads(await reader.readexactly(length))
            served += 1
            fails = "image" not in asked and served % fail_every == 0
            body = json.dumps({"image_id": "x", "answers": [{}]}, separators=(",", ":")).encode()
            writer.write(b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n" % (503 if fails else 200, len(body)) + body)

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        return await load.run(server.sockets[0].getsockname()[1], "/ask", 3, 40)


def test_the_load_counts_what_is_lost() -> None:
    assert asyncio.run(counted(1000))["lost"] == 0
    assert asyncio.run(counted(10))["lost"] == 4


def test_rows_are_compared_with_the_first_of_their_case() -> None:
    rows = answer.compared(answer.EASY, "ms", {"before": [2.0, 4.0], answer.EXPORTED: [1.0, 1.0]}, scale=1000)
    assert [row["ms"]["median"] for row in rows] == [3000, 1000]
    assert [row["of the first"]["median"] for row in rows] == [1, 0.375]
    machine = {"processor": "p", "cores": 2, "flags": [], "torch": "2"}
    found = {"machine": machine, "answer": rows}
    (target,) = check(found)
    assert (target["wanted"], target["measured"], target["reached"]) == ("<= 0.17", 0.375, "no")
    assert "0.375 of the first" in report.chart(found)


def test_the_other_build_is_imported_from_its_root(tmp_path: Path) -> None:
    assert turns.environment(tmp_path)["PYTHONPATH"] == str(tmp_path / "src")


def test_the_cost_of_a_command_that_fails_is_not_measured() -> None:
    with pytest.raises(RuntimeError, match="failed"):
        turns.cost(["false"], turns.environment())


@pytest.mark.slow
def test_one_question_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    context = Context("cpu", quick=True, folder=tmp_path)
    folders = answer.export_mcan(context)
    rows = [*answer.questions(context, folders), *answer.busy_core(context, folders)]
    assert [row["case"] for row in rows] == [*[answer.ONE[0]] * 3, *[answer.ONE[1]] * 3, *[answer.BUSY] * 2]
    assert all(row["ms"]["low"] > 0 for row in rows)
