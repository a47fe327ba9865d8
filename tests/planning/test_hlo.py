"""The reader of compiled programs: on what jax compiles here, and on what other chips have."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from purerl.compute.mesh import seed_mesh
from purerl.planning import hlo
from purerl.planning.launches import count_launches, shape_bytes

# A loop as a GPU's compiler prints it: an asynchronous fusion, a call, a slice that is updated.
TEXT = """\
HloModule jit_step, is_scheduled=true

FileNames
1 "/somewhere/rollout.py"
2 "/somewhere/train.py"

FunctionNames
1 "collect.<locals>.step"
2 "train_step"

FileLocations
1 {file_name_id=1 function_name_id=1 line=5 end_line=5 column=1 end_column=2}
2 {file_name_id=2 function_name_id=2 line=9 end_line=9 column=1 end_column=2}

StackFrames
1 {file_location_id=2 parent_frame_id=1}
2 {file_location_id=1 parent_frame_id=2}

%fused (p: f32[8,1000], i: s32[], x: f32[1000]) -> f32[8,1000] {
  %p = f32[8,1000]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %x = f32[1000]{0} parameter(2)
  %row = f32[1,1000]{1,0} bitcast(%x)
  %zero = s32[] constant(0)
  ROOT %new = f32[8,1000]{1,0} dynamic-update-slice(%p, %row, %i, %zero)
}

%picked (p.1: f32[8,1000], i.1: s32[]) -> f32[1000] {
  %p.1 = f32[8,1000]{1,0} parameter(0)
  %i.1 = s32[] parameter(1)
  %zero.1 = s32[] constant(0)
  %one = f32[1,1000]{1,0} dynamic-slice(%p.1, %i.1, %zero.1), dynamic_slice_sizes={1,1000}
  ROOT %flat = f32[1000]{0} bitcast(%one)
}

%added (i.2: s32[]) -> s32[] {
  %i.2 = s32[] parameter(0)
  %step = s32[] constant(1)
  ROOT %sum = s32[] add(%i.2, %step)
}

%graph (x.3: f32[1000]) -> f32[1000] {
  %x.3 = f32[1000]{0} parameter(0)
  %copied = f32[1000]{0} copy(%x.3)
  ROOT %twice = f32[1000]{0} custom-call(%copied), custom_call_target="library", backend_config="{}"
}

%body (arg: (s32[], f32[8,1000])) -> (s32[], f32[8,1000]) {
  %arg = (s32[], /*index=1*/f32[8,1000]{1,0}) parameter(0)
  %count = s32[] get-tuple-element(%arg), index=0
  %all = f32[8,1000]{1,0} get-tuple-element(%arg), index=1
  %pick = f32[1000]{0} fusion(%all, %count), kind=kLoop, calls=%picked
  %graphed = f32[1000]{0} call(%pick), to_apply=%graph
  %start = ((f32[8,1000]{1,0}, s32[], f32[1000]{0}), f32[8,1000]{1,0}, u32[]) fusion-start(%all, %count, %graphed), kind=kLoop, calls=%fused
  %done = f32[8,1000]{1,0} fusion-done(%start)
  %next = s32[] fusion(%count), kind=kLoop, calls=%added
  ROOT %out = (s32[], f32[8,1000]{1,0}) tuple(%next, %done)
}

%condition (arg.1: (s32[], f32[8,1000])) -> pred[] {
  %arg.1 = (s32[], f32[8,1000]{1,0}) parameter(0)
  %count.1 = s32[] get-tuple-element(%arg.1), index=0
  %bound = s32[] constant(8)
  ROOT %less = pred[] compare(%count.1, %bound), direction=LT
}

ENTRY %main (x.4: f32[8,1000]) -> f32[8,1000] {
  %x.4 = f32[8,1000]{1,0} parameter(0)
  %start.1 = s32[] constant(0)
  %init = (s32[], f32[8,1000]{1,0}) tuple(%start.1, %x.4)
  %loop = (s32[], f32[8,1000]{1,0}) while(%init), condition=%condition, body=%body, metadata={op_name="jit(step)/while" stack_frame_id=2}, backend_config={"known_trip_count":{"n":"8"}}
  ROOT %result = f32[8,1000]{1,0} get-tuple-element(%loop), index=1
}
"""  # noqa: E501


def test_launches_of_a_loop_are_counted_by_kind():
    (loop,) = count_launches(hlo.parse_hlo(TEXT)).loops
    assert loop.launches == {"fusion": 2, "copy": 1, "custom-call": 1, "fusion-start": 1}
    assert (loop.trips, loop.total_launches) == (8, 5)
    assert count_launches(hlo.parse_hlo(TEXT)).total_launches == 40


def test_a_loop_says_where_it_comes_from():
    program = count_launches(hlo.parse_hlo(TEXT))
    (loop,) = program.loops
    assert loop.places == (
        hlo.SourceLocation("rollout.py", "step"),
        hlo.SourceLocation("train.py", "train_step"),
    )
    assert list(program.find("train.py")) == [loop]
    assert list(program.find("update.py")) == []


def test_a_loop_that_does_not_say_how_often_it_turns_is_asked_for_its_bound():
    silent = TEXT.replace("known_trip_count", "unknown")
    (loop,) = count_launches(hlo.parse_hlo(silent)).loops
    assert (loop.trips, loop.total_launches) == (8, 5)
    (asked,) = count_launches(hlo.parse_hlo(silent.replace("direction=LT", "direction=NE"))).loops
    assert (asked.trips, asked.total_launches) == (1, 6)  # with that of the condition
    assert asked.total_bytes == loop.total_bytes + 4 + 4 + 1  # count and bound, and what is less


def test_traffic_is_of_slices_where_only_slices_are_touched():
    (loop,) = count_launches(hlo.parse_hlo(TEXT)).loops
    row, count = 4000, 4
    picked, graphed, updated, added = 2 * row + count, 4 * row, 2 * row + count, 2 * count
    assert loop.bytes == picked + graphed + updated + added


def test_traffic_leaves_out_arrays_that_stay_on_the_chip():
    (loop,) = count_launches(hlo.parse_hlo(TEXT), min_bytes=20_000).loops
    assert loop.bytes == 2 * 4000  # one row read, one written, of the array of 32 kB


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("f32[]", 4),
        ("pred[7]", 7),
        ("bf16[2,3]{1,0}", 12),
        ("u4[10]", 5),
        ("(f32[2]{0}, (s32[], u8[3]{0}))", 15),
        ("f32[16,2]{1,0:T(8,128)}", 16 * 128 * 4),
        ("f32[2,16]{0,1:T(8,128)}", 16 * 128 * 4),
        ("bf16[4,100]{1,0:T(8,128)(2,1)}", 8 * 128 * 2),
        ("f32[1024]{0:T(1024)S(1)}", 0),
        ("s32[]{:T(128)}", 4),
    ],
)
def test_sizes_are_those_of_the_padded_layout_in_device_memory(shape, expected):
    assert shape_bytes(shape) == expected


def test_loops_of_what_jax_compiles_here():
    def inner(x, _):
        return jnp.sin(x) * 2, None

    def outer(x, _):
        return jax.lax.scan(inner, x @ x, length=77)

    compiled = jax.jit(lambda x: jax.lax.scan(outer, x, length=33)[0]).lower(jnp.ones((64, 64)))
    module = hlo.parse_hlo(compiled.compile().as_text())
    (loop,) = count_launches(module).loops
    (nested,) = loop.loops
    assert (loop.trips, nested.trips) == (33, 77)
    assert loop.total_launches == sum(loop.launches.values()) + 77 * nested.total_launches
    assert nested.launches
    assert not nested.loops
    assert nested.places[0] == hlo.SourceLocation("test_hlo.py", "outer")
    assert not module.collectives()


def test_collectives_are_found():
    mesh = seed_mesh()

    def total(x):
        return jax.lax.psum(x, "seeds")

    shared = jax.shard_map(total, mesh=mesh, in_specs=P("seeds"), out_specs=P())
    compiled = jax.jit(shared).lower(jnp.ones(2 * mesh.size)).compile()
    assert set(hlo.parse_hlo(compiled.as_text()).collectives()) == {"all-reduce"}


def test_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="not a compiled program"):
        hlo.parse_hlo("module @jit_step {}")
