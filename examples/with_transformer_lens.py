"""A dictionary inside TransformerLens: python examples/with_transformer_lens.py MODEL RUN FEATURE "The capital is"

The bridge of TransformerLens 3 puts its hooks on the model of Hugging Face itself. Says which feature each token uses
most, then turns FEATURE up and says what comes next, before and after.
"""

import sys

import torch
from transformer_lens.model_bridge import TransformerBridge

import expander_sae as xs

folder, run, feature, text = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
model = TransformerBridge.boot_transformers(folder, device="cpu")
sae = xs.SparseAutoencoder.load(run)
layer = int(sae.provenance["activations"]["hookpoint"].removeprefix("layers."))
hook = f"blocks.{layer}.hook_out"

ids = model.to_tokens(text)  # with the BOS token, which this library leaves out where the tokenizer does
with torch.no_grad():
    before, cache = model.run_with_cache(ids)

codes = sae.encode(cache[hook].float())  # Codes: k features for every token, nothing of size n
for token, value, index in zip(ids[0], codes.values[0], codes.indices[0], strict=True):
    best = value.abs().argmax()
    print(f"{model.tokenizer.decode(token)!r:>14} feature {int(index[best])} at {float(value[best]):.2f}")

strength = 8.0  # in the units of the codes
column = sae.decode(xs.Codes(torch.tensor([[strength]]), torch.tensor([[feature]]), sae.n)) - sae.pre_bias / sae.scale


def turn_up(x, hook):
    return x + column.to(x.dtype)


with torch.no_grad():
    after = model.run_with_hooks(ids, fwd_hooks=[(hook, turn_up)])

for name, logits in (("before", before), ("after", after)):
    print(f"{name:>6}: {model.tokenizer.decode(logits[0, -1].argmax())!r}")
print(f"logits moved by {float((after - before).abs().max()):.3f} at most")
