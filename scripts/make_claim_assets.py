"""Make what the claim tree's tests compare with, by the original tools: Vyper's compiler and OpenZeppelin's library.

``python scripts/make_claim_assets.py`` installs both into ``.chain/`` (Vyper does not fit beside our other packages: it
pins cbor2 below 6), and writes

- each contract's ABI and bytecode, as ``NAME.json`` beside ``NAME.vy``, and
- tests/vectors/claim_trees.json: trees of many sizes as OpenZeppelin's library builds them.

It also gives documents of ours to that library. Everything comes out the same each time, so that a difference in
``git diff`` is a change of a source or a tool. Needs a network, npm and Node.js.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
TOOLS = REPOSITORY / ".chain"
VYPER = "vyper==0.4.3"
MERKLE_TREE = "@openzeppelin/merkle-tree@1.0.8"
CONTRACTS = (
    REPOSITORY / "federation/settlement/contract/cumulative_drop.vy",
    REPOSITORY / "tests/federation/settlement/claim_token.vy",
    REPOSITORY / "tests/federation/settlement/silent_token.vy",
)
VECTORS = REPOSITORY / "tests/vectors/claim_trees.json"
SIZES = (*range(1, 10), 15, 16, 17, 33, 100, 1000)
WHOLE = 5
"""Up to this size a vector holds the whole dump; above, its SHA-256."""


def run(*command: str | Path, question: str | None = None) -> str:
    """Run a tool; what it says on standard error is shown."""
    return subprocess.run(
        list(map(str, command)), input=question, stdout=subprocess.PIPE, text=True, check=True, cwd=TOOLS
    ).stdout


def install() -> None:
    """Fetch both tools, once."""
    if not (TOOLS / "bin/vyper").exists():
        venv.create(TOOLS, with_pip=True)
        run(TOOLS / "bin/python", "-m", "pip", "install", "--quiet", VYPER)
    if not (TOOLS / "node_modules").exists():
        if shutil.which("npm") is None:
            sys.exit("npm is missing: apt-get install npm, then run this again")
        run("npm", "install", "--silent", "--no-save", MERKLE_TREE)
    shutil.copy(REPOSITORY / "scripts/openzeppelin_trees.mjs", TOOLS)


def compile_contract(source: Path) -> str:
    """ABI and bytecode of one contract, with the hash of the source that they come from, as the file's text."""
    abi, bytecode = run(TOOLS / "bin/vyper", "-f", "abi,bytecode", source).splitlines()
    compiled = {
        "compiler": VYPER,
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "abi": json.loads(abi),
        "bytecode": bytecode,
    }
    return json.dumps(compiled, indent=1) + "\n"


def values_of(size: int) -> list[list[str]]:
    """``size`` made-up claims, which follow from their numbers; the last amount is the largest there is."""
    from federation.settlement.addresses import checksummed

    digests = [hashlib.sha256(f"accord claim {size}/{number}".encode()).digest() for number in range(size)]
    amounts = [str(int.from_bytes(digest[20:26], "big")) for digest in digests]
    amounts[-1] = str(2**256 - 1)
    return [[checksummed(digest[:20]), amount] for digest, amount in zip(digests, amounts, strict=True)]


def compact(value: Any) -> str:
    """JSON as JavaScript writes it."""
    return json.dumps(value, separators=(",", ":"))


def vector_of(size: int, theirs: dict[str, Any]) -> dict[str, Any]:
    """What OpenZeppelin's library says about :func:`values_of` ``size``: in whole, or as hashes."""
    proofs = compact(theirs["proofs"])
    vector = {
        "size": size,
        "root": theirs["dump"]["tree"][0],
        "dump_sha256": hashlib.sha256(compact(theirs["dump"]).encode()).hexdigest(),
        "proofs_sha256": hashlib.sha256(proofs.encode()).hexdigest(),
    }
    return vector | (theirs if size <= WHOLE else {})


def document_of(size: int) -> dict[str, Any]:
    """A dump of ours with proofs."""
    from federation.settlement.claim_tree import Claim, as_hex, grow

    tree = grow(Claim(address=address, amount=int(amount)) for address, amount in values_of(size))
    claims = [
        {"address": claim.address, "amount": str(claim.amount), "proof": [as_hex(item) for item in tree.proof(index)]}
        for index, claim in enumerate(tree.claims)
    ]
    return {**tree.dump(), "claims": claims}


def main() -> None:
    """Make all of it."""
    TOOLS.mkdir(exist_ok=True)
    install()
    for source in CONTRACTS:
        source.with_suffix(".json").write_text(compile_contract(source), encoding="utf-8")
        print(f"compiled {source.relative_to(REPOSITORY)}")
    node = ("node", "openzeppelin_trees.mjs")
    theirs = json.loads(run(*node, question=json.dumps({"make": [values_of(size) for size in SIZES]})))
    vectors = [vector_of(size, answer) for size, answer in zip(SIZES, theirs, strict=True)]
    VECTORS.write_text(json.dumps(vectors, indent=1) + "\n", encoding="utf-8")
    documents = [document_of(size) for size in SIZES]
    roots = json.loads(run(*node, question=json.dumps({"load": documents})))
    if roots != [vector["root"] for vector in vectors]:
        sys.exit("OpenZeppelin's library reads other roots from our trees than it builds itself")
    print(f"{MERKLE_TREE} reads our trees of {', '.join(map(str, SIZES))} claims and verifies every proof")


if __name__ == "__main__":
    main()
