"""How many tokens a second an instance makes at most, by the simulator.

All rows of all replicas are taken by users who ask again as soon as they have been answered: a machine is
never as fast as then, and answers are never as late. What an SLO leaves of that is for `outcrop simulate` to
say."""

from __future__ import annotations

from outcrop.cost.throughput import Throughput, ThroughputError
from outcrop.cost.workload import Workload

_ROUNDS = 4
"""Requests of each user: the first and the last of a run find the machine emptier than it is."""

_MOST = 4000  # requests


def simulate_throughput(model: str, instance: str, load: Workload) -> Throughput:
    """model: by Outcrop's name. Raises ThroughputError for what cannot be simulated."""
    from outcrop.engine.policy import policy_for
    from outcrop.simulate.figures import figures
    from outcrop.simulate.fleet import simulate
    from outcrop.simulate.machine import make_machine
    from outcrop.simulate.serving import Serving
    from outcrop.simulate.slo import ANY
    from outcrop.simulate.step_time import step_model
    from outcrop.simulate.trace import Lengths, closed_loop
    from outcrop_compile.instances import INSTANCES
    from outcrop_compile.plan import PlanRefused
    from outcrop_compile.plan.request import DEFAULT_MAX_MODEL_LEN, PlanRequest
    from outcrop_compile.shapes import find_shape

    shape = find_shape(model)
    if shape is None or instance not in INSTANCES:
        raise ThroughputError(
            f"--from simulate: only Llama 3 text models on {', '.join(INSTANCES)} can be simulated, "
            f"not {model} on {instance}"
        )
    lengths = Lengths(max(1, round(load.input_tokens)), max(1, round(load.output_tokens)))
    length = min(shape.config.context, max(DEFAULT_MAX_MODEL_LEN, lengths.prompt + lengths.output + 1))
    request = PlanRequest(shape.name, shape.config, INSTANCES[instance], max_model_len=length)
    serving = Serving("auto", policy_for("auto", "neuron"))
    try:
        machine = make_machine(request, serving, step_model())
    except (PlanRefused, ValueError) as error:
        raise ThroughputError(f"--from simulate: {error}") from None
    users = machine.replicas * machine.capabilities.max_rows
    count = min(_MOST, _ROUNDS * users)
    run = simulate(machine, closed_loop(users, count, lengths, seed=0))
    found = figures(run, ANY)
    if not found.requests:
        raise ThroughputError(
            f"--from simulate: no request of {lengths.prompt} -> {lengths.output} tokens fits the context"
        )
    return Throughput(
        found.output_tokens_per_s,
        load.input_tokens,
        load.output_tokens,
        "simulated",
        f"{shape.name} on {machine.name}, {users} users who never pause, {count} requests; calibrated on "
        "published measurements (outcrop simulate calibration shows its error), not yet run on a device",
    )
