"""Stands in for torch-neuronx, in processes that have this folder on their path. Knows its cores from the
environment, and only as it is imported."""

import os

visible_cores = os.environ["NEURON_RT_VISIBLE_CORES"]
