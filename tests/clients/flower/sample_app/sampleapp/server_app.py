"""sampleapp: A Flower / NumPy app."""

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from sampleapp.task import get_model

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Main entry point for the ServerApp."""
    nodes = context.run_config["min-nodes"]
    strategy = FedAvg(
        fraction_train=1.0,
        fraction_evaluate=context.run_config["fraction-evaluate"],
        min_train_nodes=nodes,
        min_available_nodes=nodes,
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([get_model()]),
        num_rounds=context.run_config["num-server-rounds"],
    )
    np.savetxt("final_model.txt", result.arrays.to_numpy_ndarrays()[0])
