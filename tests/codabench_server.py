"""A CodaBench for tests: the platform and its storage on two ports of this machine.

It behaves as the platform is known to: token, form login, competitions, uploads through signed
URLs, submissions whose status moves on at each look. The storage keeps a list of `violations`:
requests that a real one would refuse, or that carry what it must never see. `fail` makes the next
calls go wrong.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

TOKEN = "token-0123456789abcdef-distinctive"
USERNAME, PASSWORD = "ada", "password-correct-horse-distinctive"
SECRET_KEY = "secret-key-of-the-competition"
CONTENT_TYPE = "application/zip"
SCORES = {"MSE_affi": "0.3333333333", "total_MSR": "95288.4712345678"}
Answer = tuple[int, Any]


@dataclass(frozen=True)
class Look:
    """What one look at a submission shows."""

    status: str
    details: str = ""
    scores: dict[str, str] = field(default_factory=dict)


WAY = tuple(map(Look, ("Submitting", "Submitted", "Preparing", "Running", "Scoring")))
FINISHED = (*WAY, Look("Finished"), Look("Finished", scores=SCORES))
SHORT = (Look("Submitted"), Look("Finished", scores=SCORES))
LATE_FAILURE = (*WAY, Look("Finished"), Look("Failed", "Could not find scores file"))
FAILED = (*WAY, Look("Failed", "Child task failed or non-zero return code"))


@dataclass(frozen=True)
class Call:
    """One request that arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass
class Fault:
    """What goes wrong with the next `times` calls that match."""

    method: str
    path: str
    kind: str
    times: int
    value: Any


@dataclass
class Sent:
    """A submission on the platform."""

    id: int
    phase: int
    data: str
    script: tuple[Look, ...]
    task: int | None = None
    parent: int | None = None
    children: list[int] = field(default_factory=list)
    looks: int = 0
    on_leaderboard: bool = False
    fact_sheet: Any = None

    @property
    def look(self) -> Look:
        return self.script[min(self.looks, len(self.script) - 1)]


class Platform:
    """The state of the platform; tests set its fields and read what arrived."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.url = self.storage_url = ""
        self.reset()

    def reset(self) -> None:
        """Forget all that happened: an approved participant, one task, nothing submitted."""
        self.calls: list[Call] = []
        self.stored: list[str] = []  # keys of the uploads that arrived in full
        self.violations: list[str] = []
        self.faults: list[Fault] = []
        self.participant = "approved"
        self.auto_approve = True
        self.published = True
        self.refusal = ""
        self.used = 0
        self.per_day = 5
        self.quota = 1 << 30
        self.scripts: list[tuple[Look, ...]] = [SHORT]  # one per task, the last repeated
        self.hide_output = False
        self.hide_prediction = False
        self.rule = "Add"
        self.fact_sheet: dict[str, Any] | None = None
        self.log_names = ["prediction_ingestion_stderr", "scoring_stdout"]
        self.detail_urls: dict[str, str] = {}
        self.tasks = {11: "affi"}
        self.statuses = {70: "Previous", 71: "Current", 72: "Next"}
        self.datasets: dict[str, dict[str, Any]] = {}
        self.submissions: dict[int, Sent] = {}
        self.sessions: set[str] = set()
        self.next_id = 500
        self.public = self._place("starting_kit.zip", b"kit", 3)

    def fail(self, method: str, path: str, kind: str, times: int = 1, value: Any = None) -> None:
        """Make matching calls go wrong.

        kind: `status` (value), `html` (value: status), `body` (value: status and bytes),
        `drop` before and `drop_after` the call took effect, `slow` (value: seconds).
        """
        self.faults.append(Fault(method, path, kind, times, value))

    def changes(self) -> list[tuple[str, str]]:
        """Method and path of every call that may change something, uploads included."""
        return [(c.method, c.path) for c in self.calls if c.method not in ("GET", "HEAD")]

    def completed(self) -> list[str]:
        """Keys of the data sets whose upload was completed."""
        return [key for key, entry in self.datasets.items() if entry["completed"]]

    def roots(self) -> list[Sent]:
        """Submissions that are no children."""
        return [entry for entry in self.submissions.values() if entry.parent is None]

    def fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for entry in self.faults:
                if entry.times > 0 and entry.method == method and re.search(entry.path, path):
                    entry.times -= 1
                    return entry
        return None

    def _place(self, name: str, content: bytes, size: int) -> str:
        key = str(uuid.uuid4())
        entry = {"name": name, "size": size, "content": content, "completed": False}
        self.datasets[key] = entry
        return key

    def signed(self, key: str, name: str = "data") -> str:
        return f"{self.storage_url}/bucket/{key}/{name}?X-Amz-Signature=signed-{key}"

    # ---- the calls ------------------------------------------------------------------------
    def answer(self, call: Call) -> Answer:
        """Status and JSON of a call of the API."""
        authorization = call.headers.get("authorization")
        if authorization not in (None, f"Token {TOKEN}"):
            return 403, {"detail": "Invalid token."}
        known = authorization is not None
        for method, pattern, needs_login, work in self._routes():
            found = re.fullmatch(pattern, call.path)
            if found and method == call.method:
                if needs_login and not known:
                    return 403, {"detail": "Authentication credentials were not provided."}
                return work(call, *found.groups())
        return 404, {"detail": "Not found."}

    def _routes(self) -> list[tuple[str, str, bool, Callable[..., Answer]]]:
        number = r"/api/submissions/(\d+)"
        return [
            ("POST", "/api/api-token-auth/", False, self._token),
            ("GET", r"/api/competitions/(\d+)/", False, self._competition),
            ("POST", r"/api/competitions/(\d+)/register/", True, self._register),
            ("GET", r"/api/can_make_submission/(\d+)/", True, self._can),
            ("POST", "/api/datasets/", True, self._dataset),
            ("PUT", r"/api/datasets/completed/([0-9a-f-]+)/", True, self._complete),
            ("POST", "/api/submissions/", True, self._submit),
            ("GET", "/api/submissions/", True, self._list),
            ("GET", number + "/", True, self._submission),
            ("GET", number + "/get_details/", True, self._details),
            ("POST", number + "/submission_leaderboard_connection/", True, self._connect),
            ("GET", r"/api/leaderboards/(\d+)/", False, lambda call, n: (200, {"submissions": []})),
            ("GET", r"/api/phases/(\d+)/get_leaderboard/", False, self._board),
        ]

    def _token(self, call: Call) -> Answer:
        if (call.body.get("username"), call.body.get("password")) == (USERNAME, PASSWORD):
            return 200, {"token": TOKEN}
        text = "Unable to log in with provided credentials."
        return 400, {"non_field_errors": [text]}

    def _competition(self, call: Call, number: str) -> Answer:
        key = call.query.get("secret_key", [""])[0]
        if number != "7" or (not self.published and key != SECRET_KEY):
            return 404, {"detail": "Not found."}
        known = "authorization" in call.headers
        phases = [self._phase(index, id_) for index, id_ in enumerate(self.statuses)]
        return 200, {
            "id": 7,
            "title": "Neural [forecasting]",
            "participant_status": self.participant if known else None,
            "docker_image": "codalab/codalab-legacy:py37",
            "fact_sheet": self.fact_sheet,
            "allow_robot_submissions": False,
            "leaderboards": [{"id": 3, "title": "Results", "columns": [{"key": "total_MSR"}]}],
            "phases": phases,
        }

    def _phase(self, index: int, number: int) -> dict[str, Any]:
        return {
            "id": number,
            "index": index,
            "name": f"phase {'ABC'[index]}",
            "status": self.statuses[number],
            "start": "2026-01-01T00:00:00Z",
            "end": None,
            "execution_time_limit": 600,
            "has_max_submissions": True,
            "max_submissions_per_day": self.per_day,
            "max_submissions_per_person": 100,
            "used_submissions_per_day": self.used,
            "used_submissions_per_person": self.used + 12,
            "hide_output": self.hide_output,
            "tasks": [
                {"id": id_, "key": f"key-{id_}", "name": name} for id_, name in self.tasks.items()
            ],
            "starting_kit": {"key": self.public, "name": "starting_kit.zip", "file_size": 3},
        }

    def _register(self, call: Call, number: str) -> Answer:
        if self.participant not in ("", "unknown"):
            return 400, {"detail": "already applied"}
        if not self.published and call.body.get("secret_key") != SECRET_KEY:
            return 403, {"detail": "wrong secret key"}
        self.participant = "approved" if self.auto_approve else "pending"
        return 201, {"participant_status": self.participant}

    def _can(self, call: Call, number: str) -> Answer:
        if self.used >= self.per_day:
            return 200, {"can": False, "reason": "Reached maximum allowed submissions for today"}
        return 200, {"can": not self.refusal, "reason": self.refusal or None}

    def _dataset(self, call: Call) -> Answer:
        required = [key for key in ("request_sassy_file_name", "file_size") if key not in call.body]
        if required:
            return 400, {key: ["This field is required."] for key in required}
        if len(call.body.get("file_name", "")) > 64:
            return 400, {"file_name": ["at most 64 characters"]}
        if int(call.body["file_size"]) > self.quota:
            return 400, {"data_file": ["Insufficient storage space. Please free up some space."]}
        stem, dot, suffix = call.body["request_sassy_file_name"].rpartition(".")
        name = stem[:35] + dot + suffix
        key = self._place(name, b"", int(call.body["file_size"]))
        return 201, {"key": key, "sassy_url": self.signed(key, name)}

    def _complete(self, call: Call, key: str) -> Answer:
        if key not in self.datasets:
            return 404, {"detail": "Not found."}
        self.datasets[key]["completed"] = True
        return 200, {"key": key}

    def _submit(self, call: Call) -> Answer:
        key, phase = call.body.get("data"), int(call.body["phase"])
        if self.participant != "approved":
            return 403, {"detail": "You do not have access to this competition"}
        tasks = [int(task) for task in call.body.get("tasks", [])]
        if not set(tasks) <= set(self.tasks):
            return 400, {"non_field_errors": ["All tasks must be part of the current phase."]}
        answers = call.body.get("fact_sheet_answers")
        if answers and set(answers) != set(self.fact_sheet or {}):
            return 400, {"non_field_errors": ["Fact Sheet keys do not match Answer keys"]}
        if key not in self.datasets:
            return 400, {"data": [f"Object with key={key} does not exist."]}
        if self.used >= self.per_day:
            raise RuntimeError("the limit is not caught here")
        self.used += 1
        sent = self._add(key, phase, self.scripts[0])
        sent.fact_sheet = answers
        wanted = tasks or list(self.tasks)
        if len(wanted) == 1:
            sent.task = wanted[0]
        else:
            for index, task in enumerate(wanted):
                child = self._add(key, phase, self.scripts[min(index, len(self.scripts) - 1)])
                child.task, child.parent = task, sent.id
                sent.children.append(child.id)
        data = self.datasets[key]
        md5 = hashlib.md5(data["content"], usedforsecurity=False).hexdigest()
        return 201, {
            "id": sent.id,
            "data": key,
            "phase": phase,
            "status": "Submitting",
            "filename": data["name"],
            "md5": md5,
            "scores": [],
        }

    def _add(self, key: str, phase: int, script: tuple[Look, ...]) -> Sent:
        self.next_id += 1
        sent = self.submissions[self.next_id] = Sent(self.next_id, phase, key, script)
        return sent

    def _list(self, call: Call) -> Answer:
        phase = call.query.get("phase", [None])[0]
        entries = sorted(self.submissions.values(), key=lambda entry: -entry.id)
        found = [self._shown(entry) for entry in entries if str(entry.phase) == phase]
        return 200, found

    def _submission(self, call: Call, number: str) -> Answer:
        sent = self.submissions.get(int(number))
        if sent is None:
            return 404, {"detail": "Not found."}
        shown = self._shown(sent)
        sent.looks += 1
        return 200, shown

    def _shown(self, sent: Sent) -> dict[str, Any]:
        status, details = sent.look.status, sent.look.details
        leaves = [sent]
        if sent.children:
            leaves = [self.submissions[child] for child in sent.children]
            ended = all(leaf.look.status in ("Finished", "Failed") for leaf in leaves)
            status, details = ("Finished" if ended else "Running"), ""
        scores = [
            {"id": n, "index": n, "column_key": key, "score": score}
            for leaf in leaves
            for n, (key, score) in enumerate(leaf.look.scores.items())
        ]
        return {
            "id": sent.id,
            "name": None,
            "filename": self.datasets[sent.data]["name"],
            "description": "",
            "created_when": "2026-01-01 12:00",
            "status": status,
            "status_details": details or None,
            "owner": USERNAME,
            "phase": sent.phase,
            "phase_name": "phase B",
            "has_children": bool(sent.children),
            "parent": sent.parent,
            "children": sent.children,
            "task": None if sent.task is None else {"id": sent.task, "name": "t"},
            "scores": scores,
            "on_leaderboard": sent.on_leaderboard,
            "auto_run": True,
            "fact_sheet_answers": sent.fact_sheet,
        }

    def _details(self, call: Call, number: str) -> Answer:
        sent = self.submissions.get(int(number))
        if sent is None:
            return 404, {"detail": "Not found."}
        if self.hide_output:
            return 403, {"detail": "Cannot access submission details while phase marked to hide"}

        def link(name: str) -> str:
            if name in self.detail_urls:
                return self.detail_urls[name]
            return self.signed(self._place(name, f"{number} {name}\n".encode(), 1), "result")

        names = [] if sent.children else self.log_names
        return 200, {
            "logs": [{"name": name, "data_file": link(name)} for name in names],
            "data_file": self.signed(sent.data),
            "prediction_result": None if self.hide_prediction else link("prediction_result"),
            "scoring_result": link("scoring_result"),
            "detailed_result": None,
            "leaderboards": [],
        }

    def _connect(self, call: Call, number: str) -> Answer:
        if self.rule.startswith("Force"):
            return 403, {"detail": "Users are not allowed to edit the leaderboard"}
        self.submissions[int(number)].on_leaderboard = True
        return 200, {}

    def _board(self, call: Call, number: str) -> Answer:
        return 200, {"title": "Results", "primary_index": 0, "tasks": [], "submissions": []}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer leaves in one piece
    disable_nagle_algorithm = True
    platform: Platform

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.serve()

    do_PUT = do_POST = do_DELETE = do_GET

    def serve(self) -> None:
        split = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {key.lower(): value for key, value in self.headers.items()}
        call = Call(self.command, split.path, parse_qs(split.query), self.parsed(raw), headers)
        with self.platform.lock:
            self.platform.calls.append(call)
        fault = self.platform.fault(call.method, call.path)
        kind = "" if fault is None else fault.kind
        if kind == "drop":
            return self.hang_up()
        if fault is not None and kind in ("status", "html", "body"):
            return self.broken(fault)
        if fault is not None and kind == "slow":
            time.sleep(fault.value)
        status, body, extra = self.handle_call(call, raw)
        if kind == "drop_after":
            return self.hang_up()
        self.reply(status, body, extra)

    def handle_call(self, call: Call, raw: bytes) -> tuple[int, bytes, dict[str, str]]:
        raise NotImplementedError

    def parsed(self, raw: bytes) -> dict[str, Any]:
        kind = self.headers.get("Content-Type", "")
        if kind.startswith("application/json"):
            return json.loads(raw)
        if kind.startswith("application/x-www-form-urlencoded"):
            pairs = parse_qsl(raw.decode())
            form: dict[str, Any] = dict(pairs)
            if "tasks" in form:
                form["tasks"] = [value for key, value in pairs if key == "tasks"]
            return form
        return {}

    def broken(self, fault: Fault) -> None:
        if fault.kind == "body":
            status, body, *extra = fault.value
            return self.reply(status, body, extra[0] if extra else {})
        if fault.kind == "html":
            return self.reply(fault.value, b"<!doctype html><h1>Server Error</h1>", {})
        self.reply(fault.value, b'{"detail": "broken for a test"}', {"Retry-After": "0"})

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()

    def reply(self, status: int, body: bytes, extra: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in extra.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Api(_Handler):
    """The platform's port: the API, the login form, competition files."""

    def handle_call(self, call: Call, raw: bytes) -> tuple[int, bytes, dict[str, str]]:
        if call.path.startswith("/api/"):
            with self.platform.lock:
                try:
                    status, value = self.platform.answer(call)
                except RuntimeError:
                    return 500, b"<!doctype html><h1>Server Error (500)</h1>", {}
            # A platform may set cookies; a client with a token has no use for them.
            extra = {"Content-Type": "application/json", "Set-Cookie": "csrftoken=c; Path=/"}
            return status, json.dumps(value).encode(), extra
        cookies = dict(
            part.strip().partition("=")[::2] for part in call.headers.get("cookie", "").split(";")
        )
        if call.path == "/accounts/login/":
            return self.login(call, cookies)
        if found := re.fullmatch(r"/datasets/download/([0-9a-f-]+)/", call.path):
            if cookies.get("sessionid") not in self.platform.sessions:
                return 404, b"", {}
            return 302, b"", {"Location": self.platform.signed(found[1])}
        return 200, b"<!doctype html><h1>CodaBench</h1>", {}

    def login(self, call: Call, cookies: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        form = b"<!doctype html><form method=post></form>"
        if call.method == "GET":
            return 200, form, {"Set-Cookie": "csrftoken=csrf-1; Path=/"}
        if call.body.get("csrfmiddlewaretoken") != cookies.get("csrftoken"):
            return 403, b"CSRF verification failed.", {}
        if (call.body.get("username"), call.body.get("password")) != (USERNAME, PASSWORD):
            return 200, form, {}
        session = uuid.uuid4().hex
        self.platform.sessions.add(session)
        return 302, b"", {"Location": "/", "Set-Cookie": f"sessionid={session}; Path=/"}


class _Storage(_Handler):
    """The storage's port: signed URLs only, and nobody's token."""

    def serve(self) -> None:
        wrong = self.platform.violations
        if "Authorization" in self.headers:
            wrong.append("the storage saw an Authorization header")
        if TOKEN in str(self.headers) + self.path or PASSWORD in str(self.headers) + self.path:
            wrong.append("the storage saw a secret")
        if self.command == "PUT":
            if "Transfer-Encoding" in self.headers or "Content-Length" not in self.headers:
                wrong.append("the upload was chunked")
            if self.headers.get("Content-Type") != CONTENT_TYPE:
                wrong.append(f"the upload's Content-Type is {self.headers.get('Content-Type')}")
        super().serve()

    def handle_call(self, call: Call, raw: bytes) -> tuple[int, bytes, dict[str, str]]:
        found = re.fullmatch(r"/bucket/([0-9a-f-]+)/[^/]+", call.path)
        if found is None or call.query.get("X-Amz-Signature") != [f"signed-{found[1]}"]:
            return 403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>", {}
        entry = self.platform.datasets[found[1]]
        if call.method == "GET":
            return 200, entry["content"], {}
        if len(raw) != entry["size"]:
            return 400, b"<Error><Code>IncompleteBody</Code></Error>", {}
        entry["content"] = raw
        self.platform.stored.append(found[1])
        return 200, b"", {}


@contextmanager
def running() -> Iterator[Platform]:
    """The platform on two free ports; they are free again on leaving."""
    platform = Platform()
    servers = []
    try:
        for kind in (_Api, _Storage):
            handler = type(kind.__name__, (kind,), {"platform": platform})
            server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
            server.daemon_threads = True
            server.handle_error = lambda request, address: None  # type: ignore[method-assign]
            servers.append(server)
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        platform.url, platform.storage_url = (
            f"http://127.0.0.1:{server.server_address[1]}" for server in servers
        )
        yield platform
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
