"""Traffic and arrays read out of real compiled programs for eight devices."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from ape_jax.parallel import mesh as mesh_lib
from ape_jax.planner import program

ROWS = jax.ShapeDtypeStruct((64, 32), jnp.float32)
SHARE = 64 * 32 * 4 / 8


def text(fn):
    rows = P("data")
    mesh = mesh_lib.make_mesh()
    spread = jax.shard_map(fn, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)
    return jax.jit(spread).lower(ROWS).compile().as_text()


def passed_on(x):
    return jax.lax.ppermute(x, "data", [(i, (i + 1) % 8) for i in range(8)])


@pytest.mark.parametrize(
    ("fn", "kind", "size"),
    [
        (passed_on, "collective-permute", SHARE),
        (lambda x: jax.lax.all_gather(x, "data", tiled=True)[:8] * 2, "all-gather", 8 * SHARE),
        (lambda x: jax.lax.psum(x * 3, "data"), "all-reduce", 2 * SHARE),
    ],
)
def test_each_kind_of_collective(fn, kind, size):
    assert program.read(text(fn)).traffic() == {kind: size}


def test_a_loop_sends_as_often_as_it_runs():
    def ring(x):
        step = lambda i, c: passed_on(jnp.sin(c))  # noqa: E731
        return jax.lax.fori_loop(0, 7, step, x)

    assert program.read(text(ring)).traffic() == {"collective-permute": 7 * SHARE}


def test_the_bound_of_a_loop_is_found_in_its_condition_too():
    """Programs for a TPU do not carry the count."""
    lines = [
        "%cond (p: (s32[], f32[8])) -> pred[] {",
        "  %n = s32[]{:T(128)} constant(256)",
        "  %p = (s32[]{:T(128)}, f32[8]{0:T(256)S(1)}) parameter(0)",
        "  %i = s32[] get-tuple-element(%p), index=0",
        "  ROOT %lt = pred[] compare(%i, %n), direction=LT",
        "}",
        "%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {",
        "  %x = f32[8]{0:T(256)S(1)} collective-permute(%y), channel_id=1",
        "}",
        "ENTRY %main (a: f32[8]) -> f32[8] {",
        '  %w = (s32[], f32[8]) while(%t), condition=%cond, body=%body, metadata={op_name="a"}',
        "}",
    ]
    assert program.read("\n".join(lines)).traffic() == {"collective-permute": 256 * 32}


def test_the_largest_array_is_named_by_its_source():
    def fn(x):
        with jax.named_scope("grown"):
            return jnp.sin(x)[:, :, None] * jnp.arange(128.0)

    name, size = program.read(text(fn)).largest()[0]
    assert "grown" in name and size == 8 * 32 * 128 * 4


LOOP = """
%cut (p0: f32[4,256], p1: s32[]) -> f32[256] {
  %p0 = f32[4,256]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %ds = f32[1,256]{1,0} dynamic-slice(%p0, %p1, %p1), dynamic_slice_sizes={1,256}
  ROOT %b = f32[256]{0} bitcast(%ds)
}
%put (p0: f32[4,256], p1: f32[1,256], p2: s32[]) -> f32[4,256] {
  %p0 = f32[4,256]{1,0} parameter(0)
  %p1 = f32[1,256]{1,0} parameter(1)
  %p2 = s32[] parameter(2)
  ROOT %dus = f32[4,256]{1,0} dynamic-update-slice(%p0, %p1, %p2, %p2)
}
%outer (p0: f32[4,256], p1: s32[]) -> f32[256] {
  %p0 = f32[4,256]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  ROOT %inner = f32[256]{0} fusion(%p0, %p1), kind=kLoop, calls=%cut
}
%body (c: (s32[], f32[4,256], f32[4,256])) -> (s32[], f32[4,256], f32[4,256]) {
  %c = (s32[], f32[4,256]{1,0}, f32[4,256]{1,0}) parameter(0)
  %i = s32[]{:S(2)} get-tuple-element(%c), index=0
  %x = f32[4,256]{1,0} get-tuple-element(%c), index=1
  %y = f32[4,256]{1,0} get-tuple-element(%c), index=2
  %row = f32[256]{0} fusion(%x, %i), kind=kLoop, calls=%outer
  %near = f32[256]{0:T(256)S(1)} negate(%row)
  %as_row = f32[1,256]{1,0:T(256)S(1)} bitcast(%near)
  %z = f32[4,256]{1,0} fusion(%y, %as_row, %i), kind=kLoop, calls=%put
  ROOT %t = (s32[], f32[4,256], f32[4,256]) tuple(%i, %x, %z)
}
ENTRY %main (a: f32[4,256]) -> f32[4,256] {
  %a = f32[4,256]{1,0} parameter(0)
  %w = (s32[], f32[4,256], f32[4,256]) while(%t), body=%body, known_trip_count":{"n":"10"}
}
"""


def test_what_is_cut_out_or_written_into_an_array_counts_alone():
    row = 256 * 4
    # A row is cut out and written, read again into the near memory, and one written into an array.
    assert program.read(LOOP).moved() == 10 * (2 * row + row + row)


def test_what_a_whole_operation_moves_is_what_it_reads_and_writes():
    found = program.read(jax.jit(lambda x: x.T @ x).lower(ROWS).compile().as_text()).moved()
    assert 64 * 32 * 4 + 32 * 32 * 4 <= found <= 6 * 64 * 32 * 4
