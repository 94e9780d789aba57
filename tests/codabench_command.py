"""The words `upload`, `status` and `fetch`, as a process that can be killed at a step.

    AXONNX_TEST_KILL="create_submission:after" python codabench_command.py upload …

A step is a method of the client, or `append <step>` of the records; `torn` leaves half a line.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from submission.codabench import cli as upload_cli
from submission.codabench import client as codabench
from submission.codabench.records import Records
from submission.codabench.transport import Patience
from submission.errors import SubmissionError

CALLS = (
    "competition",
    "can_submit",
    "create_dataset",
    "upload",
    "complete",
    "submissions",
    "create_submission",
    "submission",
)
LINES = ("started", "announced", "uploaded", "completed", "submitting", "submitted", "status")
STEPS = [
    *(f"{name}:after" for name in CALLS),
    *(f"append {name}:{moment}" for name in LINES for moment in ("torn", "after")),
    "create_submission:before",
]


def command(*words: object) -> int:
    """Run one of the three words as `axonnx submission` does; its exit status."""
    parser = argparse.ArgumentParser("axonnx submission")
    upload_cli.add_words(parser.add_subparsers(required=True))
    options = parser.parse_args([str(word) for word in words])
    try:
        code: int = options.run(options)
        return code
    except SubmissionError as error:
        print(f"axonnx: error: {error}", file=sys.stderr)
        return error.exit_status


def break_at(step: str, stop: Callable[[], NoReturn], put: Callable[..., None]) -> None:
    """Let `stop` be called at `step`; `put` replaces an attribute, as setattr does."""
    name, _, moment = step.partition(":")
    if not name.startswith("append "):
        real = getattr(codabench.CodabenchClient, name)

        def call(*args: Any, **values: Any) -> Any:
            if moment == "before":
                stop()
            real(*args, **values)
            stop()

        put(codabench.CodabenchClient, name, call)
        return
    append = Records.append

    def write(self: Records, upload: str, word: str, **values: Any) -> None:
        if word != name.removeprefix("append "):
            return append(self, upload, word, **values)
        if moment != "before":
            append(self, upload, word, **values)
        if moment == "torn":
            whole = self.path.read_bytes()
            lines = whole.splitlines(keepends=True)
            self.path.write_bytes(whole[: -(len(lines[-1]) // 2)])
        stop()

    put(Records, "append", write)


def _kill() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


if __name__ == "__main__":
    quick = partial(Patience, first=0.01)
    codabench.Patience = quick  # type: ignore[misc,assignment]
    if os.environ.get("AXONNX_TEST_KILL"):
        break_at(os.environ["AXONNX_TEST_KILL"], _kill, setattr)
    sys.exit(command(*sys.argv[1:]))
