"""Run the command `univg`. Arguments are parsed first; what a verb needs is imported when it runs.

Exit codes: 0 done; 1 done, and something of the data was left out or is at fault (data, score), or an unexpected error;
2 what the caller can put right (one line on stderr); 3 a budget that is used up (construct); 130 Ctrl-C.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError

import univg
from univg.errors import UnivgError
from univg.terminal import is_first_process

DEBUG_VARIABLE = "UNIVG_DEBUG"
_AFTER_FIRST_S = 5.0
# Threads of one operator wait for each other in a loop. Where other programs use the cores, that loop takes the time
# that the one waited for needs: an answer took 39 s instead of 1 (benchmarks/busy_machine.py). A thirtieth of the usual
# length loses a tenth on an idle machine, a hundredth half (benchmarks/decoding_threads.py). Has effect only before
# torch is loaded; not for other OpenMPs than GNU's.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# In the order of the help. Each is `app` in the module of its name, imported only when it is asked for, so that the
# list of all of them comes at once; what it says here is the first paragraph of its own help.
VERBS = {
    "ground": "Answer a question about images: a thought, and a box drawn on the right image; with --all every one.",
    "demo": "Ground the bundled examples, draw the answers, and tell which are right and how many.",
    "world": "Write samples of the procedural world: samples.jsonl, images, and a contact sheet to check by eye.",
    "pretrain": "Train a model from scratch on the procedural world.",
    "sft": "Stage 1: fine-tune a checkpoint on samples with thoughts.",
    "grpo": "Stage 2: reinforcement learning by the boxes' overlap, with difficulty weights.",
    "doctor": "Tell what this machine has: versions, cards, memory, which extras are installed, fonts.",
    "fit": "Estimate what memory a run takes, before anything is loaded, and what to change.",
    "data": "Data sets: check, convert, count, look at, split, fetch, build, push.",
    "merge": "Make one plain model of a LoRA adapter and its base, and check that it answers as the two did.",
    "construct": "Write chains of thought: proposed by a teacher, verified, the best kept, all accounted for.",
    "evaluate": "Evaluate a model on a benchmark; stopped at any moment, the same command finishes what is missing.",
    "score": "Score responses made elsewhere: each beside its truth (`text`, `answer`), or by id against --data.",
    "report": "Make report.md, report.html (one file, opens anywhere) and plots, and print the tables.",
    "serve": "Serve a checkpoint behind OpenAI's chat interface. SIGTERM or Ctrl-C: what was asked is answered first.",
    "web": "Try a model in the browser: images, a question, its thought and its box.",
    "study": "The paper's ablation (Table 4) on the procedural world: arms trained, evaluated and compared.",
}


def build_app(arguments: Sequence[str]) -> App:
    """Make the command with the verb that `arguments` name, or else with the names and summaries of all."""
    app = App(
        name="univg",
        help="Ground language in images: several images and a question in, a chain of thought and a box out.",
        help_format="plaintext",
        version=f"univg {univg.__version__}",
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        exit_on_error=False,
        print_error=False,
    )
    if arguments and arguments[0] in VERBS:
        app.command(importlib.import_module(f"univg.cli.{arguments[0]}").app)
    else:
        for order, (verb, summary) in enumerate(VERBS.items()):
            app.command(App(name=verb, help=summary, sort_key=order))
    app.command(print_version, name="version", sort_key=len(VERBS))
    return app


def print_version() -> None:
    """Print the version."""
    print(f"univg {univg.__version__}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; the only place where every exception ends."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name or a thought may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    # Pillow logs what it also raises; without a handler Python would print it beside our one line.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    try:
        arguments = sys.argv[1:] if arguments is None else list(arguments)
        code = build_app(arguments)(arguments)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except UnivgError as error:
        return _fail(error.exit_code, *_find_lines(error))
    except CycloptsError as error:
        return _fail(2, _explain_usage(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone, `univg … | head`: no news to anybody
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001  (the process's edge)
        text = " ".join(str(error).split())[:300] or "no further words"
        return _fail(
            1, f"unexpected {type(error).__name__}: {text}: set {DEBUG_VARIABLE}=1 for the traceback"
        )


def _explain_usage(error: CycloptsError) -> str:
    """Say on one line what was wrong with the arguments, and where they are explained."""
    # The list of commands, which it cuts, is what --help shows in full.
    text = " ".join(str(error).split()).partition(" Available commands:")[0].rstrip(".")
    verb = " ".join(("univg", *(error.command_chain or ())))
    return f"{text} (see {verb} --help)" if text.endswith("?") else f"{text}: see {verb} --help"


def _find_lines(error: UnivgError) -> list[str]:
    """Return an error's lines; of one that a data loader's worker raised, torch gives the traceback as well."""
    lines = str(error).splitlines()
    if lines and lines[0].startswith("Caught ") and len(lines) > 1:
        return [lines[-1].removeprefix(f"{UnivgError.__module__}.{UnivgError.__name__}: ")]
    return lines


def _fail(code: int, *lines: str) -> int:
    if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
        traceback.print_exc()
    rank = ""
    if (
        not is_first_process()
    ):  # where the first one fails too, the launcher ends this one before it says so again
        time.sleep(_AFTER_FIRST_S)
        rank = f"process {os.environ['RANK']}: "
    for line in lines:
        print(f"error: {rank}{line}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
