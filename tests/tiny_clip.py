"""CLIP and SigLIP models small enough for a test, with random weights, real tokenizers and transformers' own files."""

from __future__ import annotations

import json
from pathlib import Path

KINDS = ("clip", "siglip")
SIZE, PATCH, CHANNELS = 32, 8, 24


def make(folder: Path, kind: str, seed: int = 0) -> Path:
    """Save a model, its tokenizer and its image processor; returns the folder."""
    import torch
    import transformers

    torch.manual_seed(seed)
    vision = {"image_size": SIZE, "patch_size": PATCH, "hidden_size": 32, "intermediate_size": 64}
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    depth = {"num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "clip":
        tokenizer = _clip_tokenizer()
        text |= {"vocab_size": len(tokenizer), "max_position_embeddings": 77, "projection_dim": CHANNELS}
        text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        config = transformers.CLIPConfig(
            text_config=text, vision_config=vision | depth | {"projection_dim": CHANNELS}, projection_dim=CHANNELS
        )
        model = transformers.CLIPModel(config)
        mean, std = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
    else:
        tokenizer = _siglip_tokenizer(folder.parent)
        text |= {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "hidden_size": CHANNELS}
        text |= {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
        config = transformers.SiglipConfig(
            text_config=text | {"projection_size": CHANNELS}, vision_config=vision | depth | {"hidden_size": CHANNELS}
        )
        model = transformers.SiglipModel(config)
        mean = std = [0.5] * 3
    with torch.no_grad():  # weights of full size, that differences show
        for parameter in model.parameters():
            if parameter.ndim:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": std}))
    return folder


OPEN_CLIP = {
    "transformer": {"image_size": SIZE, "patch_size": PATCH, "layers": 2, "width": 32, "head_width": 16},
    "average": {
        "image_size": SIZE,
        "patch_size": PATCH,
        "layers": 2,
        "width": 32,
        "head_width": 16,
        "pool_type": "avg",
    },
    "queries": {"image_size": SIZE, "patch_size": PATCH, "layers": 1, "width": 32, "head_width": 16}
    | {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2},
    "timm": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"},
    "attention": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
    "convolutions": {"image_size": 160, "timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear"},
}
"""Image towers of open_clip of every kind of pooling."""


def make_open_clip(folder: Path, kind: str, seed: int = 0) -> Path:
    """Save a model as open_clip does for the hub, with the tokenizer that open_clip brings; returns the folder."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    channels = 64 if kind == "attention" else CHANNELS
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": channels, "vision_cfg": OPEN_CLIP[kind], "text_cfg": text}
    torch.manual_seed(seed)
    model = open_clip.CLIP(**config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim:
                parameter.add_(0.1 * torch.randn_like(parameter))
    folder.mkdir()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    about = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    return folder


def _clip_tokenizer():
    """Byte-level BPE with letters and a few merges."""
    from transformers import CLIPTokenizer

    letters = [chr(c) for c in range(33, 127)]
    pairs = [("p", "h"), ("ph", "o"), ("pho", "t"), ("phot", "o</w>"), ("o", "f</w>"), ("b", "i"), ("r", "d</w>")]
    tokens = [
        *letters,
        *(c + "</w>" for c in letters),
        *("".join(p) for p in pairs),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=pairs)


def _siglip_tokenizer(folder: Path):
    """Sentencepiece, trained on a few lines."""
    import sentencepiece
    from transformers import SiglipTokenizer

    lines = ["a photo of a bird with red crown", "a photo of a thing with long bill", "small grey heron", "night owl"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 20),
        model_prefix=str(folder / "spiece"),
        vocab_size=48,
        hard_vocab_limit=False,
        pad_id=-1,
        eos_id=1,
        unk_id=0,
        bos_id=-1,
        minloglevel=2,
    )
    return SiglipTokenizer(vocab_file=str(folder / "spiece.model"))
