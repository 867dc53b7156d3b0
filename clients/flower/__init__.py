"""The node's side of Flower: the runtime that takes tasks and sends replies, and the ClientApp that it runs."""
