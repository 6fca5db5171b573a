"""A network and its features as a folder.

It holds `network.safetensors`, `network.json`, `features.json` and, with text, `tokenizer.json`; where predictions are
made from a threshold on, also `validation.safetensors`, on which it can be chosen; of a language model also
`language.safetensors`, the weights that came from elsewhere, in half precision. Never pickles. Writes plainly into the
folder it is given: making it appear whole or not at all is the caller's part.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.torch import save_file

from model.features.fitted import Features
from model.features.kinds import CATEGORY
from model.network.blend import Shape
from model.network.heads.item_head import ItemHead
from model.network.language.model import GIVEN_TYPE, LanguageModel
from model.network.network import Network
from model.network.safety import load_weights
from model.settings import LanguageSettings, NetworkSettings
from model.target import FORMAT, LANGUAGE, Target, described_target, read_description

VALIDATION = "validation.safetensors"
GIVEN = "language.safetensors"
"""What no training moves: the same bytes beside starting and trained weights, of which a cache holds one copy."""


def save_model(folder: Path, network: Network, features: Features) -> None:
    """Write the weights and everything that is needed to use them."""
    features.save(folder)
    weights = {name: weight.contiguous() for name, weight in network.state_dict().items()}
    save_file(weights, folder / "network.safetensors")
    if isinstance(network, LanguageModel):
        save_file({name: weight.to(GIVEN_TYPE) for name, weight in network.given().items()}, folder / GIVEN)
    description = {
        "format": FORMAT,
        "settings": asdict(network.settings),
        "norm_epsilon": network.norm_epsilon,
        "target": asdict(network.target) if network.target else None,
        **({"companion": network.companion.shape.to_json()} if network.companion else {}),
        **({LANGUAGE: asdict(network.language)} if isinstance(network, LanguageModel) else {}),
    }
    text = json.dumps(description, indent=1, ensure_ascii=False) + "\n"
    (folder / "network.json").write_text(text, "utf-8")


def save_validation(folder: Path, scores: np.ndarray, y: np.ndarray) -> None:
    """Write the scores of validation rows from before anything learnt from these, with their labels."""
    from safetensors.numpy import save_file as save_arrays

    save_arrays({"scores": np.ascontiguousarray(scores), "labels": np.ascontiguousarray(y)}, folder / VALIDATION)


def load_validation(folder: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Return what `save_validation` wrote: scores and labels; None where it wrote nothing."""
    from safetensors.numpy import load_file

    if not (folder / VALIDATION).exists():
        return None
    arrays = load_file(folder / VALIDATION)
    return arrays["scores"], arrays["labels"]


def load_model(folder: Path) -> tuple[Network, Features]:
    """Read back what `save_model` wrote; the network comes ready to score.

    Raises: ValueError when the folder is of another format.
    """
    described = read_description(folder)
    features = Features.load(folder)
    if language := described.get(LANGUAGE):
        return _load_language_model(folder, LanguageSettings(**language), features, described_target(described))
    network = Network(
        NetworkSettings(**described["settings"]),
        features.sizes,
        described_target(described),
        norm_epsilon=described["norm_epsilon"],
        companion=Shape.of(described.get("companion")),
    )
    network.load_state_dict(load_weights(folder / "network.safetensors"))
    return network.eval(), features


def _load_language_model(
    folder: Path, settings: LanguageSettings, features: Features, target: Target | None
) -> tuple[Network, Features]:
    network = LanguageModel(settings, features.sizes, target)
    network.load_state_dict(load_weights(folder / "network.safetensors"))
    network.give({name: weight.float() for name, weight in load_weights(folder / GIVEN).items()})
    return network.eval(), features


def load_pretrained(folder: Path, target: Target, settings: NetworkSettings, *, seed: int) -> tuple[Network, Features]:
    """Return the start of a training: the pretrained network with a fresh head, and the pretrained features."""
    network, features = load_model(folder)
    network = network.with_head(target, settings, seed=seed)
    connect_items(network, features)
    return network, features


def connect_items(network: Network, features: Features) -> None:
    """Tell a head of items, if the network has one, which values of the category columns are items."""
    if isinstance(network.head, ItemHead) and network.target is not None:
        network.head.connect(features.fitted[CATEGORY].columns, network.target)
