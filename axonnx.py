"""The one command: reads its first word and hands over to that package's command line."""

from __future__ import annotations

import importlib
import io
import sys

COMMANDS = {
    "quickstart": ("trainer.cli", "a minute's tour: train, serve, submit, compare"),
    "init": ("trainer.cli", "look at a recording and write a config that trains"),
    "train": ("trainer.cli", "train a model from a YAML file and export its artifact"),
    "prepare": ("trainer.cli", "turn a raw recording into windows"),
    "evaluate": ("trainer.cli", "score an artifact against the baselines"),
    "benchmark": ("trainer.cli", "compare models on data sets over seeds, in one table"),
    "crossvalidate": ("trainer.cli", "train a config once per fold"),
    "sweep": ("trainer.cli", "choose a config's settings by its held-out metric"),
    "simulate": ("trainer.cli", "run a network of neural masses from a YAML file"),
    "fit": ("trainer.cli", "fit the parameters of such a network to a target"),
    "export": ("trainer.cli", "rebuild an artifact from a run"),
    "runs": ("trainer.cli", "list, show and compare runs"),
    "models": ("trainer.cli", "list the models and their settings"),
    "datasets": ("trainer.cli", "list the data sets and their settings"),
    "steps": ("trainer.cli", "list the steps of a preparation and their settings"),
    "import-legacy": ("trainer.cli", "turn the organisers' published weights into an artifact"),
    "inspect": ("recording.cli", "show what a recording or an artifact holds"),
    "verify": ("artifact.cli", "check an artifact's hashes, graph and golden rows"),
    "predict": ("recording.cli", "run an artifact on a recording or on arrays"),
    "serve": ("serve.cli", "answer over HTTP"),
    "call": ("serve.call", "ask a service for predictions"),
    "submission": ("submission.cli", "build, check and run a CodaBench submission"),
}
# The extras that a command's module needs.
REQUIRES = {
    "artifact.cli": ("cpu",),
    "recording.cli": ("recordings", "cpu"),
    "trainer.cli": ("trainer", "cpu"),
    "serve.cli": ("serve", "cpu"),
    "serve.call": ("client",),
    "submission.cli": ("submission", "cpu"),
}
# The extras of packages that few commands need.
EXTRAS = {"optuna": "sweep", "ray": "ray"}
PACKAGES = frozenset(module.split(".")[0] for module in REQUIRES)


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
    module = COMMANDS[words[0]][0]
    try:
        code: int = importlib.import_module(module).main(words)
    except ModuleNotFoundError as missing:
        if missing.name in PACKAGES:
            print(
                f"axonnx: error: this installation lacks the package {missing.name!r}, "
                f"which `axonnx {words[0]}` belongs to",
                file=sys.stderr,
            )
            return 2
        if (missing.name or "").split(".")[0] in PACKAGES:
            raise
        print(f"axonnx: error: {_hint(words[0], module, missing.name)}", file=sys.stderr)
        return 2
    return code


def _hint(word: str, module: str, missing: str | None) -> str:
    """Which extras to install for a command."""
    more = EXTRAS.get((missing or "").split(".")[0])
    extras = REQUIRES[module] if more is None else (*REQUIRES[module], more)
    return (
        f"`axonnx {word}` needs the Python package {missing!r}: run "
        f"`uv sync {' '.join(f'--extra {extra}' for extra in extras)}` "
        f"(or `pip install 'axonnx[{','.join(extras)}]'`)"
    )


if __name__ == "__main__":
    sys.exit(main())
