"""What optimum-neuron exports: making such a folder with its own exporter, and reading what one holds."""
