"""The command `tlcompile <verb>`. Imports nothing heavy: `--help` answers within 0.3 s."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from tlcompile.errors.base import TLCompileError

# verb -> (module, one line, example); the module's `add_arguments` and `run` do the rest.
VERBS = {
    "init": ("init", "write a commented recipe", "init --base resnet18 --data data/flowers"),
    "zoo": ("zoo", "list base models, or the vertices of one", "zoo resnet18"),
    "check": ("check", "prove a recipe without weights or data", "check recipes/digits.yaml"),
    "plan": ("show_plan", "show what would happen", "plan recipes/digits.yaml freeze.upto=block2"),
    "train": ("fit", "compile and train", "train recipes/digits.yaml -m freeze.upto=stem,block1"),
    "evaluate": ("evaluate", "judge a run on labelled images", "evaluate runs/digits-1a2b3c4d"),
    "predict": ("predict", "say what is on images", "predict runs/flowers-1a2b3c4d photo.jpg"),
    "schema": ("schema", "print the JSON Schema of recipes", "schema > recipe.schema.json"),
}

INTERRUPTED = 130  # 128 + SIGINT, as shells count


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code.

    0 ok, 1 the run failed, 2 the recipe or the command line is wrong, 74 an I/O error,
    130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    if not arguments:
        parser.print_help()
        return 2
    known = _known_verb(parser, arguments[0])
    options = parser.parse_args(arguments) if known else parser.parse_args(arguments[:1])
    module = importlib.import_module(f"tlcompile.run.{VERBS[options.verb][0]}")
    sub = argparse.ArgumentParser(
        prog=f"tlcompile {options.verb}",
        description=module.__doc__,
        epilog=f"example: tlcompile {VERBS[options.verb][2]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(sub)
    return _guarded(module.run, sub.parse_args(options.rest))


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {line}" for verb, (_, line, _) in VERBS.items()]
    parser = argparse.ArgumentParser(
        prog="tlcompile",
        description="Compile a YAML recipe into a PyTorch model for transfer learning, and train it.",
        epilog="verbs:\n" + "\n".join(lines) + "\n\n`tlcompile VERB --help` has an example of each",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=list(VERBS), metavar="VERB", help="what to do")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _known_verb(parser: argparse.ArgumentParser, word: str) -> bool:
    """Refuse an unknown verb with the nearest one."""
    if word.startswith("-") or word in VERBS:
        return word in VERBS
    from tlcompile.errors.base import did_you_mean

    parser.exit(
        2,
        f"tlcompile: there is no verb '{word}'\n  fix  {did_you_mean(word, VERBS, 'see --help')}\n",
    )


def _guarded(run: object, options: argparse.Namespace) -> int:
    """Run a verb; every error is one message on stderr, never a traceback."""
    assert callable(run)
    try:
        return int(run(options) or 0)
    except TLCompileError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `| head` closed the pipe
        return 0
    except Exception as error:
        if os.environ.get("TLCOMPILE_TRACEBACK"):
            raise
        text = str(error).splitlines()
        print(f"{type(error).__name__}: {text[0] if text else ''} [unexpected]", file=sys.stderr)
        print("  fix  report it with the output of TLCOMPILE_TRACEBACK=1", file=sys.stderr)
        return 1
