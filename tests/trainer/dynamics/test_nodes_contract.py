"""What holds for every registered neural mass: declarations, shapes, gradients, tracing."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from trainer.dynamics import NODES, Network, Node, Param, Simulator, nodes
from trainer.dynamics.node import State
from trainer.dynamics.tracing import Roles, trace_backward

NAMES = NODES.names()
# Tracing takes up to 0.3 s: of these in the fast set.
TRACED = {"threshold_linear", "wilson_cowan_three_population", "kuramoto"}
SOME = [each if each in TRACED else pytest.param(each, marks=pytest.mark.slow) for each in NAMES]


def built(name: str) -> Node:
    return NODES.build({"name": name})


def drawn(node: Node, seed: int, *shape: int) -> tuple[State, State]:
    """States and inputs (*shape) in float64, between -1 and 1 and off the kinks there."""
    generator = torch.Generator().manual_seed(seed)

    def one() -> Tensor:
        return 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1

    return tuple(one() for _ in node.states), tuple(one() for _ in node.inputs)


def tensors(node: Node) -> dict[str, Tensor]:
    """The parameters as numbers in float64, a little off their defaults, which may be 0."""
    read = node.values()
    return {
        name: torch.tensor(1.01 * float(value) + 0.01, dtype=torch.float64)
        for name, value in read.items()
    }


def slopes(node: Node, state: State, input: State) -> Tensor:
    return torch.stack(node.derivative(state, input))


def test_the_package_exports_every_model_and_registers_it() -> None:
    classes = {NODES.get(name) for name in NAMES if NODES.get(name).__module__ in vars_of_nodes()}
    exported = {getattr(nodes, name) for name in nodes.__all__}
    assert classes == exported
    assert {"hopf", "stuart_landau", "wilson_cowan", "kuramoto", "lorenz"} <= set(NAMES)
    assert all(name == name.lower() and name.isidentifier() for name in NAMES)


def vars_of_nodes() -> set[str]:
    return {value.__name__ for value in vars(nodes).values() if inspect.ismodule(value)}


@pytest.mark.parametrize("name", NAMES)
def test_declarations_are_complete(name: str) -> None:
    node = built(name)
    assert all((node.states, node.inputs, node.source))
    for names in (node.states, node.inputs, node.states + node.outputs):
        assert len(set(names)) == len(names)
    assert set(node.start) <= set(node.states)
    for start in node.start.values():
        assert start[0] < start[1] if isinstance(start, tuple) else math.isfinite(start)
    assert set(node.limits) <= set(node.states)
    assert all(low < high for low, high in node.limits.values())
    assert set(node.state_units) <= set(node.states + node.outputs)
    assert set(node.lags) <= set(node.inputs[1:]), "the first input is the coupling's"
    for state, parameter in node.lags.values():
        assert state in node.states
        assert node.units()[parameter] == "ms"
    for field in dataclasses.fields(node):  # type: ignore[arg-type]
        assert all((field.metadata["unit"], field.metadata["meaning"])), field.name


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_gives_the_equation_of_every_state_and_the_source(name: str) -> None:
    text = inspect.getdoc(NODES.get(name)) or ""
    for state in built(name).states:
        assert f"{state}' = " in text, state
    assert "Source: " in text
    year = NODES.get(name).source.split(",")[0].split()[-1]
    assert year.isdigit()
    assert year in text


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_have_the_shape_and_type_of_their_states(name: str) -> None:
    node = built(name)
    for dtype in (torch.float32, torch.float64):
        state, input = (tuple(x.to(dtype) for x in group) for group in drawn(node, 0, 3, 4))
        for moved in (
            node.derivative(state, input),
            tuple(node.output(o, state) for o in outs(node)),
        ):
            assert all(each.shape == (3, 4) and each.dtype == dtype for each in moved)
        assert len(node.derivative(state, input)) == len(node.states)
    nothing = tuple(torch.zeros(()).double() for _ in node.inputs)
    assert all(each.shape == (3, 4) for each in node.derivative(drawn(node, 0, 3, 4)[0], nothing))


def outs(node: Node) -> tuple[str, ...]:
    return node.states + node.outputs


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_are_pure(name: str) -> None:
    node = built(name)
    state, input = drawn(node, 1, 3, 4)
    before = [each.clone() for each in state + input]
    first, second = slopes(node, state, input), slopes(node, state, input)
    assert torch.equal(first, second)
    assert torch.isfinite(first).all()
    assert all(torch.equal(a, b) for a, b in zip(before, state + input, strict=True))
    assert not first.requires_grad
    assert not list(node.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_and_its_nodes_equal_single_ones(name: str) -> None:
    node = built(name)
    state, input = drawn(node, 2, 3, 4)
    whole = slopes(node, state, input)
    for member, place in ((0, 0), (1, 3), (2, 2)):

        def single(each: Tensor, member: int = member, place: int = place) -> Tensor:
            return each[member : member + 1, place : place + 1].clone()

        alone = slopes(node, tuple(map(single, state)), tuple(map(single, input)))
        torch.testing.assert_close(alone[:, 0, 0], whole[:, member, place], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_per_node_and_per_member_broadcast(name: str) -> None:
    node = built(name)
    state, input = drawn(node, 3, 3, 4)
    values = tensors(node)
    for parameter, value in values.items():
        if parameter in {lag for _, lag in node.lags.values()}:
            continue
        per_node = value * torch.linspace(0.9, 1.1, 4, dtype=torch.float64)
        whole = slopes(node.having(values | {parameter: per_node}), state, input)
        last = slopes(node.having(values | {parameter: per_node[3]}), state, input)
        torch.testing.assert_close(whole[..., 3], last[..., 3], rtol=1e-12, atol=1e-14)
        per_member = value * torch.linspace(0.9, 1.1, 3, dtype=torch.float64)[:, None]
        whole = slopes(node.having(values | {parameter: per_member}), state, input)
        first = slopes(node.having(values | {parameter: per_member[0]}), state, input)
        torch.testing.assert_close(whole[:, 0], first[:, 0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    node = built(name)
    values = tensors(node)
    count = len(node.states)

    def moved(*given: Tensor) -> Tensor:
        bound = node.having(dict(zip(values, given[: len(values)], strict=True)))
        rest = given[len(values) :]
        return slopes(bound, rest[:count], rest[count:])

    for seed in range(2):
        state, input = drawn(node, seed, 1, 2)
        given = [each.clone().requires_grad_() for each in (*values.values(), *state, *input)]
        assert torch.autograd.gradcheck(moved, given, eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_and_input_matters(name: str) -> None:
    node = built(name)
    state, input = drawn(node, 4, 1, 64)
    # Each point has parameters of its own: some matter only on one side of a threshold.
    values = {k: v.expand(1, 64).clone().requires_grad_() for k, v in tensors(node).items()}
    moving = {k: each.requires_grad_() for k, each in zip(node.inputs, input, strict=True)}
    bound = node.having(values)
    seen = [bound.output(name, state) for name in node.outputs]
    total = torch.cat([slopes(bound, state, input), *(each[None] for each in seen)]).sum(dim=0)
    lags = {lag for _, lag in node.lags.values()}
    asked = {k: v for k, v in values.items() if k not in lags} | moving
    found = torch.autograd.grad(total.sum(), list(asked.values()), allow_unused=True)
    for key, gradient in zip(asked, found, strict=True):
        assert gradient is not None, key
        assert bool((gradient != 0).any()), key


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_run_under_vmap(name: str) -> None:
    node = built(name)
    state, input = drawn(node, 5, 3, 4)
    mapped = torch.vmap(functools.partial(slopes, node), out_dims=1)(state, input)
    torch.testing.assert_close(mapped, slopes(node, state, input), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", SOME)
def test_derivatives_are_traced_without_their_values(name: str) -> None:
    node = built(name)

    def moved(state: State, input: State) -> State:
        return node.derivative(state, input)

    graph = make_fx(moved)(*drawn(node, 6, 3, 4))
    state, input = drawn(node, 7, 3, 4)
    torch.testing.assert_close(
        torch.stack(list(graph(state, input))), slopes(node, state, input), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("name", SOME)
def test_a_step_and_its_backward_pass_are_element_wise(name: str) -> None:
    network = Network(built(name))
    parameters = tuple(network.values())
    node = network.node
    roles = Roles(
        carry=len(node.states),
        drive=tuple(range(len(node.inputs))),
        normals=0,
        arrived=len(node.lags),
        sent=0,
        parameters=parameters,
        inputs=len(node.inputs),
        coupled=False,
    )
    system = network.system(network.values(), 0.1, "euler")
    program = trace_backward(system, roles, tuple(("parameter", each) for each in parameters))
    assert len(program.outputs) == len(node.states) + len(parameters)


@pytest.mark.parametrize("name", SOME)
def test_the_replayed_trace_equals_the_plain_run(name: str) -> None:
    if NODES.get(name).lags:
        pytest.skip("nothing that is delayed is replayed")
    network = Network(built(name), nodes=3)
    runs = [
        Simulator(network, 0.01, engine=engine, dtype=torch.float64).run(
            0.2, batch_size=2, inputs={network.node.inputs[0]: 0.3}
        )
        for engine in ("plain", "replay")
    ]
    for state in network.node.states:
        torch.testing.assert_close(runs[0][state], runs[1][state], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_short_run_with_its_default_start_stays_finite_and_differentiable(name: str) -> None:
    node = built(name)
    first = node.parameter_names()[0]
    start = float(node.values()[first]) or 0.1
    network = Network(NODES.build({"name": name, first: Param(start)}), nodes=2)
    run = Simulator(network, 0.01, engine="plain").run(0.1, inputs={node.inputs[0]: 0.2})
    total = sum(run[state].square().sum() for state in node.states)
    total.backward()
    gradient = network.node.get_submodule(first).raw.grad  # type: ignore[union-attr]
    assert gradient is not None
    assert bool(torch.isfinite(gradient))
