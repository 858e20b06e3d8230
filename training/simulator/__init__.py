"""A small world of customers, merchants and thieves, to train, test and demonstrate on."""

from training.simulator.world import Simulation, SimulationSpec, simulate

__all__ = ["Simulation", "SimulationSpec", "simulate"]
