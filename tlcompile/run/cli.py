"""The command `tlcompile <verb>`. Imports nothing heavy: `--help` answers within 0.3 s."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence

from tlcompile.errors.base import TLCompileError, did_you_mean, one_line

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
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else 2
    verb, *words = arguments
    if verb not in VERBS:
        what = "option" if verb.startswith("-") else "verb"
        advice = did_you_mean(verb, VERBS, "see tlcompile --help")
        print(
            f"there is no {what} '{one_line(verb)}' [unknown-verb]\n  fix  {advice}",
            file=sys.stderr,
        )
        return 2
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


def _run(verb: str, words: Sequence[str]) -> int:
    name, _, example = VERBS[verb]
    module = importlib.import_module(f"tlcompile.run.{name}")
    parser = argparse.ArgumentParser(
        prog=f"tlcompile {verb}",
        description=module.__doc__,
        epilog=f"example: tlcompile {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    if any(word in ("-h", "--help") for word in words):
        words = ["--help"]
    # Overrides and options may be mixed; `train` keeps all behind the recipe as it was typed.
    parse = parser.parse_args if verb == "train" else parser.parse_intermixed_args
    return int(module.run(parse(words)))


def _guarded(verb: str, words: Sequence[str]) -> int:
    """Run a verb; every error is one message on stderr, never a traceback."""
    try:
        return _run(verb, words)
    except TLCompileError as error:
        print(error, file=sys.stderr)
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
