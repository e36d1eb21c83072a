"""The command `tlcompile <verb>`. Imports nothing heavy: `--help` answers within 0.3 s."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from tlcompile.errors.base import TLCompileError, one_line
from tlcompile.errors.recipe import CommandLineError
from tlcompile.run.importing import importing
from tlcompile.run.signals import stoppable

# verb -> (module, one line, example); the module's `add_arguments` and `run` do the rest.
VERBS = {
    "init": ("init", "write a commented recipe", "init --base resnet18 --data data/flowers"),
    "zoo": ("zoo", "list base models, or the vertices of one", "zoo resnet18"),
    "check": ("check", "prove a recipe without weights or data", "check recipes/digits.yaml"),
    "plan": ("show_plan", "show what would happen", "plan recipes/digits.yaml freeze.upto=block2"),
    "train": ("fit", "compile and train", "train recipes/digits.yaml -m freeze.upto=stem,block1"),
    "find-rate": ("find_rate", "suggest a learning rate", "find-rate recipes/digits.yaml"),
    "advise": ("advise", "compare freeze points", "advise recipes/digits.yaml"),
    "evaluate": ("evaluate", "judge a run on labelled images", "evaluate runs/digits-1a2b3c4d"),
    "predict": ("predict", "say what is on images", "predict runs/flowers-1a2b3c4d photo.jpg"),
    "report": ("report", "write a page of a run or a sweep", "report sweeps/digits-1a2b3c4d"),
    "cache": ("cache", "list, verify or shrink stored features", "cache gc --budget 20GB"),
    "schema": ("schema", "print the JSON Schema of recipes", "schema > recipe.schema.json"),
}

READS_RECIPES = (
    "check",
    "plan",
    "train",
    "find-rate",
    "advise",
    "evaluate",
    "predict",
)  # these take --allow-plugin

INTERRUPTED = 130  # 128 + SIGINT, as shells count


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code.

    0 ok, 1 the run failed, 2 the recipe or the command line is wrong, 74 an I/O error,
    75 stopped by SIGUSR1 (queue it again), 130 interrupted, 143 stopped by SIGTERM.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else 2
    verb, *words = arguments
    return _guarded(verb, words)


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {line}" for verb, (_, line, _) in VERBS.items()]
    return "\n".join(
        [
            "usage: tlcompile VERB ...",
            "",
            "Compile a YAML recipe into a PyTorch model for transfer learning, and train it.",
            "",
            *lines,
            "",
            "`tlcompile VERB --help` has an example of each",
        ]
    )


class _Parser(argparse.ArgumentParser):
    """Argparse, with its refusals in our form."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the command line, instead of printing the usage."""
        unknown = message.removeprefix("unrecognized arguments: ")
        word = unknown.split()[0] if unknown != message else ""
        known = [option for action in self._actions for option in action.option_strings]
        problem = f"`{self.prog}` does not take '{one_line(word)}'" if word else message
        help_line = f"{self.prog} --help"
        raise CommandLineError(
            problem=problem, help=help_line, word=word, known=tuple(known) if word else ()
        )


def _run(verb: str, words: Sequence[str]) -> int:
    if verb not in VERBS:
        what = "option" if verb.startswith("-") else "verb"
        problem, known = f"there is no {what} '{one_line(verb)}'", tuple(VERBS)
        raise CommandLineError(problem=problem, help="tlcompile --help", word=verb, known=known)
    name, _, example = VERBS[verb]
    module = _module(f"tlcompile.run.{name}")
    parser = _Parser(
        prog=f"tlcompile {verb}",
        description=module.__doc__,
        epilog=f"example: tlcompile {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    if verb in READS_RECIPES:
        words = _allow_plugins(parser, words)
    if any(word in ("-h", "--help") for word in words):
        words = ["--help"]
    # Overrides and options may be mixed; `train` keeps all behind the recipe as it was typed.
    parse = parser.parse_args if verb == "train" else parser.parse_intermixed_args
    return int(module.run(parse(words)))


def _allow_plugins(parser: _Parser, words: Sequence[str]) -> Sequence[str]:
    """Load the plug-ins that the command line allows; return the words without them."""
    flag = _Parser(prog=parser.prog, add_help=False, allow_abbrev=False)
    for one in (flag, parser):  # in the parser for its help
        one.add_argument(
            "--allow-plugin", action="append", default=[], metavar="NAME",
            help="trust an installed package's layer of this name; may be given several times",
        )  # fmt: skip
    options, rest = flag.parse_known_args(words)
    _module("tlcompile.recipe.layers.plugins").allow_plugins(options.allow_plugin)
    return rest


def _module(path: str) -> Any:
    """Return a verb's module; imported once, as what is frozen then is never collected."""
    if path in sys.modules:
        return sys.modules[path]
    with importing():
        return importlib.import_module(path)


def _guarded(verb: str, words: Sequence[str]) -> int:
    """Run a verb; every error is one message on stderr, never a traceback; with --json data too."""
    try:
        with stoppable() if verb == "train" else contextlib.nullcontext():
            return _run(verb, words)
    except TLCompileError as error:
        print(error, file=sys.stderr)
        if "--json" in words:
            print(json.dumps({"ok": False, "problems": error.as_data()}, indent=1))
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.close()  # `| head` closed the pipe; at exit Python would flush once more
        return 0
    except Exception as error:
        if os.environ.get("TLCOMPILE_TRACEBACK"):
            raise
        text = str(error).splitlines()
        print(f"{type(error).__name__}: {text[0] if text else ''} [unexpected]", file=sys.stderr)
        print("  fix  report it with the output of TLCOMPILE_TRACEBACK=1", file=sys.stderr)
        return 1
