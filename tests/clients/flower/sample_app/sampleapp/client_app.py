"""sampleapp: A Flower / NumPy app."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from sampleapp.task import load_data
from sampleapp.task import train as train_fn

app = ClientApp()


@app.train()
def train(msg: Message, context: Context):
    """Train the model on local data."""
    model = msg.content["arrays"].to_numpy_ndarrays()[0]
    inputs, targets = load_data(context.node_config["data-path"])
    model, loss = train_fn(
        model, inputs, targets, context.run_config["learning-rate"], context.run_config["local-steps"]
    )
    seen = context.state.setdefault("seen", MetricRecord({"messages": 0}))
    seen["messages"] += 1
    metrics = {"train_loss": loss, "num-examples": len(targets), "messages": seen["messages"]}
    content = RecordDict({"arrays": ArrayRecord([model]), "metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context):
    """Evaluate the model on local data."""
    model = msg.content["arrays"].to_numpy_ndarrays()[0]
    inputs, targets = load_data(context.node_config["data-path"])
    loss = float(((inputs @ model - targets) ** 2).mean())
    metrics = MetricRecord({"eval_loss": loss, "num-examples": len(targets)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)
