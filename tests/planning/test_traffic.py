"""Collectives and memory traffic read from programs: written by hand, and compiled."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from tga_jax.planning.hlo import parse_program
from tga_jax.planning.traffic import collective_bytes, group_size, memory_traffic, network_bytes

PROGRAM = """HloModule step, is_scheduled=true

%body (p: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %p = (s32[]{:T(128)}, f32[8,16]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[8,16]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %shard = bf16[2,16]{1,0:T(8,128)(2,1)S(1)} fusion(%x, %i), kind=kLoop, calls=%slice
  %all-gather.1 = bf16[8,16]{1,0:T(8,128)(2,1)S(1)} all-gather(%shard), channel_id=5, \
replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}, use_global_device_ids=true
  %y = f32[8,16]{1,0:T(8,128)} fusion(%x, %all-gather.1), kind=kLoop, calls=%add
  %two = s32[]{:T(128)S(6)} constant(2)
  %next = s32[]{:T(128)S(6)} add(%i, %two)
  ROOT %t = (s32[], f32[8,16]{1,0}) tuple(%next, %y)
}

%slice (q: f32[8,16], j: s32[]) -> bf16[2,16] {
  %q = f32[8,16]{1,0} parameter(0)
  %j = s32[] parameter(1)
  %zero = s32[] constant(0)
  %d = f32[2,16]{1,0} dynamic-slice(%q, %j, %zero), dynamic_slice_sizes={2,16}
  ROOT %c = bf16[2,16]{1,0} convert(%d)
}

%add (a: f32[8,16], b: bf16[8,16]) -> f32[8,16] {
  %a = f32[8,16]{1,0} parameter(0)
  %b = bf16[8,16]{1,0} parameter(1)
  %again = bf16[8,16]{1,0} all-gather(%b), channel_id=5, replica_groups=mesh['a'=2,'b'=4] {'b'}
  %f = f32[8,16]{1,0} convert(%b)
  ROOT %s = f32[8,16]{1,0} add(%a, %f)
}

%cond (r: (s32[], f32[8,16])) -> pred[] {
  %r = (s32[], f32[8,16]{1,0}) parameter(0)
  %k = s32[] get-tuple-element(%r), index=0
  %n = s32[] constant(13)
  ROOT %lt = pred[] compare(%k, %n), direction=LT
}

%all-reduce-scatter.2 (g: f32[8,16]) -> f32[2,16] {
  %g = f32[8,16]{1,0} parameter(0)
  %sum = f32[8,16]{1,0} all-reduce(%g), channel_id=9, replica_groups={{0,1,2,3},{4,5,6,7}}
  %o = s32[] constant(0)
  ROOT %own = f32[2,16]{1,0} dynamic-slice(%sum, %o, %o), dynamic_slice_sizes={2,16}
}

ENTRY %main (param: f32[8,16]) -> f32[2,16] {
  %param = f32[8,16]{1,0:T(8,128)} parameter(0)
  %zero.1 = s32[] constant(0)
  %init = (s32[], f32[8,16]{1,0}) tuple(%zero.1, %param)
  %loop = (s32[], f32[8,16]{1,0}) while(%init), condition=%cond, body=%body
  %out = f32[8,16]{1,0:T(8,128)} get-tuple-element(%loop), index=1
  %moved = (f32[8,16]{1,0}, f32[8,16]{1,0}, u32[]{:S(2)}) collective-permute-start(%out), \
channel_id=11, source_target_pairs={{0,1},{1,0}}
  %arrived = f32[8,16]{1,0} collective-permute-done(%moved)
  ROOT %mine = f32[2,16]{1,0} fusion(%arrived), kind=kCustom, calls=%all-reduce-scatter.2
}
"""


def test_a_loop_runs_from_its_start_by_its_step_to_its_bound() -> None:
    runs = {c.name: times for c, times in parse_program(PROGRAM).runs()}
    assert runs == {"main": 1, "body": 7}  # 0, 2, ... 12
    later = PROGRAM.replace("%zero.1 = s32[] constant(0)", "%zero.1 = s32[] constant(3)")
    assert {c.name: n for c, n in parse_program(later).runs()}["body"] == 5


def test_collectives_count_loops_and_a_channel_once() -> None:
    assert collective_bytes(parse_program(PROGRAM), devices=8) == {
        "all-gather": 7 * (8 * 16 * 2) * 3 / 4,
        "collective-permute": 8 * 16 * 4,
        "all-reduce-scatter": 8 * 16 * 4 * 3 / 4,
    }


@pytest.mark.parametrize(
    ("kind", "target", "share"),
    [
        ("ALL_REDUCE", "{1,2}x{0:3}", 1.0),
        ("ALL_REDUCE", "{1:4}x{0:3}", 1.5),
        ("ALL_GATHER", "{1:4}x{0}", 3.0),
        ("REDUCE_SCATTER", "{1,2}x{0}", 0.5),
        ("ONE_TO_ONE", "{1}x{0}", 1.0),
    ],
)
def test_what_goes_to_other_slices_is_handed_to_the_host(
    kind: str, target: str, share: float
) -> None:
    assert network_bytes(parse_program(PROGRAM)) == 0
    transfer = f'_xla_megascale_target="{target}",_xla_megascale_transfer_type="{kind}"'
    send = (
        "  %a.1 = token[] after-all()\n"
        "  %send = (bf16[4,16]{1,0:T(8,128)}, u32[], token[]) send(%d, %a.1), channel_id=77, "
        f"is_host_transfer=true, frontend_attributes={{{transfer}}}\n  %two ="
    )
    text = PROGRAM.replace("  %two =", send)
    assert network_bytes(parse_program(text)) == 7 * 4 * 16 * 2 * share


def test_memory_traffic_counts_slices_and_leaves_out_the_chip() -> None:
    array, piece = 8 * 16 * 4, 2 * 16 * 4
    # In the loop the counter (twice) and the slice are read, then x is read and y written; what
    # is gathered stays on the chip.
    turn = 2 * 4 + piece + 2 * array
    permuted = 2 * array  # read and written
    scattered = piece  # the rest of what arrives is the collective's business
    assert memory_traffic(parse_program(PROGRAM)) == 7 * turn + permuted + scattered


def test_memory_traffic_looks_into_fusions_inside_fusions() -> None:
    """As TPU programs have them: a product that takes its operand's slice itself."""
    nested = """
%outer (q: f32[8,16], j: s32[]) -> bf16[2,16] {
  %q = f32[8,16]{1,0} parameter(0)
  %j = s32[] parameter(1)
  ROOT %inside = bf16[2,16] fusion(%q, %j), kind=kLoop, calls=%slice
}
"""
    text = PROGRAM.replace("kind=kLoop, calls=%slice", "kind=kLoop, calls=%outer").replace(
        "\nENTRY", nested + "\nENTRY"
    )
    assert memory_traffic(parse_program(text)) == memory_traffic(parse_program(PROGRAM))


def test_room_that_is_only_allocated_is_no_traffic() -> None:
    room = (
        '  %room = f32[8,16]{1,0:T(8,128)} custom-call(), custom_call_target="AllocateBuffer"\n'
        "  %zero.1 ="
    )
    text = PROGRAM.replace("  %zero.1 =", room)
    assert memory_traffic(parse_program(text)) == memory_traffic(parse_program(PROGRAM))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}, x", 2),
        ("replica_groups=[2,4]<=[8]", 4),
        ("replica_groups=[2,4]<=[4,2]T(1,0), x", 4),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}, x", 8),
        ("replica_groups=mesh['axis_0'=16] {'axis_0':(1)8}, x", 8),
        ("replica_groups={}, x", 8),
    ],
)
def test_group_sizes_in_every_notation(text: str, size: int) -> None:
    assert group_size(text, 8) == size


def test_a_compiled_scan_runs_its_body_as_often_as_it_is_long() -> None:
    def f(x: jax.Array, ws: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, ws)[0]

    x, ws = jnp.ones((4, 4)), jnp.ones((13, 4, 4))
    program = parse_program(jax.jit(f).lower(x, ws).compile().as_text())
    assert 13 in [times for _, times in program.runs()]


def test_a_loop_of_unknown_length_is_refused() -> None:
    text = PROGRAM.replace("constant(13)", "parameter(1)")
    with pytest.raises(ValueError, match="length cannot be told"):
        collective_bytes(parse_program(text), devices=8)
