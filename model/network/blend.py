"""The parts of the blend that scores, and the sizes of those beside the encoder.

Needs no torch: scoring reads it too.
"""

from dataclasses import asdict, dataclass

DEEP, TEXT, LINE, TREES = "transformer", "subwords", "linear", "trees"
PARTS = (DEEP, TEXT, LINE, TREES)
"""What the blend is made of, in the order of its weights."""
TREE_LOGITS = "tree_logits"
"""Input of a network beside which an operator of their own runs the trees: the sums of their leaves."""
TREE_INPUTS = "tree_inputs"
"""Output of such a network: what the trees read."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a companion that its sizes of columns do not give, for `network.json`."""

    n_nodes: int = 0
    """Nodes of all trees."""
    n_trees: int = 0
    """Trees, each of one output; 0 for none."""
    depth: int = 0
    """Steps from a root to the deepest leaf."""
    n_encoded: int = 1
    """Numbers that stand for a category before the trees."""
    n_letter_groups: int = 0
    """Numbers of groups of letters, where the line reads these; 0 where it reads what the subwords say."""
    n_rounds: tuple[int, ...] = ()
    """Rounds of boosting of each way in which trees grow, 0 for one that is left out, as chosen on rows that the trees
    were not fitted to."""
    grown_for: int = 0
    """The number of rows that these ways are for: the trees of parts of them, and of more rows later, grow alike. 0 in
    models from before, whose trees grew as was right for the rows that each was fitted to."""
    strengths: tuple[float, ...] = ()
    """Penalty on the weights of the line as it reads numbers plainly, and as it reads them in pieces, 0 for a way that
    is left out, chosen likewise."""
    n_pieces: int = 0
    """Pieces in which the line reads a number; 0 where it reads numbers as they are."""
    parts: tuple[str, ...] = (DEEP,)
    """The parts of the blend that have a weight."""

    @classmethod
    def of(cls, described: dict | None) -> "Shape | None":
        """Return the shape in the content of `network.json`; None for a model without a companion."""
        if described is None:
            return None
        described = dict(described)
        if "strength" in described:  # of older models these are one number each
            described["strengths"] = (described.pop("strength"),)
        rounds = described["n_rounds"]
        described["n_rounds"] = tuple(rounds) if isinstance(rounds, list) else (rounds,)
        tuples = {name: tuple(described[name]) for name in ("strengths", "parts")}
        return cls(**{**described, **tuples})

    def to_json(self) -> dict:
        """Return the content for `network.json`."""
        return asdict(self)
