"""The document behind ``accord rewards claim-tree``: earnings and addresses become a tree of claims with every proof.

Anybody who holds the same logs and the same file of accounts makes the same document, byte for byte, and so checks the
root that a contract was given. Amounts are cumulative: against an earlier tree none may go down, since what was
claimed under it is paid.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from federation.errors import AccordError, OperatorError, PeerError
from federation.rules.canonical import parse
from federation.rules.statements import in_credits

from .claim_tree import Claim, ClaimTree, as_hex, grow, load
from .earnings import Earnings

TREE_BYTES_MAX: Final = 1 << 26


@dataclass(frozen=True, slots=True)
class Drop:
    """A tree with what it was made from.

    Attributes:
        tree: ``tree.claims[i]`` belongs to ``accounts[i]``.
        accounts: institutions' accounts, sorted.
        earnings: the settled studies.
        new: account -> micro-credits that the tree before did not hold.
    """

    tree: ClaimTree
    accounts: tuple[str, ...]
    earnings: Earnings
    new: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """The dump, which OpenZeppelin's library reads, and beside it the root, the studies, and each one's proof."""
        return {
            **self.tree.dump(),
            "root": as_hex(self.tree.root),
            "total": str(self.tree.total),
            "studies": [
                {"study": each.study, "log": {"size": each.size, "root": each.root}} for each in self.earnings.studies
            ],
            "unsettled": list(self.earnings.unsettled),
            "claims": [
                {
                    "account": account,
                    "address": claim.address,
                    "amount": str(claim.amount),
                    "new": str(self.new[account]),
                    "proof": [as_hex(item) for item in self.tree.proof(index)],
                }
                for index, (account, claim) in enumerate(zip(self.accounts, self.tree.claims, strict=True))
            ],
        }

    def text(self) -> str:
        """For people."""
        studies, width = len(self.earnings.studies), max(map(len, self.accounts))
        rows = [
            f"  {account:<{width}}  {claim.address}  {in_credits(claim.amount)}, {in_credits(self.new[account])} new"
            for account, claim in zip(self.accounts, self.tree.claims, strict=True)
        ]
        waiting = [f"Not settled yet, not in the tree: {name}." for name in self.earnings.unsettled]
        return "\n".join(
            [
                f"Tree of claims over {studies} settled {'study' if studies == 1 else 'studies'}:",
                *rows,
                f"All together {in_credits(self.tree.total)}, as the books say.",
                *waiting,
                f"root {as_hex(self.tree.root)}",
            ]
        )


def make_drop(earnings: Earnings, addresses: Mapping[str, str], previous: ClaimTree | None) -> Drop:
    """Join earnings with addresses.

    Args:
        earnings: of all settled studies.
        addresses: institution's account -> address; accounts that earned nothing may be missing, or be there.
        previous: the tree before; None for the first.

    Raises:
        OperatorError: an account that earned something has no address; nobody earned anything; or an address has less
            than in the tree before.
        PeerError: the tree and the books differ.
    """
    amounts = earnings.amounts
    missing = [account for account in amounts if account not in addresses]
    if missing:
        raise OperatorError(
            f"There is no address for {', '.join(missing)}.",
            remedy="Ask each institution for one, over a channel that proves who answers, and add it to --accounts.",
        )
    if not amounts:
        raise OperatorError("No institution earned anything yet.", remedy="Make the tree after a study that pays.")
    tree = grow(Claim(address=addresses[account], amount=amount) for account, amount in amounts.items())
    if tree.total != earnings.total:
        raise PeerError(
            f"The tree holds {tree.total} micro-credits, and the books {earnings.total}.",
            remedy="Give this tree to nobody, and report the command with its folder.",
        )
    before = {claim.address: claim.amount for claim in previous.claims} if previous else {}
    _check_never_less(before, {claim.address: claim.amount for claim in tree.claims})
    new = {account: amount - before.get(addresses[account], 0) for account, amount in amounts.items()}
    return Drop(tree=tree, accounts=tuple(amounts), earnings=earnings, new=new)


def read_tree(path: Path) -> ClaimTree:
    """A tree that was written earlier, with every hash computed again.

    Raises:
        OperatorError: it cannot be read, or is not a tree of claims; the file is named.
    """
    try:
        return load(parse(path.read_bytes(), max_bytes=TREE_BYTES_MAX))
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}.", remedy="Check --previous.") from error
    except AccordError as error:
        raise OperatorError(f"{path}: {error.message}", remedy=error.remedy) from error


def _check_never_less(before: Mapping[str, int], after: Mapping[str, int]) -> None:
    for address, amount in before.items():
        now = after.get(address, 0)
        if now < amount:
            raise OperatorError(
                f"{address} had {in_credits(amount)} in the tree before and would have {in_credits(now)}: "
                "cumulative amounts never go down, and it may have claimed them.",
                remedy="Give the folder with all studies of before, and every institution the address that it had.",
            )
