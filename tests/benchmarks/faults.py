"""Faults at random moments: what is lost when a command is killed, or its disk fails it.

    python tests/benchmarks/faults.py [--count 200] [--seed 0] [--commands train,export]
        [--kinds kill,full] [--jobs 2] [--verbose]

draws a command, a kind of fault and a moment, lets it happen, and then starts the same command
again, three times at most. It survives where what it has made in the end is, bit for bit, what an
undisturbed run makes, or where every start refuses with one sentence that names what was damaged.
Prints one JSON line: faults, survived, refused, lost, tracebacks, wrong exit codes, seconds; each
fault that was not survived is said on stderr with what it takes to see it again.

Commands are forks of this process, which has imported what they import, so that a fault takes two
seconds and not ten. Rooms are small file systems of their own where root can mount them; elsewhere
a full disk is a bound on the size of a file. Read-only is for an owner without root's privileges.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import json
import multiprocessing
import multiprocessing.pool
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from tests.benchmarks import fault_commands
from tests.benchmarks.fault_commands import COMMANDS, Command

KINDS = ("kill", "term", "full", "readonly", "removed", "flip", "two")
_STARTS = 3  # After a fault.
_LIMIT = 120.0  # Seconds of a start.
_ROOM = "size=1g"


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    printed: str
    errors: str
    seconds: float

    @property
    def has_traceback(self) -> bool:
        """Whether it said more than sentences."""
        return "Traceback (most recent call last)" in self.errors

    @property
    def is_refusal(self) -> bool:
        """Whether it ended with one sentence."""
        sentences = re.findall(r"^error: .+$", self.errors, re.MULTILINE)
        return self.code == 1 and len(sentences) == 1 and not self.has_traceback


class Started:
    """A command that runs in a room, as a fork of this process."""

    def __init__(self, command: Command, room: pathlib.Path, prepare: Callable[[], None] | None):
        self._room, self._began, self._answer = room, time.monotonic(), ""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1] if command.module == "page" else 0
        words = [word.replace("{port}", str(self._port)) for word in command.words(room)]
        # Outside of the room, whose disk may be full.
        self._files = [tempfile.TemporaryFile(mode="w+") for _ in range(2)]
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            os.setsid()
            for number, file in enumerate(self._files, start=1):
                os.dup2(file.fileno(), number)
            if prepare is not None:
                prepare()
            os._exit(fault_commands.call(words, room) & 0xFF)

    def end(self) -> Ended:
        """Waits until it has ended; a page is asked one question first."""
        deadline = self._began + _LIMIT
        if self._port:
            watcher = multiprocessing.pool.ThreadPool(1)
            asked = watcher.apply_async(fault_commands.answer, (self._port, deadline))
            while not (asked.ready() or self.has_ended()):
                time.sleep(0.02)
            if asked.ready() and not self.has_ended():
                self._answer = asked.get()
                self.signal(signal.SIGTERM)
            watcher.terminate()
        while not self.has_ended():
            if time.monotonic() > deadline + 10:
                self.signal(signal.SIGKILL)
            time.sleep(0.01)
        # What it has started ends with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        printed, errors = ((file.seek(0), file.read())[1] for file in self._files)
        code = os.waitstatus_to_exitcode(self._status)
        return Ended(code, printed + self._answer, errors, self._seconds)

    def has_ended(self) -> bool:
        """Whether the process is gone."""
        if hasattr(self, "_status"):
            return True
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self._status, self._seconds = status, time.monotonic() - self._began
        return bool(pid)

    def signal(self, number: int) -> None:
        """Sends it a signal, if it is there."""
        if not self.has_ended():
            os.kill(self.pid, number)


class Rooms:
    """Makes rooms, each a copy of what its command begins with."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.mounts = os.geteuid() == 0 and sys.platform == "linux" and self._can_mount()

    def _can_mount(self) -> bool:
        with contextlib.suppress(OSError), self._mounted(self.folder / "tried"):
            return True
        return False

    @contextlib.contextmanager
    def _mounted(self, room: pathlib.Path) -> Iterator[None]:
        room.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", _ROOM, "tmpfs", str(room)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            raise OSError("cannot mount")
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", str(room)], check=False)

    @contextlib.contextmanager
    def room(self, name: str, command: Command) -> Iterator[pathlib.Path]:
        """A room under a name; it is gone afterwards."""
        room = self.folder / name
        with self._mounted(room) if self.mounts else contextlib.nullcontext():
            for folder in ("tmp", "cache"):
                (room / folder).mkdir(parents=True)
            text = fault_commands.CONFIG.format(world=self.folder / "world")
            (room / "config.py").write_text(text)
            (room / "images").symlink_to(self.folder / "world")
            if command.needs_run:
                for part in ("run", "cache"):
                    shutil.copytree(
                        self.folder / f"trained/{part}", room / part, dirs_exist_ok=True
                    )
            try:
                yield room
            finally:
                _set_modes(room, read_only=False)
        shutil.rmtree(room)

    def resize(self, room: pathlib.Path, nbytes: int | None) -> None:
        """Bounds what fits into a room; None for as much as before."""
        size = _ROOM if nbytes is None else f"size={max(nbytes, 4096)}"
        subprocess.run(["mount", "-o", f"remount,{size}", str(room)], check=True)


def _used(room: pathlib.Path) -> int:
    """Bytes of a file system that are taken."""
    status = os.statvfs(room)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def _set_modes(room: pathlib.Path, read_only: bool) -> None:
    for place, folders, names in os.walk(room):
        for name in [".", *folders, *names]:
            path = os.path.join(place, name)
            if not os.path.islink(path):
                with contextlib.suppress(FileNotFoundError):
                    os.chmod(path, (0o555 if read_only else 0o755))


def _obey_modes() -> None:
    """Takes root's privilege to write what is read-only from this process and what it starts."""
    if os.geteuid() or sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # Effective, permitted and inheritable, twice.
    override = 1
    libc.capget(header, sets)
    libc.prctl(24, override, 0, 0, 0)  # PR_CAPBSET_DROP
    for i in range(3):
        sets[i] &= ~(1 << override)
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


class Expected(NamedTuple):
    """What undisturbed runs of a command make, how long one takes and what it adds to a disk."""

    found: dict[str, str]
    seconds: float
    grown: int
    largest: int


def _found(command: Command, room: pathlib.Path, ended: Ended) -> dict[str, str]:
    """What a command has made, read in a process of its own."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        found: dict[str, str] = {}
        try:
            os.environ["APE_JAX_CACHE"] = str(room / "cache")
            # What these two keep only saves time; what they say is compared.
            made = () if command.module in ("evaluate", "page") else command.made
            found = fault_commands.digests(room, made) | command.found(room, ended.printed)
            if command.module == "page":
                found["answer"] = ended.printed.splitlines()[-1]
        except BaseException as error:
            found["error"] = f"{type(error).__name__}: {error}"
        with os.fdopen(writer, "w") as file:
            json.dump(found, file)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        found = json.load(file)
    os.waitpid(pid, 0)
    return found


def train(rooms: Rooms) -> None:
    """Makes the run that other commands begin with."""
    command = COMMANDS["train"]
    with rooms.room("trained-first", command) as room:
        ended = Started(command, room, None).end()
        assert ended.code == 0, ended
        for part in ("run", "cache"):
            shutil.copytree(room / part, rooms.folder / f"trained/{part}")


def undisturbed(rooms: Rooms, name: str) -> Expected:
    """Runs a command three times; what the last two have in common must be there after a fault."""
    command, seen = COMMANDS[name], []
    for i in range(3):
        with rooms.room(f"{name}-undisturbed-{i}", command) as room:
            before = _used(room)
            ended = Started(command, room, None).end()
            assert ended.code == 0, (name, ended)
            made = (path for name in command.made for path in (room / name).rglob("*"))
            sizes = [path.stat().st_size for path in made if path.is_file()]
            grown = max(_used(room) - before, 65536)
            seen.append((_found(command, room, ended), ended.seconds, grown, max(sizes, default=1)))
    (_, *_), (first, *_), (second, seconds, grown, largest) = seen
    same = {key: digest for key, digest in second.items() if first.get(key) == digest}
    assert same and "error" not in second, (name, second)
    return Expected(same, seconds, grown, largest)


class Fault(NamedTuple):
    """One fault of a campaign."""

    number: int
    command: str
    kind: str
    moment: float
    seed: int


def happen(rooms: Rooms, fault: Fault, expected: Expected) -> dict[str, Any]:
    """Lets a fault happen and starts the command again; says what became of it."""
    command, draw = COMMANDS[fault.command], random.Random(fault.seed)
    with rooms.room(f"{fault.number}", command) as room:
        ended = _disturbed(rooms, room, command, fault, expected, draw)
        starts = []
        for _ in range(_STARTS):
            starts.append(Started(command, room, None).end())
            if starts[-1].code == 0:
                break
        return _verdict(fault, command, room, ended, starts, expected)


def _verdict(
    fault: Fault,
    command: Command,
    room: pathlib.Path,
    ended: list[Ended],
    starts: list[Ended],
    expected: Expected,
) -> dict[str, Any]:
    differs: list[str] = []
    if starts[-1].code == 0:
        found = _found(command, room, starts[-1])
        differs = [key for key, digest in expected.found.items() if found.get(key) != digest]
        differs += ["error"] * ("error" in found)
        fate = "lost" if differs else "survived"
    elif _is_whole(fault, command, room, starts, expected):
        fate = "survived"
    else:
        fate = "refused" if all(start.is_refusal for start in starts) else "lost"
        if fate == "refused" and fault.kind != "flip":
            fate = "lost"  # Nothing is wrong any more.
    # What a signal ends before anything is begun has no words for it.
    allowed = {"kill": {-9}, "flip": {-9}, "term": {0, 1, 130, 143, -15}}.get(fault.kind, set())
    codes = [one.code for one in ended if one.code not in {0, 1} | allowed]
    codes += [one.code for one in starts if one.code not in (0, 1)]
    return {
        **fault._asdict(),
        "fate": fate,
        "differs": differs[:5],
        "traceback": any(one.has_traceback for one in [*ended, *starts]),
        "codes": codes,
        "said": [one.errors[-800:] for one in [*ended, *starts]],
    }


def _is_whole(
    fault: Fault, command: Command, room: pathlib.Path, starts: list[Ended], expected: Expected
) -> bool:
    """Whether an export is refused a second time because the first is there after all."""
    if fault.command != "export" or not all(start.is_refusal for start in starts):
        return False
    found = _found(command, room, starts[-1])
    return all(found.get(key) == digest for key, digest in expected.found.items())


def _disturbed(
    rooms: Rooms,
    room: pathlib.Path,
    command: Command,
    fault: Fault,
    expected: Expected,
    draw: random.Random,
) -> list[Ended]:
    """How the processes ended to which the fault happened."""
    prepare, kind = _obey_modes if fault.kind == "readonly" else None, fault.kind
    if kind == "full":
        if rooms.mounts:
            rooms.resize(room, _used(room) + int(expected.grown * fault.moment))
        else:
            most = max(1, int(expected.largest * fault.moment))
            prepare = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))  # noqa: E731
        ended = [Started(command, room, prepare).end()]
        if rooms.mounts:
            rooms.resize(room, None)
        return ended
    running = [Started(command, room, prepare)]
    deadline = time.monotonic() + fault.moment * expected.seconds
    while time.monotonic() < deadline and not running[0].has_ended():
        time.sleep(0.005)
    if kind == "two":
        running.append(Started(command, room, None))
    elif kind in ("kill", "flip"):
        running[0].signal(signal.SIGKILL)
    elif kind == "term":
        running[0].signal(signal.SIGTERM)
    elif kind == "readonly":
        _set_modes(room, read_only=True)
    else:
        shutil.rmtree(room / command.made[0], ignore_errors=True)
    ended = [one.end() for one in running]
    if kind == "readonly":
        _set_modes(room, read_only=False)
    if kind == "flip":
        _flip(room, command, draw)
    if kind == "removed":
        for name in ("tmp", "cache"):
            (room / name).mkdir(exist_ok=True)
    return ended


def _flip(room: pathlib.Path, command: Command, draw: random.Random) -> None:
    """Flips one bit of what a command has made."""
    files = sorted(
        path for name in command.made for path in (room / name).rglob("*") if path.is_file()
    )
    files = [path for path in files if path.stat().st_size]
    if files:
        path = draw.choice(files)
        content = bytearray(path.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)


def drawn(count: int, seed: int, commands: list[str], kinds: list[str]) -> list[Fault]:
    """So many faults: each pair of a command and a kind as often as any other, in random order."""
    draw = random.Random(seed)
    pairs: list[tuple[str, str]] = []
    while len(pairs) < count:
        some = [(command, kind) for command in commands for kind in kinds]
        draw.shuffle(some)
        pairs += some
    return [
        Fault(i, *pair, draw.uniform(0.02, 1.0), draw.randrange(2**31))
        for i, pair in enumerate(pairs[:count])
    ]


def _write_world(folder: pathlib.Path) -> None:
    """Two small towers and pairs; in a process that they are forgotten with."""
    pid = os.fork()
    if not pid:
        from tests import tiny_world

        folder.mkdir()
        tiny_world.write(folder)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def _import_all() -> None:
    """What the commands import, once; some of it only when they need it."""
    os.environ |= {"JAX_PLATFORMS": "cpu", "TOKENIZERS_PARALLELISM": "false"}
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    import grain  # noqa: F401
    import pandas  # noqa: F401
    import tensorboardX  # noqa: F401
    import transformers.models.auto.tokenization_auto

    import ape_jax.commands.index
    import ape_jax.commands.train
    import ape_jax.evaluate
    import ape_jax.export
    import ape_jax.extract
    import ape_jax.index
    import ape_jax.main
    import ape_jax.page
    import ape_jax.runs.restore
    import ape_jax.studies.study
    import ape_jax.study
    import ape_jax.terminal.session
    import ape_jax.training.extraction
    import ape_jax.training.loop  # noqa: F401

    # Which class it is depends on a tower's files.
    assert transformers.AutoTokenizer and transformers.PreTrainedTokenizerFast


def main() -> None:
    """Runs a campaign and prints its figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    commands, kinds = options.commands.split(","), options.kinds.split(",")
    if unknown := {*commands} - {*COMMANDS} | {*kinds} - {*KINDS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    began = time.monotonic()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ape_jax_faults_")).resolve()
    try:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/xla"  # JAX reads it when imported.
        _import_all()
        rooms = Rooms(folder)
        _write_world(rooms.folder / "world")
        if any(COMMANDS[name].needs_run for name in commands):
            train(rooms)
        expected = {name: undisturbed(rooms, name) for name in COMMANDS if name in commands}
        for name, one in expected.items():
            print(f"{name}: {one.seconds:.1f} s, {len(one.found)} equal", file=sys.stderr)
        faults = drawn(options.count, options.seed, commands, kinds)
        verdicts = list(_all(rooms, faults, expected, options.jobs, options.verbose))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    counts = collections.Counter(verdict["fate"] for verdict in verdicts)
    figures = {
        "faults": len(verdicts),
        "survived": counts["survived"],
        "refused": counts["refused"],
        "lost": counts["lost"],
        "tracebacks": sum(verdict["traceback"] for verdict in verdicts),
        "wrong_exit_codes": sum(bool(verdict["codes"]) for verdict in verdicts),
        "seed": options.seed,
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(figures))
    sys.exit(bool(counts["lost"] or figures["tracebacks"] or figures["wrong_exit_codes"]))


def _all(
    rooms: Rooms, faults: list[Fault], expected: dict[str, Expected], jobs: int, verbose: bool
) -> Iterator[dict[str, Any]]:
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        calls = [
            pool.apply_async(happen, (rooms, fault, expected[fault.command])) for fault in faults
        ]
        for call in calls:
            verdict = call.get()
            bad = verdict["fate"] == "lost" or verdict["traceback"] or verdict["codes"]
            if bad or verbose:
                print(json.dumps(verdict), file=sys.stderr, flush=True)
            yield verdict


if __name__ == "__main__":
    main()
