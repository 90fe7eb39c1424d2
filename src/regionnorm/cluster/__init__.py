"""The same work on many machines, through Ray: photos filled, networks evaluated, a service."""

from regionnorm.cluster.work import evaluating, filling
from regionnorm.cluster.workers import Cluster, connect

__all__ = ["Cluster", "connect", "evaluating", "filling"]
