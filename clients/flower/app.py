"""The institution's Flower ClientApp: the coordinator's messages become calls of the node's contribution.

``train`` answers with a signed commitment or refusal, ``query.reveal`` with the signed update. Models and updates
travel by content address, so messages are small; what a node does in a round is in ``clients.contribution``.
"""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.contribution import Contribution, Task
from federation.errors import PeerError
from federation.flower.messages import answer_content, round_task
from federation.rules.keys import PublicKey


def client_app(contribution: Contribution, *, study: str, party: PublicKey) -> ClientApp:
    """The app of one institution in one study."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        del context
        asked = round_task(message)
        _check_study(asked.study, study)
        task = Task(
            round_number=asked.round,
            base_model=asked.base_model,
            consent_size=asked.consent_sizes.get(party.did, 0),
            updates=asked.updates.get(party.did, 0),
        )
        answer = contribution.commit(task)
        return Message(answer_content(answer.kind, answer.data), reply_to=message)

    @app.query("reveal")
    def reveal(message: Message, context: Context) -> Message:
        del context
        asked = round_task(message)
        _check_study(asked.study, study)
        answer = contribution.reveal(asked.round)
        return Message(answer_content(answer.kind, answer.data), reply_to=message)

    return app


def _check_study(asked: str, own: str) -> None:
    if asked != own:
        raise PeerError(f"This node takes part in {own}, not in {asked}.", remedy="Ask for a round of that study.")
