"""Learning rate, batch and weight decay by rule, from a model's size and its training tokens."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Rule:
    """What the rule gives; presets have these values, with the batch rounded to a power of two."""

    learning_rate: float
    """Peak learning rate of AdamW, and of Muon, whose updates are made as large."""
    batch_tokens: float
    """Tokens per update."""
    weight_decay: float
    """Decoupled weight decay."""


def rule(weights: int, tokens: int) -> Rule:
    """The rule for a model of so many weights, less those of embedding and head, and its tokens.

    Learning rate and batch: Step Law (arXiv:2503.04715, equation 1), fitted from 60 million to 1
    billion weights, dense and with experts (of these, the ones that a token passes through).
    Weight decay: it averages updates over 1 / (rate x decay) steps, and the share of the run that
    this is best falls with the tokens per weight (arXiv:2505.13738, figure 1).
    """
    rate = 1.79 * weights**-0.713 * tokens**0.307
    batch = 0.58 * tokens**0.571
    share = 1.084 * (tokens / weights) ** -0.527
    return Rule(rate, batch, 1 / (rate * share * tokens / batch))
