"""Peer: the transformers library fine-tuning a BERT, and torch's own encoder on a table.

Run by benchmarks/training.py as `peer_training.py <what> <precision> <seconds> <rows.parquet> [<weights>]`, where what
is loop (a plain loop over batches of 32 shuffled rows, padded to the longest of the batch, as the library's examples
write it), trainer (its Trainer) or table; precision is fp32 or bf16 (autocast).
"""

import json
import sys
import tempfile
import time

import numpy as np
import pandas as pd
import torch

WHAT, PRECISION, SECONDS, FILE, *WEIGHTS = sys.argv[1:]
MAX_TOKENS, BATCH_ROWS, TABLE_ROWS = 192, 32, 1024


class Stopwatch:
    """Counts what is trained on from the second step on, and says when the time is up."""

    def __init__(self):
        self.started, self.units, self.steps = None, 0, 0

    def step(self, units):
        now = time.perf_counter()
        if self.started is None:
            self.started = now
        else:
            self.units, self.steps = self.units + units, self.steps + 1
        return now - self.started > float(SECONDS) and self.steps >= 3

    def report(self):
        seconds = time.perf_counter() - self.started
        print(json.dumps({"per_second": self.units / seconds, "steps": self.steps}))


def text_rows():
    from transformers import AutoTokenizer

    frame = pd.read_parquet(FILE)
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS[0])
    encoded = tokenizer(frame["text"].tolist(), truncation=True, max_length=MAX_TOKENS)
    keys = ("input_ids", "attention_mask")
    rows = [{"label": int(label), **{key: encoded[key][i] for key in keys}} for i, label in enumerate(frame["label"])]
    return tokenizer, rows


def classifier():
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    return BertForSequenceClassification.from_pretrained(WEIGHTS[0], num_labels=5)


def loop():
    tokenizer, rows = text_rows()
    model, watch = classifier().train(), Stopwatch()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    from transformers import DataCollatorWithPadding

    collate, random = DataCollatorWithPadding(tokenizer), np.random.default_rng(0)
    while True:
        batch = [rows[i] for i in random.choice(len(rows), BATCH_ROWS, replace=False)]
        with torch.autocast("cpu", torch.bfloat16, enabled=PRECISION == "bf16"):
            loss = model(**collate(batch)).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if watch.step(sum(len(row["input_ids"]) for row in batch)):
            return watch.report()


def trainer():
    from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    tokenizer, rows = text_rows()
    watch, pad = Stopwatch(), DataCollatorWithPadding(tokenizer)
    seen = []

    def collate(batch):
        seen.append(sum(len(row["input_ids"]) for row in batch))
        return pad(batch)

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_training_stop = watch.step(seen[state.global_step - 1])

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH_ROWS,
            learning_rate=1e-4,
            bf16=PRECISION == "bf16",
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        Trainer(
            model=classifier(), args=arguments, train_dataset=rows, data_collator=collate, callbacks=[Stop()]
        ).train()
    watch.report()


class TableEncoder(torch.nn.Module):
    """A token per column, torch's encoder, and a linear head on the first token: 64 wide, two layers, eight heads."""

    def __init__(self, n_categories, n_numbers):
        super().__init__()
        self.embedding = torch.nn.Embedding(sum(n_categories), 64)
        self.register_buffer("starts", torch.tensor([0, *n_categories[:-1]]).cumsum(0))
        self.weight, self.bias = (torch.nn.Parameter(torch.randn(n_numbers, 64) * 0.02) for _ in range(2))
        self.cls = torch.nn.Parameter(torch.zeros(64))
        layer = torch.nn.TransformerEncoderLayer(64, 8, 128, 0.05, "gelu", batch_first=True, norm_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = torch.nn.Linear(64, 1)

    def forward(self, categories, numbers):
        tokens = [self.cls.expand(len(categories), 1, -1), self.embedding(categories + self.starts)]
        tokens.append(numbers[..., None] * self.weight + self.bias)
        return self.head(self.encoder(torch.cat(tokens, 1))[:, 0])[:, 0]


def table():
    frame = pd.read_parquet(FILE)
    label = torch.tensor(frame.pop("label").to_numpy("float32"))
    categories = torch.tensor(frame.filter(regex="^c").to_numpy("int64"))
    numbers = torch.tensor(frame.filter(regex="^n").to_numpy("float32"))
    torch.manual_seed(0)
    model, watch = TableEncoder((categories.amax(0) + 1).tolist(), numbers.shape[1]).train(), Stopwatch()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    while True:
        rows = torch.randint(len(label), (TABLE_ROWS,))
        with torch.autocast("cpu", torch.bfloat16, enabled=PRECISION == "bf16"):
            logits = model(categories[rows], numbers[rows])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), label[rows])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if watch.step(TABLE_ROWS):
            return watch.report()


if __name__ == "__main__":
    {"loop": loop, "trainer": trainer, "table": table}[WHAT]()
