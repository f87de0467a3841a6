"""Which replica gets a request: the one with the least work, in UNet rows that are not done, not the fewest requests.

Ray's own router compares numbers of requests, but one of fifty steps is not the work of one of four. It also cannot be
told to leave out a replica that has just refused. Each front counts the work that it has handed out itself, so nothing
is asked over the network and nothing is stale; where several fronts share replicas, each spreads its own part evenly,
and the sum of even parts is even.

Ray ships this module to other processes by value: it imports nothing but Ray and the standard library.
"""

from __future__ import annotations

import random
import time
from typing import Any, NamedTuple

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica


class Charge(NamedTuple):
    """Work of one request on a replica. After `until`, by the monotonic clock, it is over in any case."""

    replica: ReplicaID
    work: float
    until: float


class LeastWork(RequestRouter):
    """Reads three keyword arguments of a call: `work`, `refused` (ids of replicas) and `seconds` to its deadline."""

    def initialize_state(self, **_: Any) -> None:
        self._charges: dict[str, Charge] = {}

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """All candidates, the least charged first; those that refused come last, for want of others."""
        call = {} if pending_request is None else pending_request.kwargs
        refused = call.get("refused", ())
        charged = self._charged()
        ranked = sorted(
            candidate_replicas,
            # By chance among equals, or fronts with little to do would all choose the same one.
            key=lambda one: (
                one.replica_id.unique_id in refused,
                charged.get(one.replica_id, 0.0),
                random.random(),
            ),
        )
        if pending_request is not None:
            # Where all are at their limit of requests, Ray asks again after a pause and not at once.
            pending_request.routing_context.should_backoff = True
            # Charged now, so that of several requests that are routed together each sees those before it.
            if ranked:
                self._charge(pending_request, ranked[0].replica_id)
        return [[one] for one in ranked]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        self._charge(pending_request, replica_id)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        self._charges.pop(internal_request_id, None)

    def _charge(self, request: PendingRequest, replica: ReplicaID) -> None:
        seconds = request.kwargs.get("seconds")
        until = float("inf") if seconds is None else time.monotonic() + seconds
        charge = Charge(replica, request.kwargs.get("work", 0.0), until)
        self._charges[request.metadata.internal_request_id] = charge

    def _charged(self) -> dict[ReplicaID, float]:
        now = time.monotonic()
        # A request that is given up before it is sent is never told to be completed.
        self._charges = {key: charge for key, charge in self._charges.items() if charge.until > now}
        sums: dict[ReplicaID, float] = {}
        for charge in self._charges.values():
            sums[charge.replica] = sums.get(charge.replica, 0.0) + charge.work
        return sums
