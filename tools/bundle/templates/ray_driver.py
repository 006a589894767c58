"""Runs the bundle on a Ray cluster, a process a node, and again after a preemption.

    ray job submit --working-dir . -- python launch/ray_driver.py --nodes 2 -- FLAGS

from the bundle's directory. `ray job stop` asks every process to save and stop. Exit code: the
highest of the processes'.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

NODES = @NODES@
RESOURCES = '@RESOURCES@'
ARGS = @ARGS@
PREEMPTED = 143


@ray.remote(num_cpus=0, max_concurrency=3)
class Host:
    """One node: starts run.py there and passes a stop on to it."""

    def address(self):
        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"

    def run(self, coordinator, count, index, flags):
        cluster = {
            "LAUNCH_COORDINATOR": coordinator,
            "LAUNCH_NUM_PROCESSES": str(count),
            "LAUNCH_PROCESS_ID": str(index),
        }
        command = [sys.executable, "run.py", *flags]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **cluster},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for line in self.process.stdout:
            print(f"{index}: {line}", end="", flush=True)
        return self.process.wait()

    def stop(self):
        self.process.terminate()


def attempt(options, stopping):
    """One start of all processes; their highest exit code (killed by signal N: 128 + N)."""
    bundles = [{"CPU": 1, **json.loads(options.resources)}] * options.nodes
    strategy = "STRICT_SPREAD" if options.nodes > 1 and not options.share else "PACK"
    group = placement_group(bundles, strategy=strategy)
    ray.get(group.ready(), timeout=options.wait)
    hosts = []
    for index in range(options.nodes):
        place = PlacementGroupSchedulingStrategy(group, index)
        hosts.append(Host.options(scheduling_strategy=place).remote())
    coordinator = ray.get(hosts[0].address.remote())

    def stop(*_):
        stopping.append(True)
        for host in hosts:
            host.stop.remote()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    running = [
        host.run.remote(coordinator, options.nodes, index, [*ARGS, *options.flags])
        for index, host in enumerate(hosts)
    ]
    codes = ray.get(running)
    remove_placement_group(group)
    return max(code if code >= 0 else 128 - code for code in codes)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--resources", default=RESOURCES, help="of a node, as JSON")
    parser.add_argument("--share", action="store_true", help="several processes on one node")
    parser.add_argument("--wait", type=float, default=600, help="seconds for the nodes to be free")
    parser.add_argument("flags", nargs="*", help="of the program, after --")
    options = parser.parse_args()
    ray.init()
    stopping = []
    while (code := attempt(options, stopping)) == PREEMPTED and not stopping:
        print("preempted: starting again", flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
