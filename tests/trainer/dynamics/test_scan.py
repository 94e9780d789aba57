"""A network as an ONNX Scan, against the plain engine: the same numbers to rounding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

import trainer.dynamics.nodes
from artifact import graph, providers
from trainer.dynamics import (
    NODES,
    Additive,
    Connectome,
    Diffusive,
    Gaussian,
    Network,
    OrnsteinUhlenbeck,
)
from trainer.dynamics.balloon import Bold
from trainer.dynamics.onnx_program import OperatorError, Operators, Value, number
from trainer.dynamics.scan import Exported, Observed, ScanError, scan_graph
from trainer.dynamics.scan_reference import begin, packed, simulated
from trainer.dynamics.tracing import Instruction, Program

Arrays = dict[str, np.ndarray]
REGIONS = 5


def connectome(lengths: bool = False) -> Connectome:
    generator = np.random.default_rng(3)
    weights = generator.random((REGIONS, REGIONS))
    weights = (weights + weights.T) / 2 / REGIONS
    positions = 10 + 20 * generator.random((REGIONS, REGIONS))
    return Connectome(weights, lengths=positions + positions.T if lengths else None)


def exported(
    network: Network, *, dt: float = 0.1, scheme: str = "heun", **changes: Any
) -> Exported:
    held = changes.pop("held", {})
    settings: dict[str, Any] = {
        "network": network,
        "values": {
            name: value.float() if isinstance(value, torch.Tensor) else value
            for name, value in network.values().items()
        },
        "dt": dt,
        "scheme": scheme,
        "start": begin(network, dt, scheme, inputs=held, seed=4),
        "driven": network.node.inputs[:1],
        "held": held,
        "parameters": (),
        "monitors": network.node.states + network.node.outputs,
        "every": 1,
    }
    return Exported(**{**settings, **changes})


class Ran:
    """The graph of a network in a session."""

    def __init__(self, wanted: Exported) -> None:
        self.wanted = wanted
        made, self.start = scan_graph(wanted)
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        self.content = model.SerializeToString(deterministic=True)
        self.session = providers.create_session(self.content)

    def __call__(self, feed: Arrays) -> Arrays:
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, feed), strict=True))

    def feed(self, rows: int, steps: int, amplitude: float = 0.1) -> Arrays:
        """Inputs drawn at random; parameters around their own values."""
        generator = np.random.default_rng(7)
        wanted, nodes = self.wanted, self.wanted.network.nodes
        found: Arrays = {
            wanted.stimulus(name): amplitude * generator.normal(size=(rows, steps, nodes))
            for name in wanted.driven
        }
        if wanted.numbers:
            found["noise"] = generator.normal(size=(rows, steps, wanted.numbers, nodes))
        for name in wanted.parameters:
            own = np.asarray(wanted.values[name])
            found[name] = own * generator.uniform(0.9, 1.1, (rows, wanted.width(name)))
        if wanted.carries_on:
            found["state"] = np.repeat(self.start, rows, axis=0)
        return {name: values.astype(np.float32) for name, values in found.items()}

    def plain(self, feed: Arrays) -> Any:
        """The run of the plain engine with the same inputs."""
        tensors = {name: torch.from_numpy(values) for name, values in feed.items()}
        wanted = self.wanted
        return simulated(
            wanted,
            {name: tensors[wanted.stimulus(name)] for name in wanted.driven},
            tensors.get("noise"),
            {name: tensors[name] for name in wanted.parameters},
            tensors.get("state"),
        )


def agree(ran: Ran, rows: int = 3, steps: int = 120, amplitude: float = 0.1) -> Arrays:
    """Compare with the plain engine: within 1e-4 sd, or the rounding of terms near 1."""
    feed = ran.feed(rows, steps, amplitude)
    answers, run = ran(feed), ran.plain(feed)
    for name in ran.wanted.monitors:
        wanted = run[name].numpy()
        assert answers[name].shape == wanted.shape
        bound = max(1e-4 * wanted.std(), 4e-6)
        np.testing.assert_allclose(answers[name], wanted, rtol=0, atol=bound)
    assert any(run[name].std() > 0 for name in ran.wanted.monitors)
    return answers


def node(name: str, **values: Any) -> Any:
    assert trainer.dynamics.nodes is not None
    return NODES.get(name)(**values)


def test_hopf_with_noise_and_parameters_as_inputs() -> None:
    frequencies = torch.linspace(0.1, 0.3, REGIONS)
    network = Network(
        node("hopf", a=0.1, w=frequencies),
        connectome(),
        coupling=Diffusive(k=0.4),
        noise=[Gaussian(sigma=0.05), OrnsteinUhlenbeck(target="y", sigma=0.1)],
    )
    wanted = exported(
        network, parameters=("coupling.k", "node.w", "noise.1.tau"), every=4, driven=("x", "y")
    )
    ran = Ran(wanted)
    assert [each.name for each in ran.session.get_inputs()] == [
        "stimulus.x",
        "stimulus.y",
        "noise",
        "coupling.k",
        "node.w",
        "noise.1.tau",
    ]
    agree(ran)
    summary = graph.check(ran.content)
    assert summary.operators["Scan"] == 1
    assert summary.subgraph_count == 1
    assert summary.metadata_count == 0


def test_jansen_rit_with_a_held_input_and_its_output() -> None:
    network = Network(node("jansen_rit"), nodes=REGIONS)
    held = {network.node.inputs[1]: 0.22}
    agree(Ran(exported(network, held=held, driven=network.node.inputs[:2], dt=0.5)))


@pytest.mark.parametrize("interpolate", [False, True])
def test_wilson_cowan_with_delays(interpolate: bool) -> None:
    network = Network(
        node("wilson_cowan"),
        connectome(lengths=True),
        coupling=Additive(k=2.0),
        noise=OrnsteinUhlenbeck(sigma=0.5),
        speed=13.0,
        interpolate=interpolate,
    )
    ran = Ran(exported(network, parameters=("coupling.k",)))
    feed = ran.feed(2, 120, 2.0)
    answers = agree(ran, 2, 120, 2.0)
    # Far from uncoupled, so that delays that are not there would show.
    alone = ran({**feed, "coupling.k": np.zeros((2, 1), np.float32)})
    assert np.abs(answers["E"] - alone["E"]).max() > 0.01


def test_a_node_that_reads_its_own_past() -> None:
    network = Network(node("wilson_cowan_delayed"), connectome(), coupling=Additive(k=0.5))
    agree(Ran(exported(network)), amplitude=2.0)


@pytest.mark.parametrize(
    "scheme", ["euler", "rk4", "stochastic_heun", "exponential_euler", "symplectic_euler"]
)
def test_every_scheme(scheme: str) -> None:
    network = Network(node("hopf", a=0.1), noise=Gaussian(sigma=0.05))
    agree(Ran(exported(network, scheme=scheme)))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NODES.names()))
def test_every_node(name: str) -> None:
    made = node(name)
    network = Network(
        made,
        connectome(),
        coupling=Additive(k=0.01),
        noise=OrnsteinUhlenbeck(sigma=0.01, target=made.inputs[0]),
    )
    agree(Ran(exported(network, dt=0.01 if name == "lorenz" else 0.1)))


def small() -> Network:
    return Network(node("hopf"), connectome(), noise=Gaussian(sigma=0.05))


def test_any_number_of_steps_and_rows_has_the_same_bits() -> None:
    ran = Ran(exported(small()))
    feed = ran.feed(4, 50)
    whole = ran(feed)
    for steps in (1, 2, 49):
        short = dict(feed, stimulus=feed["stimulus"][:, :steps], noise=feed["noise"][:, :steps])
        for name, values in ran(short).items():
            assert np.array_equal(values, whole[name][:, :steps])
    for row in range(4):
        alone = ran({name: values[row : row + 1] for name, values in feed.items()})
        assert np.array_equal(alone["x"], whole["x"][row : row + 1])


def test_the_same_network_gives_the_same_bytes() -> None:
    assert Ran(exported(small())).content == Ran(exported(small())).content


def test_bold_is_that_of_the_observation() -> None:
    network = Network(node("wilson_cowan"), connectome(), noise=OrnsteinUhlenbeck(sigma=0.5))
    bold, dt, every = Bold(period=120.0), 1.0, 2
    observed = Observed(bold.balloon, "E", every, 10, 20.0, bold.scheme, "bold", 6)
    ran = Ran(exported(network, dt=dt, every=every, observed=observed, monitors=("I",)))
    feed = ran.feed(2, 1000, 2.0)
    answers, run = ran(feed), ran.plain(feed)
    assert list(answers) == ["I", "bold"]
    wanted = bold.observe(run["E"], dt * every)[0].numpy()
    assert wanted.shape == (2, 8, REGIONS)
    assert wanted.std() > 1e-4
    np.testing.assert_allclose(answers["bold"], wanted, rtol=0, atol=1e-4 * wanted.std())


@pytest.mark.parametrize("delayed", [False, True])
def test_pieces_that_carry_on_are_the_whole_run(delayed: bool) -> None:
    network = Network(
        node("hopf"),
        connectome(lengths=True),
        noise=[Gaussian(sigma=0.05), OrnsteinUhlenbeck(target="x")],
        speed=10.0 if delayed else None,
    )
    ran = Ran(exported(network, carries_on=True))
    feed = ran.feed(2, 60)
    whole = ran(feed)
    first = {name: v if name == "state" else v[:, :23] for name, v in feed.items()}
    begun = ran(first)
    rest = {name: v[:, 23:] for name, v in feed.items() if name != "state"}
    ended = ran({**rest, "state": begun["final_state"]})
    assert np.array_equal(np.concatenate([begun["x"], ended["x"]], axis=1), whole["x"])
    assert np.array_equal(ended["final_state"], whole["final_state"])
    wanted = packed(ran.plain(feed).state).numpy()
    np.testing.assert_allclose(whole["final_state"], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"parameters": ("coupling.g",)},
            r"'coupling\.g' cannot be an input; one of .*coupling\.k",
        ),
        ({"parameters": ("weights",)}, "'weights' cannot be an input"),
        ({"driven": ("z",)}, "inputs: no 'z'; one of x, y"),
        ({"held": {"q": 1.0}}, "inputs: no 'q'"),
        ({"driven": ()}, "no stimulus"),
        ({"monitors": ("x", "eeg")}, "monitors: no 'eeg'; one of x, y"),
    ],
)
def test_what_cannot_be_exported_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ScanError, match=said):
        scan_graph(replace(exported(small()), **changes))


def test_a_batch_of_parameters_cannot_be_exported() -> None:
    batch = Network(node("hopf", a=torch.ones(3, 1)), connectome())
    with pytest.raises(ScanError, match=r"node\.a has 3 batch members"):
        scan_graph(replace(exported(small()), network=batch, values=batch.values()))


def program(op: str, *args: int | float) -> Program:
    inputs = (("carry", "0"), ("carry", "1"))
    return Program(inputs, (Instruction(op, args),), (("output", "", 2),))


def computed(op: str, first: np.ndarray, second: np.ndarray, *args: int | float) -> np.ndarray:
    operators = Operators()
    names = ("first", "second")
    values = [Value(name, moving=True, whole=True) for name in names]
    given = {("carry", str(place)): value for place, value in enumerate(values)}
    (result,) = operators.run(program(op, *args), given).values()
    kind = onnx.TensorProto.BOOL if result.boolean else onnx.TensorProto.FLOAT
    made = helper.make_graph(
        operators.step,
        "graph",
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["size"]) for n in names],
        [helper.make_tensor_value_info(result.name, kind, ["size"])],
        operators.constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = providers.create_session(model.SerializeToString())
    answer: np.ndarray = session.run(None, {"first": first, "second": second})[0]
    return answer


UNARY = ("abs", "neg", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "floor", "sign")
WAVES = ("sin", "cos", "tan", "tanh")
BINARY = (
    "add",
    "sub",
    "mul",
    "div",
    "pow",
    "maximum",
    "minimum",
    "gt",
    "ge",
    "lt",
    "le",
    "eq",
    "ne",
)


@pytest.mark.parametrize("op", UNARY + WAVES + BINARY)
def test_operators_are_those_of_torch(op: str) -> None:
    generator = np.random.default_rng(1)
    near = np.geomspace(1e-12, 0.5, 40)
    first = np.concatenate([generator.uniform(0.05, 4.0, 200), near]).astype(np.float32)
    if op in ("expm1", "tanh", "sin"):
        first = np.concatenate([first, -first])
    second = first[::-1].copy()
    args = (0, 1) if op in BINARY else (0,)
    tensors = [torch.from_numpy(each).double() for each in (first, second)[: len(args)]]
    wanted = getattr(torch, op)(*tensors).numpy()
    answer = computed(op, first, second, *args)
    assert (answer.dtype == np.bool_) == (wanted.dtype == np.bool_)
    if wanted.dtype == np.bool_:
        assert np.array_equal(answer, wanted)
    else:
        # Relative: numbers near 0 keep their digits.
        np.testing.assert_allclose(answer, wanted, rtol=3e-6, atol=1e-37)


def test_truth_counts_as_a_number_where_one_is_wanted() -> None:
    operators = Operators()
    x = Value("x", moving=True, whole=True)
    above = operators.run(program("gt", 0, 0.5), {("carry", "0"): x, ("carry", "1"): x})
    assert above["output", ""].boolean
    scaled = program("mul", 0, 3.0)
    operators.run(scaled, {("carry", "0"): above["output", ""], ("carry", "1"): x})
    assert [each.op_type for each in operators.step] == ["Greater", "Cast", "Mul"]


def test_an_operation_without_an_onnx_form_is_named() -> None:
    with pytest.raises(OperatorError, match="atan2"):
        computed("atan2", np.ones(2, np.float32), np.ones(2, np.float32), 0, 1)


def test_what_does_not_move_stands_before_the_loop() -> None:
    operators = Operators()
    moving, fixed = Value("x", moving=True, whole=True), Value("k")
    operators.add("Mul", operators.add("Exp", fixed), number(2.0))
    operators.add("Mul", moving, operators.add("Exp", fixed))
    assert [each.op_type for each in operators.before] == ["Exp", "Mul", "Exp"]
    assert [each.op_type for each in operators.step] == ["Mul"]
    assert len(operators.constants) == 1
