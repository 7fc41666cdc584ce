"""Sentences to vectors with an encoder of transformers: the mean of its last hidden states over the tokens."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from unseen.backbones.towers import first_line, model_folder, quietly
from unseen.errors import UnseenError


class SentenceEncoder:
    """An encoder such as MiniLM, MPNet or BERT, from a folder or the hub (``ID`` or ``ID@REVISION``).

    Only safetensors are read, and no code that comes with a model is run. Loaded with the first sentence.

    Args:
        name: name of the model.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @functools.cached_property
    def _parts(self) -> tuple[Any, Any]:
        folder = model_folder(self.name)
        from transformers import AutoModel, AutoTokenizer

        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            with quietly():
                tokenizer = AutoTokenizer.from_pretrained(folder, **options)
                model = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **options)
        except ImportError as error:
            raise UnseenError(f"needs more packages: {first_line(error)}", where=self.name, hint="install it") from None
        except (OSError, ValueError, TypeError, AttributeError, KeyError, RuntimeError, SafetensorError) as error:
            problem = f"not a sentence encoder: {first_line(error)}"
            raise UnseenError(
                problem, where=self.name, hint="restore the original files, or use another model"
            ) from None
        if hasattr(model.config, "text_config"):
            raise UnseenError("the model encodes images and text", where=self.name, hint=f"use text:{self.name}")
        if model.config.is_encoder_decoder:
            raise UnseenError(
                "not a sentence encoder", where=self.name, hint="use a sentence encoder such as MiniLM or MPNet"
            )
        return tokenizer, model.eval().requires_grad_(False)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float64 ``(M, D)``, one row per text, not normalized. The numbers of a text do not depend on other texts."""
        tokenizer, model = self._parts
        limit = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", 512))
        rows = []
        for text in texts:
            tokens = tokenizer([text], truncation=True, max_length=limit, return_tensors="pt")
            rows.append(model(**tokens).last_hidden_state[0].double().mean(dim=0).numpy())
        return np.stack(rows)
