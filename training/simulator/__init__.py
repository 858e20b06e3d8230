"""Simulator of customers, merchants and fraudsters, for training, tests and demonstrations."""

from training.simulator.world import Simulation, SimulationSpec, simulate

__all__ = ["Simulation", "SimulationSpec", "simulate"]
