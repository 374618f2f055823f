"""Tasks on actors: counted, done again after a fault, and refused in a sentence."""

import os
import pathlib
import sys
import time

import pytest

from ape_jax.errors import UserError
from ape_jax.parallel.actors import Again, RayCluster, cluster, open_pool

ray = pytest.importorskip("ray", reason="ray is not installed (ape_jax[ray])")
pytestmark = pytest.mark.timeout(240)


class Toy:
    """Methods with a fault each; `root` remembers what was tried, in whatever process."""

    def __init__(self, root):
        self._root = pathlib.Path(root)

    def _tried(self, method, x):
        with (self._root / f"{method}-{x}").open("a") as file:
            file.write("x")
            return file.tell()

    def square(self, x, *, report):
        report(3)
        return x * x

    def slow_first(self, x, *, report):
        time.sleep(4 if x == 0 else 0)
        return x

    def passes_the_third_time(self, x, *, report):
        report(2)
        if self._tried("passes", x) < 3:
            raise Again("not yet")
        return x

    def never_passes(self, x, *, report):
        self._tried("never", x)
        raise Again("the disk is full")

    def refuses(self, x, *, report):
        self._tried("refuses", x)
        raise UserError("row 7 is no image")

    def breaks(self, x, *, report):
        return x / 0

    def dies_the_first_time(self, x, *, report):
        report(5)
        if self._tried("dies", x) == 1:
            time.sleep(1.5)  # Meanwhile it is heard of.
            os._exit(1)
        report(-3)
        return x

    def says(self, *, report):
        print("one\ntwo", file=sys.stderr)

    def devices(self, *, report):
        import jax

        return jax.device_count()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("tried")


@pytest.fixture(scope="module")
def pool(ray_here, root):
    module = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(module)  # Actors cannot import it.
    with open_pool(RayCluster(actors=2), Toy, str(root)) as found:
        yield found
    ray.cloudpickle.unregister_pickle_by_value(module)


def results(pool, method, tasks, ahead=0):
    """What comes back, in that order, and the units in all."""
    found, units = [], []
    pool.run(method, [(x,) for x in tasks], lambda *done: found.append(done), units.append, ahead)
    return found, sum(units)


def test_each_task_is_done_once_and_its_units_are_counted(pool):
    found, units = results(pool, "square", range(5))
    assert sorted(found) == [(0, 0), (1, 1), (2, 4), (3, 9), (4, 16)] and units == 15


def test_tasks_are_begun_at_most_so_far_ahead(pool):
    free, _ = results(pool, "slow_first", range(8))
    bounded, _ = results(pool, "slow_first", range(8), ahead=2)
    assert [task for task, _ in free].index(0) > 2
    assert [task for task, _ in bounded][:2] == [1, 0]


def test_an_error_that_may_pass_is_tried_three_times(pool, root):
    assert results(pool, "passes_the_third_time", [4]) == ([(0, 4)], 2)
    with pytest.raises(UserError, match="the disk is full"):
        results(pool, "never_passes", [0])
    assert (root / "never-0").read_text() == "xxx"


def test_an_error_of_the_users_is_not_tried_again(pool, root):
    with pytest.raises(UserError, match="row 7 is no image"):
        pool.ask("refuses", 0)
    assert (root / "refuses-0").read_text() == "x"


def test_a_bug_comes_with_its_traceback(pool):
    with pytest.raises(RuntimeError, match=r"(?s)failed 3 times.*in breaks.*ZeroDivisionError"):
        pool.ask("breaks", 1)


def test_what_died_with_its_actor_is_done_by_another(pool):
    found, units = results(pool, "dies_the_first_time", [0, 1, 2])
    assert sorted(found) == [(0, 0), (1, 1), (2, 2)] and units == 6


def test_lines_for_the_user_come_here(pool, capsys):
    pool.ask("says")
    assert capsys.readouterr().err == "one\ntwo\n"


def test_an_actor_has_one_device_whatever_the_environment_says(pool):
    assert "device_count=8" in os.environ["XLA_FLAGS"] and pool.ask("devices") == 1


class Machines:
    """Ray with these nodes."""

    def __init__(self, *nodes):
        self._nodes = [{"Alive": True, "Resources": resources} for resources in nodes]

    def nodes(self):
        return self._nodes


@pytest.mark.parametrize(
    ("nodes", "asked", "room"),
    [
        ([{"CPU": 16.0}, {"CPU": 6.0}, {}], 0, (5, 4, 0)),
        ([{"CPU": 2.0}], 0, (1, 2, 0)),
        ([{"CPU": 2.0}], 2, (2, 1, 0)),
        ([{"CPU": 2.0}], 5, (5, 0.4, 0)),
        ([{"CPU": 3.0}, {"CPU": 3.0}], 3, (3, 1, 0)),
        ([{}], 4, (4, 1, 0)),
    ],
)
def test_room_on_cores(nodes, asked, room):
    found = cluster.room(Machines(*nodes), RayCluster(actors=asked))
    assert (found.actors, found.cpus, found.gpus) == room


def test_room_on_accelerators(monkeypatch):
    machines = Machines({"CPU": 64.0, "GPU": 8.0}, {"CPU": 8.0})
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    found = cluster.room(machines, RayCluster())
    assert (found.actors, found.cpus, found.gpus) == (8, 1, 1)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert cluster.room(machines, RayCluster()).gpus == 0


def test_a_cluster_without_cores_is_one_sentence():
    with pytest.raises(UserError, match="--actors: no node of the Ray cluster has a core now"):
        cluster.room(Machines({}), RayCluster())


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nowhere", "an address is 'auto', HOST:PORT or ray://HOST:PORT"),
        ("localhost:1", "Connection refused"),
        ("ray://localhost:1", "Connection refused"),
    ],
)
def test_no_cluster_at_the_address_is_one_sentence(address, reason, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UserError, match=f"--address: there is no Ray cluster .*{reason}") as error:
        with cluster.joined(RayCluster(address=address)):
            pass
    assert "\n" not in str(error.value)


def test_without_ray_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "ape_jax\[ray\]"'):
        with cluster.joined(RayCluster()):
            pass
