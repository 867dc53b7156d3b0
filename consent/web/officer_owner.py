"""The notice's words where the owner of devices gives a licence for a whole source, and no patient is asked."""

from collections.abc import Mapping
from gettext import NullTranslations

from consent.web.request import RequestWords


def owner_words(
    said: RequestWords, names: Mapping[str, object], catalog: NullTranslations, *, listed: str, share: bool
) -> RequestWords:
    """A notice for an owner.

    Args:
        said: the notice as it would be for a person; title, reason and duration are taken over.
        names: what the texts name: institution, contact, epsilon, delta, guesses.
        catalog: the language's texts.
        listed: the kinds of data, one a line.
        share: whether the owner gets a part of the reward.
    """
    _ = catalog.gettext
    reward = (
        _(
            "%(institution)s is paid according to how much your data improved the model, and passes a part of this on"
            " to you. What you have earned stays yours if you stop."
        )
        if share
        else _("You receive no reward, and it costs you nothing.")
    )
    return said.model_copy(
        update={
            "what": _(
                "We ask whether the readings of your devices may help to train a computer model. A model is a list of"
                " numbers that learns from many sources. The readings stay at %(institution)s and are not sent to"
                " anybody. Only changes to these numbers leave, and they are blurred on purpose."
            )
            % names,
            "data": _("One yes covers the whole source, with all devices in it. These kinds of readings are used:")
            + "\n"
            + listed,
            "privacy": _(
                "Before anything leaves %(institution)s, random noise is added, which limits how well anybody could"
                " tell whether one unit of your data was in it. The study's plan says what a unit is, for instance a"
                " day of a station. Somebody who sees everything that one study sends out, and has to guess whether"
                " this unit is in it, would be right in at most %(guesses)d of 100 guesses. Tossing a coin is right in"
                " 50. That your source takes part is not hidden.\n"
                "The formal limits for one study are epsilon %(epsilon)s and delta %(delta)s. A study that asks for"
                " more does not use your data."
            )
            % names,
            "reward": reward % names,
            "withdrawal": _(
                "You can stop at any time, on this page or by telling us. You need no reason, and not your key either."
                " From the next round on, nothing of the source is used, in any study. What earlier rounds have learnt"
                " cannot be taken out of the numbers again; the noise protects each unit there too."
            ),
        }
    )
