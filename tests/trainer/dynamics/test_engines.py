"""The three engines run one step: equal values, equal gradients, the same bits for any cut."""

from __future__ import annotations

import functools
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from trainer.dynamics import (
    NODES,
    Additive,
    Connectome,
    Diffusive,
    Gaussian,
    Network,
    Node,
    OrnsteinUhlenbeck,
    Param,
    Simulator,
    engine,
    engine_compiled,
    kernel_build,
)
from trainer.dynamics.engine import EngineError, EngineWarning
from trainer.dynamics.layout import PADDING, choose_layout
from trainer.dynamics.node import node, parameter
from trainer.dynamics.nodes.hopf import Hopf
from trainer.dynamics.parameters import parametrized
from trainer.dynamics.tracing import TraceError

REGIONS = 5


@pytest.fixture(autouse=True)
def _double_by_default():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def connectome() -> Connectome:
    draws = np.random.default_rng(3)
    weights = draws.uniform(0.1, 1.0, (REGIONS, REGIONS))
    return Connectome(weights + weights.T, lengths=20 * (weights + weights.T))


def oscillators(**options) -> Network:
    """A network whose every part has something to fit."""
    return Network(
        Hopf(a=Param(np.linspace(0.1, 0.4, REGIONS)), w=Param(0.2)),
        connectome(),
        coupling=Diffusive(k=Param(0.1)),
        noise=[
            Gaussian(sigma=Param(0.02)),
            OrnsteinUhlenbeck(sigma=Param(0.1), tau=Param(8.0), target="y"),
        ],
        **options,
    )


def loss_of(run) -> torch.Tensor:
    ramp = torch.linspace(0.5, 1.5, run["x"].shape[1])[:, None]
    ends = sum(each.square().sum() for each in run.state.carry)
    return (run["x"] * ramp).square().mean() + run["y"].sum() + ends


def values_and_gradients(network: Network, which: str, scheme: str, **arguments):
    network.zero_grad()
    simulator = Simulator(network, 0.1, scheme=scheme, engine=which, dtype=torch.float64)
    run = simulator.run(6.0, seed=5, sample_every=3, transient=1.0, **arguments)
    loss_of(run).backward()
    return run, {name: param.raw.grad.clone() for name, param in network.fitted().items()}


def assert_same(first, second) -> None:
    run, gradients = first
    other, theirs = second
    assert run.time.tolist() == other.time.tolist()
    for name in run.values:
        torch.testing.assert_close(run[name], other[name], rtol=1e-12, atol=1e-12)
    assert gradients.keys() == theirs.keys()
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize(
    ("scheme", "options", "batch"),
    [
        ("euler", {}, 3),
        ("heun", {"weights": Param(connectome().weights)}, 3),
        ("exponential_euler", {}, 1),
        ("heun", {"speed": Param(10.0), "interpolate": True}, 2),
        ("euler", {"speed": Param(10.0), "interpolate": True}, 9),
    ],
    ids=["euler", "heun, weights", "exponential", "delays, lanes of nodes", "delays, of members"],
)
def test_compiled_values_and_gradients_are_those_of_torch(scheme, options, batch):
    network = oscillators(**options)
    plain, compiled = (
        values_and_gradients(network, which, scheme, batch_size=batch)
        for which in ("plain", "compiled")
    )
    assert_same(plain, compiled)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["rk4", "stochastic_heun", "symplectic_euler"])
@pytest.mark.parametrize("batch", [1, 20])
def test_every_scheme_and_layout(scheme, batch):
    network = oscillators(weights=Param(connectome().weights))
    plain, compiled = (
        values_and_gradients(network, which, scheme, batch_size=batch)
        for which in ("plain", "compiled")
    )
    assert_same(plain, compiled)


def test_gradients_of_inputs_starts_and_history():
    network = oscillators()
    found = {}
    for which in ("plain", "compiled"):
        drive = torch.full((1, 60, REGIONS), 0.1, requires_grad=True)
        start = torch.linspace(0.1, 0.5, REGIONS, requires_grad=True)
        simulator = Simulator(network, 0.1, engine=which, dtype=torch.float64)
        first = simulator.run(3.0, inputs={"x": drive[:, :30]}, start={"x": start}, seed=1)
        rest = simulator.run(3.0, inputs={"x": drive[:, 30:]}, state=first.state)
        (rest["x"].square().sum() + first["x"].sum()).backward()
        found[which] = drive.grad, start.grad
    for ours, theirs in zip(found["compiled"], found["plain"], strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"speed": Param(10.0), "interpolate": True}])
def test_checkpointed_gradients_are_the_same(options):
    network = oscillators(**options)
    whole, pieces = (
        values_and_gradients(network, "compiled", "euler", checkpoint_every=every, batch_size=2)
        for every in (0, 17)
    )
    assert_same(whole, pieces)


@pytest.mark.parametrize("which", ["replay", "compiled"])
@pytest.mark.parametrize("scheme", ["euler", "exponential_euler"])
def test_replayed_values_are_those_of_torch(which, scheme):
    network = oscillators()
    with torch.no_grad():
        runs = [
            Simulator(network, 0.1, scheme=scheme, engine=each, dtype=torch.float64).run(
                5.0, batch_size=3, seed=2, inputs={"x": 0.3}
            )
            for each in ("plain", which)
        ]
    for name in ("x", "y"):
        torch.testing.assert_close(runs[0][name], runs[1][name], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_compiled_batch_has_the_bits_of_its_members_and_of_any_cut(delayed, dtype):
    network = oscillators(**({"speed": 10.0} if delayed else {}))
    simulator = Simulator(network, 0.1, engine="compiled", dtype=dtype)
    # 20 members lie in lanes of members, one in lanes of nodes.
    layouts = {
        choose_layout(batch, REGIONS, coupled=not delayed, delayed=delayed).lanes
        for batch in (1, 20)
    }
    assert layouts == {"node", "batch"}
    with torch.no_grad():
        whole = simulator.run(12.0, batch_size=20, seed=4)
        for member in (0, 7, 19):
            alone = simulator.run(12.0, batch_size=1, seed=4, first_member=member)
            for name in ("x", "y"):
                assert torch.equal(alone[name][0], whole[name][member])
        pieces = list(simulator.stream(12.0, 2.3, batch_size=20, seed=4))
    for name in ("x", "y"):
        assert torch.equal(torch.cat([piece[name] for piece in pieces], dim=1), whole[name])


def test_lanes_are_padded_and_never_leak():
    # One lane of sixteen holds a value; the others must not turn what is summed into NaN.
    network = Network(Hopf(a=Param(0.2)), connectome(), coupling=Additive(k=Param(0.1)), speed=10.0)
    run, gradients = values_and_gradients(network, "compiled", "euler", start={"x": 0.3})
    assert choose_layout(1, REGIONS, coupled=False, delayed=True).width == PADDING
    assert torch.isfinite(run["x"]).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", NODES.names())
def test_every_node_compiles(name):
    kind = NODES.get(name)
    fit = {
        each: Param(value)
        for each, value in kind().values().items()
        if each not in {lag for _, lag in kind.lags.values()}
    }
    network = Network(kind(**fit), connectome(), coupling=Additive(k=Param(0.01)))
    start = {state: 0.2 for state in kind.states}
    found = []
    for which in ("plain", "compiled"):
        network.zero_grad()
        simulator = Simulator(
            network, 0.01, scheme="exponential_euler", engine=which, dtype=torch.float64
        )
        run = simulator.run(0.5, batch_size=2, start=start)
        sum(run[state].square().sum() for state in kind.states).backward()
        found.append((run, {n: p.raw.grad for n, p in network.fitted().items()}))
    for state in kind.states:
        torch.testing.assert_close(found[0][0][state], found[1][0][state], rtol=1e-9, atol=1e-10)
    for each, gradient in found[0][1].items():
        gradient = torch.zeros(()) if gradient is None else gradient
        scale = 1e-9 * float(gradient.abs().max()) + 1e-9
        torch.testing.assert_close(found[1][1][each], gradient, rtol=1e-7, atol=scale, msg=each)


def test_compiles_once_per_model_not_per_value_or_batch(monkeypatch):
    simulator = Simulator(oscillators(), 0.1, engine="compiled", dtype=torch.float64)
    with torch.no_grad():
        simulator.run(1.0, batch_size=2)
    monkeypatch.setattr(kernel_build, "_compile", lambda *_: pytest.fail("compiled again"))
    with torch.no_grad():
        simulator.run(2.0, batch_size=3, values={"coupling.k": 0.3})


def test_auto_goes_by_the_length_of_the_run_alone(monkeypatch):
    for name in ("plain", "replay", "compiled"):

        def stop(stretch, advance, name=name):
            raise _Stop(name)

        monkeypatch.setattr(getattr(engine, f"engine_{name}"), "run", stop)

    def chosen(steps: int, *, batch: int = 1, gradient: bool = False) -> str:
        network = Network(Hopf(a=Param(0.1, fit=gradient)), connectome())
        with pytest.raises(_Stop) as stopped:
            Simulator(network, 0.1).run(steps * 0.1, batch_size=batch)
        return str(stopped.value)

    assert chosen(100) == "plain"
    assert chosen(engine.REPLAY_STEPS) == "replay"
    assert chosen(engine.COMPILED_GRADIENT_STEPS - 1, gradient=True) == "plain"
    assert chosen(engine.COMPILED_GRADIENT_STEPS, gradient=True) == "compiled"
    assert chosen(engine.COMPILED_STEPS) == "compiled"
    assert chosen(5000, batch=5000) == "compiled"


class _Stop(Exception):
    pass


def test_without_a_compiler_a_long_run_stays_uncompiled_and_says_so(monkeypatch):
    monkeypatch.setattr(kernel_build, "compiler", lambda: None)
    monkeypatch.setattr(kernel_build, "obstacle", kernel_build.obstacle.__wrapped__)
    engine._say_uncompiled.cache_clear()
    simulator = Simulator(Network(Hopf(a=0.1), nodes=2), 0.1, dtype=torch.float64)
    monkeypatch.setattr(engine, "COMPILED_STEPS", 100)
    with pytest.warns(EngineWarning, match=r"no C\+\+ compiler"):
        uncompiled = simulator.run(20.0, start={"x": 0.1})
    assert torch.isfinite(uncompiled["x"]).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simulator.run(20.0, start={"x": 0.1})  # it says so once
    compiled = Simulator(Network(Hopf(a=0.137), nodes=2), 0.1, engine="compiled")
    with pytest.raises(kernel_build.CompilerError, match="install one, or name it in CXX"):
        compiled.run(1.0)


@functools.cache
def erring() -> type[Node]:
    """Registered when a test asks: other tests look at all nodes that there are at the start."""

    @node("test_erring")
    class Erring(Node):
        """A node whose step has an operation that no trace knows."""

        states = ("x",)
        inputs = ("x",)
        gain: float = parameter(0.5, "1", "gain")

        def derivative(self, state, input):
            return (torch.erf(self.gain - state[0]),)

    return Erring


@pytest.mark.parametrize("gradient", [False, True])
def test_auto_runs_a_step_that_cannot_be_traced_by_plain_torch(gradient, monkeypatch):
    monkeypatch.setattr(engine, "COMPILED_STEPS", 100)
    monkeypatch.setattr(engine, "COMPILED_GRADIENT_STEPS", 100)
    engine._say_uncompiled.cache_clear()
    network = Network(erring()(gain=Param(0.5, fit=gradient)), nodes=2)
    plain, auto = (
        Simulator(network, 0.1, scheme="euler", engine=each, dtype=torch.float64)
        for each in ("plain", "auto")
    )
    with pytest.warns(EngineWarning, match="erf of shape"):
        found = auto.run(20.0, start={"x": 0.0})["x"]
    assert torch.equal(found, plain.run(20.0, start={"x": 0.0})["x"])
    assert found.requires_grad is gradient


def test_what_a_step_may_not_do_is_named():
    @node("test_sums_over_nodes")
    class Sums(Node):
        """A node that looks at all others."""

        states = ("x",)
        inputs = ("x",)
        rate: float = parameter(1.0, "1/ms", "rate")

        def derivative(self, state, input):
            return (state[0].sum(dim=1, keepdim=True) - state[0],)

    with pytest.raises(TraceError, match=r"sum.* no element-wise operation"):
        Simulator(Network(Sums(), nodes=2), 0.1, engine="compiled").run(1.0)
    with pytest.raises(EngineError, match="engine 'replay' has no gradients"):
        Simulator(Network(Hopf(a=Param(0.1)), nodes=2), 0.1, engine="replay").run(1.0)
    with pytest.raises(EngineError, match="has no delays"):
        Simulator(oscillators(speed=10.0), 0.1, engine="replay").run(1.0)


def test_libraries_are_kept_where_only_their_owner_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("AXONNX_CACHE", str(tmp_path / "own"))
    assert kernel_build.folder() == tmp_path / "own" / "kernels"
    assert kernel_build.folder().stat().st_mode & 0o077 == 0
    kernel_build.folder().chmod(0o777)
    with pytest.raises(kernel_build.CompilerError, match="others may write to it"):
        kernel_build.folder()


def test_a_traced_step_is_of_its_own_constants():
    @node("test_shifted")
    class Shifted(Node):
        """A node with a constant that is no parameter."""

        states = ("x",)
        inputs = ("x",)
        shift: torch.Tensor | float = 1.0
        rate: float = parameter(0.1, "1/ms", "rate of decay")

        def derivative(self, state, input):
            return (self.shift - self.rate * state[0],)

    def end(shift: float, which: str) -> torch.Tensor:
        network = Network(Shifted(shift=torch.tensor(shift)), nodes=2)
        simulator = Simulator(network, 0.1, engine=which, dtype=torch.float64)
        return simulator.run(5.0, start={"x": 0.0}).state.carry[0]

    # Printed, both constants are tensor(1.0000).
    for shift in (1.00001, 1.00002):
        torch.testing.assert_close(end(shift, "compiled"), end(shift, "plain"), rtol=1e-12, atol=0)


@parametrized
class Steered(Node):
    """A node whose slope is a function that a test gives."""

    states = ("x",)
    inputs = ("x",)
    slope: object = None
    level: float = parameter(0.5, "1", "level")

    def derivative(self, state, input):
        return (self.slope(self, state[0]),)


def end_of(slope, which: str, **options) -> torch.Tensor:
    network = Network(Steered(slope=slope, level=Param(0.5)), nodes=3)
    simulator = Simulator(network, 0.1, scheme="euler", engine=which, dtype=torch.float64)
    with torch.no_grad():
        return simulator.run(10.0, **options).state.carry[0]


def test_programs_that_differ_in_a_value_and_a_constant_alone_have_kernels_of_their_own():
    # The parameter is value 1 of the program.
    for slope in (lambda node, x: 1.0 - x, lambda node, x: node.level - x):
        torch.testing.assert_close(end_of(slope, "compiled"), end_of(slope, "plain"))


@pytest.mark.parametrize("which", ["replay", "compiled"])
def test_comparisons_become_numbers(which):
    def slope(node, x):
        return (x > 0).to(x.dtype) + (x > -1).to(x.dtype) - (x > 5).to(x.dtype) - x

    expected = end_of(slope, "plain", start={"x": 0.4})
    torch.testing.assert_close(end_of(slope, which, start={"x": 0.4}), expected)


@pytest.mark.parametrize(
    ("slope", "told"),
    [
        (lambda node, x: x[:, :1] - 2 * x, "may not cut"),
        (lambda node, x: x[:1] - 2 * x, "may not cut"),
        (lambda node, x: (3 * x).to(torch.int64).to(x.dtype) - x, "round"),
        (lambda node, x: (3 * x) // 1 - x, "a division that rounds"),
    ],
    ids=["nodes", "members", "integers", "floor division"],
)
def test_a_step_that_is_not_element_by_element_is_refused(slope, told):
    with pytest.raises(TraceError, match=told):
        end_of(slope, "replay", start={"x": torch.tensor([[0.7, 0.1, 0.2]])})


def test_saturated_values_are_silent_in_replay():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        end_of(lambda node, x: torch.sigmoid(-2000 * (x + 0.5)) - x, "replay")


@torch.no_grad()
def test_replay_runs_a_single_coupled_node():
    network = Network(Hopf(a=0.1), Connectome([[0.4]]), coupling=Additive(k=Param(torch.ones(1))))
    plain, replay = (
        Simulator(network, 0.1, engine=which, dtype=torch.float64).run(3.0, start={"x": 0.1})
        for which in ("plain", "replay")
    )
    torch.testing.assert_close(plain["x"], replay["x"])


def test_tracing_draws_no_random_numbers():
    before = torch.get_rng_state()
    end_of(lambda node, x: -x, "replay")
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_may_simulate_at_once():
    def run(rate: float) -> torch.Tensor:
        return end_of(lambda node, x: rate - x, "replay")

    rates = [0.1 * k for k in range(1, 7)]
    with ThreadPoolExecutor(len(rates)) as pool:
        for rate, end in zip(rates, pool.map(run, rates), strict=True):
            torch.testing.assert_close(end, torch.full((1, 3), rate), rtol=1e-3, atol=0)


def test_second_derivatives_and_changed_values_are_refused_by_the_compiled_engine():
    network = oscillators()
    simulator = Simulator(network, 0.1, engine="compiled", dtype=torch.float64)
    with pytest.raises(RuntimeError, match="has first derivatives alone; use engine='plain'"):
        loss_of(simulator.run(6.0)).backward(create_graph=True)
    given = torch.tensor(0.1, requires_grad=True) * 1
    loss = loss_of(simulator.run(6.0, values={"coupling.k": given}))
    with torch.no_grad():
        given.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_numbers_of_noise_have_gradients_in_the_plain_engine_alone(monkeypatch):
    network = Network(Hopf(a=0.1), nodes=2, noise=Gaussian(sigma=0.1))
    drawn = torch.ones(1, 10, 1, 2, requires_grad=True)
    for which in ("replay", "compiled"):
        with pytest.raises(EngineError, match=r"no gradient in lags and noise's numbers"):
            Simulator(network, 0.1, engine=which, dtype=torch.float64).run(1.0, normals=drawn)
    monkeypatch.setattr(engine, "COMPILED_STEPS", 1)
    run = Simulator(network, 0.1, dtype=torch.float64).run(1.0, normals=drawn)
    run["x"].sum().backward()
    assert drawn.grad.abs().min() > 0


def test_a_type_that_no_kernel_has_is_run_by_torch_or_refused():
    network = Network(Hopf(a=0.1), nodes=2)
    with torch.no_grad(), pytest.raises(EngineError, match="runs float32 and float64"):
        Simulator(network, 0.1, engine="compiled", dtype=torch.bfloat16).run(1.0)


@pytest.mark.parametrize("damage", [lambda made: made[:3000], lambda made: b"", lambda made: b"x"])
def test_a_damaged_library_is_made_anew(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("AXONNX_CACHE", str(tmp_path))
    source = 'extern "C" int answer() { return 42; }\n'
    with monkeypatch.context() as unloaded:
        unloaded.setattr(kernel_build.ctypes, "CDLL", lambda path: None)
        kernel_build.library(source)
    (made,) = kernel_build.folder().glob("*.so")
    made.write_bytes(damage(made.read_bytes()))
    assert kernel_build.library(source).answer() == 42


def test_without_a_folder_for_libraries_a_long_run_stays_uncompiled_and_says_so(
    tmp_path, monkeypatch
):
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("AXONNX_CACHE", str(tmp_path / "taken"))
    monkeypatch.setattr(kernel_build, "obstacle", kernel_build.obstacle.__wrapped__)
    monkeypatch.setattr(engine, "COMPILED_STEPS", 10)
    simulator = Simulator(Network(Hopf(a=0.1), nodes=2), 0.1, dtype=torch.float64)
    with pytest.warns(EngineWarning, match="name another folder in AXONNX_CACHE"):
        assert torch.isfinite(simulator.run(2.0)["x"]).all()


def test_delays_that_reach_beyond_what_a_kernel_can_address_are_refused(monkeypatch):
    monkeypatch.setattr(engine_compiled, "_FARTHEST", 100)
    simulator = Simulator(oscillators(speed=1.0), 0.1, engine="compiled", dtype=torch.float64)
    with pytest.raises(ValueError, match="run fewer members of the batch"):
        simulator.run(1.0)
