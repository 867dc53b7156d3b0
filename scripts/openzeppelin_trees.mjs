// Answers about trees of claims with OpenZeppelin's own library: one JSON question on standard input, one answer.
//   {"make": [[[address, amount], ...], ...]}       -> [{"dump": ..., "proofs": [[hash, ...], ...]}, ...]
//   {"load": [document, ...]}  (each with "claims") -> [root, ...]; throws where the document or a proof is wrong
import { StandardMerkleTree } from "@openzeppelin/merkle-tree";
import { readFileSync } from "node:fs";

const ENCODING = ["address", "uint256"];
const question = JSON.parse(readFileSync(0, "utf8"));
let answer;
if (question.make) {
  answer = question.make.map((values) => {
    const tree = StandardMerkleTree.of(values, ENCODING);
    return { dump: tree.dump(), proofs: values.map((_, index) => tree.getProof(index)) };
  });
} else {
  answer = question.load.map((document) => {
    const tree = StandardMerkleTree.load(document);
    document.claims.forEach(({ address, amount, proof }, index) => {
      const leaf = [address, amount];
      if (!StandardMerkleTree.verify(tree.root, ENCODING, leaf, proof)) throw new Error(`the proof of ${leaf} fails`);
      if (JSON.stringify(tree.getProof(index)) !== JSON.stringify(proof)) throw new Error(`another proof of ${leaf}`);
    });
    return tree.root;
  });
}
process.stdout.write(JSON.stringify(answer));
