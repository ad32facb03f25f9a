"""A dictionary inside nnsight: python examples/with_nnsight.py MODEL RUN FEATURE "The capital of France is"

Says which feature each token uses most, then turns FEATURE up and says what comes next, before and after.
"""

import sys

import torch
from nnsight.modeling.transformers import TransformersModel

import expander_sae as xs

folder, run, feature, text = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
model = TransformersModel(folder, task="text-generation", tokenizer=folder)
sae = xs.SparseAutoencoder.load(run)
layer = int(sae.provenance["activations"]["hookpoint"].removeprefix("layers."))
block = model.model.layers[layer]

with torch.no_grad(), model.trace(text):
    x = block.output.save()
    before = model.lm_head.output.save()

codes = sae.encode(x.float())  # Codes: k features for every token, nothing of size n
ids = model.tokenizer(text)["input_ids"]
for token, value, index in zip(ids, codes.values[0], codes.indices[0], strict=True):
    best = value.abs().argmax()
    print(f"{model.tokenizer.decode([token])!r:>14} feature {int(index[best])} at {float(value[best]):.2f}")

strength = 8.0  # in the units of the codes
column = sae.decode(xs.Codes(torch.tensor([[strength]]), torch.tensor([[feature]]), sae.n)) - sae.pre_bias / sae.scale
with torch.no_grad(), model.trace(text):
    block.output[:] = block.output + column.to(block.output.dtype)
    after = model.lm_head.output.save()

for name, logits in (("before", before), ("after", after)):
    print(f"{name:>6}: {model.tokenizer.decode(logits[0, -1].argmax())!r}")
print(f"logits moved by {float((after - before).abs().max()):.3f} at most")
