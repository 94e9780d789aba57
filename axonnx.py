"""The one command: reads its first word and hands over to that package's command line."""

from __future__ import annotations

import importlib
import io
import sys

COMMANDS = {
    "quickstart": ("trainer", "a minute's tour: train, serve, submit, compare"),
    "train": ("trainer", "train a model from a YAML file and export its artifact"),
    "prepare": ("trainer", "turn a raw recording into windows"),
    "evaluate": ("trainer", "score an artifact against the baselines"),
    "export": ("trainer", "rebuild an artifact from a run"),
    "runs": ("trainer", "list, show and compare runs"),
    "models": ("trainer", "list the models and their settings"),
    "datasets": ("trainer", "list the data sets and their settings"),
    "import-legacy": ("trainer", "turn the organisers' published weights into an artifact"),
    "inspect": ("artifact", "show what an artifact holds"),
    "verify": ("artifact", "check an artifact's hashes, graph and golden rows"),
    "predict": ("artifact", "run an artifact on arrays"),
    "serve": ("serve", "answer over HTTP"),
    "call": ("serve", "ask a service for predictions"),
    "submission": ("submission", "build, check and run a CodaBench submission"),
}
REQUIRES = {
    "artifact": ("cpu",),
    "trainer": ("trainer", "cpu"),
    "serve": ("serve", "cpu"),
    "submission": ("submission", "cpu"),
}


def usage() -> str:
    """The list of commands, one line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {word:<{width}}  {text}" for word, (_, text) in COMMANDS.items()]
    return "usage: axonnx COMMAND …\n\n" + "\n".join(lines) + "\n\naxonnx COMMAND --help says more."


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 done, 1 a check that failed, 2 wrong arguments or a missing extra."""
    words = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):  # a terminal without µ shall not end a command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if not words or words[0] in ("-h", "--help"):
        print(usage(), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] not in COMMANDS:
        print(f"axonnx: error: no command {words[0]!r}\n\n{usage()}", file=sys.stderr)
        return 2
    package = COMMANDS[words[0]][0]
    try:
        code: int = importlib.import_module(f"{package}.cli").main(words)
    except ModuleNotFoundError as missing:
        if missing.name in REQUIRES:
            print(
                f"axonnx: error: this installation lacks the package {missing.name!r}, "
                f"which `axonnx {words[0]}` belongs to",
                file=sys.stderr,
            )
            return 2
        if (missing.name or "").split(".")[0] in REQUIRES:
            raise
        print(f"axonnx: error: {_hint(words[0], package, missing.name)}", file=sys.stderr)
        return 2
    return code


def _hint(word: str, package: str, missing: str | None) -> str:
    """Which extras to install for a command."""
    extras = REQUIRES[package]
    return (
        f"`axonnx {word}` needs the Python package {missing!r}: run "
        f"`uv sync {' '.join(f'--extra {extra}' for extra in extras)}` "
        f"(or `pip install 'axonnx[{','.join(extras)}]'`)"
    )


if __name__ == "__main__":
    sys.exit(main())
