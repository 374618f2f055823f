"""The part of a command that needs JAX: the cluster, and what an exception means."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

import jax
from absl import logging

from ape_jax.errors import Preempted, UserError
from ape_jax.parallel import ends, hosts, programs
from ape_jax.terminal import catalogue, flags

# What one process does, also where several were started.
_ALONE = frozenset({"curate", "export", "index", "judge", "page", "push", "report"})


def run(main: Callable[[], None], name: str, alone: bool) -> None:
    """Joins the cluster where there is one, calls `main` and ends the process after an error.

    Args:
      main: the command; its flags are parsed.
      name: of the command.
      alone: whether the process is the command's own.
    """
    kept = catalogue.kept(name)
    try:
        # Orbax logs a page for every checkpoint, and a page for every thread of one that fails,
        # besides raising.
        if not (flags.VERBOSE.value or flags.absl_verbosity_is_set()):
            logging.set_verbosity(logging.FATAL)
        if hosts.in_cluster() and name in _ALONE:
            raise UserError(
                f"{name}: this process is one of several that JAX connects, and one alone does "
                f"this; start {name} without JAX_COORDINATOR_ADDRESS and the like"
            )
        programs.keep()
        with hosts.cluster(kept, {"the command": name}):
            try:
                main()
            except Preempted as notice:
                print(notice, file=sys.stderr)
    except UserError as error:
        _end(f"error: {error}", 1, alone)
    except hosts.PeerEnded as error:
        _end(str(error), error.code, alone)
    except KeyboardInterrupt:
        _end(f"{kept}\ninterrupted", 130, alone)
    except Exception as error:
        if hosts.is_lost(error):
            reason = str(error).splitlines()[0]
            _end(
                f"error: another process of this run was lost ({reason}); {kept}",
                hosts.LOST,
                alone,
            )
        if jax.distributed.is_initialized():
            _end(traceback.format_exc(), hosts.LOST, alone)
        raise


def _end(message: str, code: int, alone: bool) -> NoReturn:
    """Says what is wrong and ends the process, at once if it is this command's own."""
    if alone:
        ends.at_once(message, code)
    sys.stdout.flush()
    print(message, file=sys.stderr, flush=True)
    sys.exit(code)
