"""What the demo's numbers say, and what they do not: sentences made from them, never better than they are."""

from __future__ import annotations

import math

from expander_sae.evaluation.results import Estimate, LanguageModelLoss
from expander_sae.experiments.demo import Contestant, DemoResult


def summary(result: DemoResult) -> str:
    """What the compression costs, in three sentences."""
    first, dense, matched = result.first, result.dense, result.matched
    few, many = first.evaluation.learned_values, dense.evaluation.learned_values
    return (
        f"With {first.run.config.d} learned values per column the dictionary of {result.config.hookpoint} is "
        f"{many / few:.0f} times smaller than the dense one ({few:,} learned values against {many:,}). "
        f"It explains {_percent(first.evaluation.explained_variance)} of the variance of held-out activations, the "
        f"dense one {_percent(dense.evaluation.explained_variance)}; put into the model, it retains "
        f"{_percent(_retention(first))} of the loss that the dense one recovers. "
        f"A dense dictionary cut down to {matched.run.config.n} columns, {_size(matched, first)}, retains "
        f"{_percent(_retention(matched))}{_verdict(_retention(first), _retention(matched))}."
    )


def notes(result: DemoResult) -> list[str]:
    """How to read the table."""
    evaluation = result.dense.evaluation
    found = [
        "Learned values: all learned numbers, dictionary and biases. On disk: the folder, in float32.",
        "FVU: the share of the variance of held-out activations that is left unexplained; 0 is perfect, 1 is no better "
        "than their mean.",
        f"Never fired: features that fire on none of the {evaluation.tokens:,} evaluated tokens (rare ones may fire on "
        "others).",
        "CE recovered: how much of the cross-entropy that is lost when activations are replaced by zeros, or by their "
        "mean, comes back with the reconstruction. Against the mean it is the stricter measure.",
        "Retention: CE recovered against the mean, as a share of the dense dictionary's.",
        f"Small print under a number: its 95 % interval over the {evaluation.documents:,} evaluated documents.",
    ]
    if evaluation.language_model is not None:
        loss = evaluation.language_model
        found.append(
            f"The model's own cross-entropy is {loss.clean.value:.3f} nats a token; {loss.zero.value:.3f} with zeros "
            f"and {loss.mean.value:.3f} with the mean in place of the activations."
        )
    return found


def cautions(result: DemoResult) -> list[str]:
    """What must not be concluded from a run this small."""
    config, tokens = result.config, result.store.tokens
    passes = config.train_tokens / tokens
    repeated = f", {passes:.1f} passes over {tokens:,}" if passes > 1 else ""
    return [
        f"The dictionaries saw {config.train_tokens:,} tokens{repeated}; published ones see hundreds of millions. All "
        "of them would improve with more, and not equally: where features are still dead, most.",
        "Every dictionary was trained once, from one seed. The intervals tell of other documents, not of other seeds "
        "or settings; small differences between rows may turn round.",
        f"One layer of one model on one kind of text ({config.text}). Other layers and models may compress better or "
        "worse.",
        "Each dictionary is coded as it was trained: the expander ones by orthogonal matching pursuit, the dense ones "
        f"by TopK. expander eval --coder omp:{config.k} measures all under the pursuit, which helps dense ones too.",
        "Fewer learned values are not as many times less memory or time in use; expander bench measures those.",
        "The contexts are where a feature fires most strongly, on the text it was trained on. What they have in common "
        "is a guess at what the feature means, not a proof.",
    ]


def _retention(contestant: Contestant) -> Estimate | None:
    loss: LanguageModelLoss | None = contestant.evaluation.language_model
    return None if loss is None else loss.retention_mean


def _percent(estimate: Estimate | None) -> str:
    if estimate is None or math.isnan(estimate.value):
        return "an unknown share"
    interval = "" if math.isnan(estimate.low) else f" ({100 * estimate.low:.0f} to {100 * estimate.high:.0f})"
    return f"{100 * estimate.value:.0f} %{interval}"


def _size(contestant: Contestant, first: Contestant) -> str:
    """How its size compares with the first one's; rounding to whole columns may leave it larger or smaller."""
    ratio = contestant.evaluation.learned_values / first.evaluation.learned_values
    if 0.75 <= ratio <= 1.25:
        return "about as few values"
    return f"{ratio:.1f} times as many values as the expander one"


def _verdict(first: Estimate | None, matched: Estimate | None) -> str:
    """Whether the support, or only the size, made the difference."""
    if first is None or matched is None or any(math.isnan(end) for end in (first.low, matched.low)):
        return ""
    if first.low > matched.high:
        return ": at this size, sparse columns keep more"
    if matched.low > first.high:
        return ": at this size and after this little training, few dense columns keep more"
    return ": no clear difference at this size"
