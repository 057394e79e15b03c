"""Yes-or-no head: a causal language model as a reranker."""

from __future__ import annotations

from torch import Tensor

from tercet.nn.activations import activated
from tercet.nn.batch import PackedBatch
from tercet.nn.heads import Head
from tercet.nn.linear import Linear
from tercet.nn.pooling import last_token


class YesNoHead(Head):
    """activation(logit of yes − logit of no) at the last token; Zhang et al. 2025, arXiv:2506.05176.

    Args:
        hidden: H.
        answers: rows of the language-model head that are held: 2 for yes and no, 1 for yes alone.
        activation: key of `activations.ACTIVATIONS`; sigmoid of the difference is softmax over the two.
    """

    def __init__(self, hidden: int, answers: int, activation: str | None) -> None:
        super().__init__()
        self.answers = Linear(hidden, answers, bias=False)
        self.activation = activation

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """Return (B, 1) float32."""
        return activated(self.logits(hidden, batch), self.activation)

    def logits(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """Return (B, 1) float32, before the activation."""
        logits: Tensor = self.answers(last_token(hidden, batch).float())
        return logits[:, :1] - logits[:, 1:].sum(1, keepdim=True)
