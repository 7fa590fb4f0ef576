"""Epsilons of composed mechanisms for test/unit/privacy, by Google's `dp-accounting`: other code, another method.

    pip install dp-accounting==0.6.0 numpy
    python tools/refgen/accounting.py test/data/privacy/accounting.txt

Each line is a kind, its parameters, delta, and a lower and an upper bound of epsilon: the package's optimistic and
pessimistic privacy loss distributions, composed.

    gaussian <mu> <rows>                              rows Gaussians, each mu apart
    binomial <trials> <tilt>                          Bernoulli((1 +- tilt) / 2) drawn `trials` times
    rqm <bits> <keep> <range> <draws>                 the two ends of the clip
"""

import itertools
import logging
import math
import sys

from dp_accounting.pld import privacy_loss_distribution as pld

DELTAS = [1e-5, 1e-8]


def epsilon_range(make, count, delta):
    low, high = (make(pessimistic).self_compose(count).get_epsilon_for_delta(delta) for pessimistic in (False, True))
    return f"{low:.9g} {high:.9g}"


def gaussian(mu, interval):
    return lambda pessimistic: pld.from_gaussian_mechanism(
        1 / mu, value_discretization_interval=interval, pessimistic_estimate=pessimistic)


def pair(upper, lower, interval):
    logs = [{i: math.log(p) for i, p in enumerate(masses)} for masses in (lower, upper)]
    return lambda pessimistic: pld.from_two_probability_mass_functions(
        *logs, value_discretization_interval=interval, pessimistic_estimate=pessimistic, symmetric=False)


def rqm(bits, keep, reach, value):
    """Output distribution by running through every set of kept levels; the clip is 1."""
    last = 2**bits - 1
    levels = [reach * (2 * i / last - 1) for i in range(last + 1)]
    out = [0.0] * (last + 1)
    for inner in itertools.product([False, True], repeat=last - 1):
        chance = math.prod(keep if kept else 1 - keep for kept in inner)
        kept = [0] + [i + 1 for i, k in enumerate(inner) if k] + [last]
        left = max(i for i in kept if levels[i] <= value)
        right = min(i for i in kept if levels[i] > value)
        up = (value - levels[left]) / (levels[right] - levels[left])
        out[left] += chance * (1 - up)
        out[right] += chance * up
    return out


def lines():
    for mu, rows, interval in [(0.1, 1, 1e-4), (1, 1, 1e-4), (5, 1, 1e-3), (0.5, 100, 1e-3), (2, 50, 1e-3)]:
        for delta in DELTAS:
            yield f"gaussian {mu} {rows} {delta} {epsilon_range(gaussian(mu, interval), rows, delta)}"
    for trials, tilt, cells in [(1, 0.3, 1000), (20, 0.3, 1000), (128, 0.25, 1000), (1920, 0.01, 1000),
                                (8640, 0.04, 400), (300, 0.75, 1000)]:
        # The loss of one draw is a whole number of cells but for a hair, so that little is rounded.
        interval = (math.log1p(tilt) - math.log1p(-tilt)) * (1 + 1e-9) / cells
        for delta in DELTAS:
            both = pair([(1 + tilt) / 2, (1 - tilt) / 2], [(1 - tilt) / 2, (1 + tilt) / 2], interval)
            yield f"binomial {trials} {tilt} {delta} {epsilon_range(both, trials, delta)}"
    for bits, keep, reach, draws, interval in [(2, 0.5, 2, 16, 1e-3), (3, 0.5, 8, 128, 1e-3), (4, 0.25, 30, 576, 1e-3)]:
        for delta in DELTAS:
            both = pair(rqm(bits, keep, reach, 1.0), rqm(bits, keep, reach, -1.0), interval)
            yield f"rqm {bits} {keep} {reach} {draws} {delta} {epsilon_range(both, draws, delta)}"


def main():
    header = "# made by: python tools/refgen/accounting.py test/data/privacy/accounting.txt (dp-accounting 0.6.0)\n"
    with open(sys.argv[1], "w", encoding="ascii") as out:
        out.write(header + "".join(line + "\n" for line in lines()))


logging.disable(logging.WARNING)  # that the optimistic figures come by another of its algorithms
main()
