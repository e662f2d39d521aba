"""The custom steps as models of Triton's Python backend, to be measured beside Saker's: NumPy on whole columns, written to the wire contract.

`bench.py` puts this file into every version folder of a copy of the model repository, in place of a Rust backend, and leaves config, artefacts, ONNX
models, ensemble and stores as they are. Everything that can be made ready at load is; a request does no work that the step does not need.
"""

import json
import os
import struct
import time

# First: bench.py has it say where the packages are.
import triton_python_backend_utils as pb_utils

import numpy as np

OUT_OF_VOCABULARY = 2
FIRST_CODE = 3


class Step:
    """A step: parameters and folder at load, arrays in and out for a request."""

    def __init__(self, parameters, folder, outputs):
        self.parameters = parameters
        self.folder = folder
        self.outputs = outputs

    def __call__(self, inputs):
        raise NotImplementedError


class RequestDefaults(Step):
    def __call__(self, inputs):
        device = inputs.get("device_type")
        timestamp = inputs.get("timestamp")
        if timestamp is None or timestamp[0] == 0:
            timestamp = np.array([time.time()], dtype=np.int32)
        if device is None:
            device = np.full(len(timestamp), -1, dtype=np.int32)
        return {"device_type": device, "timestamp": timestamp}


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def number(data):
    """The number in Feast's ValueProto: int32 (3) and int64 (4) as varints, double (5), float (6)."""
    if not data:
        return None
    field = data[0] >> 3
    if field in (3, 4):
        value = varint(data, 1)[0]
        return value - (1 << 64) if value >> 63 else value
    return struct.unpack("<d" if field == 5 else "<f", data[1:])[0]


def seconds(data):
    return varint(data, 1)[0] if data else -1


class FeatureLookup(Step):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        import mmh3
        import redis

        self.store = redis.Redis.from_url(self.parameters["REDIS_URL"])
        self.entity = self.parameters["ENTITY"]
        self.defaults = json.loads(self.parameters.get("DEFAULTS", "{}"))
        if "DEFAULT_USER_AGE" in self.parameters:
            self.defaults["age"] = int(self.parameters["DEFAULT_USER_AGE"])
        view = self.parameters["FEATURE_VIEW"]
        hashed = lambda view, feature: struct.pack("<i", mmh3.hash(f"{view}:{feature}", seed=0))
        self.features = [name for name in self.outputs if name != self.entity]
        self.fields = [hashed(view, name) for name in self.features] + [f"_ts:{view}".encode()]
        self.others = []
        for name, other in json.loads(self.parameters.get("OTHER_VIEWS", "{}")).items():
            self.others.append((self.features.index(name), len(self.fields)))
            self.fields += [hashed(other, name), f"_ts:{other}".encode()]
        name = self.entity.encode()
        self.prefix = struct.pack("<III", 1, 2, len(name)) + name + struct.pack("<II", 3, 4)
        self.project = self.parameters["FEAST_PROJECT"].encode()
        self.cached = self.parameters.get("MODE") == "cached"
        if self.cached:
            self.read_all()

    def key(self, entity):
        return self.prefix + struct.pack("<i", entity) + self.project

    def row(self, values):
        """The features of an entity; None for one that is not there."""
        own = len(self.features)
        if values[own] is None and not any(values[:own]):
            if not any(values[own + 1 :]):
                return None
        row = [number(value) for value in values[:own]]
        for place, at in self.others:
            if values[at] is not None and (row[place] is None or seconds(values[at + 1]) >= seconds(values[own])):
                row[place] = number(values[at])
        return [self.defaults.get(name, -1) if value is None else value for name, value in zip(self.features, row)]

    def read_all(self):
        length = len(self.prefix)
        ids = []
        for key in self.store.scan_iter(match=self.prefix.replace(b"\\", b"\\\\") + b"*", count=10_000):
            if key.startswith(self.prefix) and key.endswith(self.project):
                ids.append(struct.unpack("<i", key[length : length + 4])[0])
        ids.sort()
        pipeline = self.store.pipeline(transaction=False)
        for entity in ids:
            pipeline.hmget(self.key(entity), self.fields)
        rows = [self.row(values) for values in pipeline.execute()]
        self.ids = np.array(ids, dtype=np.int32)
        # A last row for those that are not there.
        rows.append([self.defaults.get(name, -1) for name in self.features])
        self.columns = [np.array(column, dtype=self.outputs[name]) for name, column in zip(self.features, zip(*rows))]

    def __call__(self, inputs):
        ids = next(iter(inputs.values()))
        if self.cached:
            place = np.searchsorted(self.ids, ids)
            place[place == len(self.ids)] = 0
            known = self.ids[place] == ids
            place[~known] = len(self.ids)
            answer = {name: column[place] for name, column in zip(self.features, self.columns)}
            answer[self.entity] = np.where(known, ids, -1).astype(np.int32)
            return answer
        rows, found = [], []
        for entity in ids:
            row = self.row(self.store.hmget(self.key(int(entity)), self.fields))
            found.append(entity if row is not None else -1)
            rows.append(row or [self.defaults.get(name, -1) for name in self.features])
        answer = {name: np.array(column, dtype=self.outputs[name]) for name, column in zip(self.features, zip(*rows))}
        answer[self.entity] = np.array(found, dtype=np.int32)
        return answer


def vocabulary(path):
    """Sorted raw values and the code of each."""
    import pyarrow.parquet as parquet

    values = parquet.read_table(path).column(0).to_numpy()
    order = np.argsort(values, kind="stable")
    return values[order], (order + FIRST_CODE).astype(np.int32)


class FeatureTransform(Step):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        with open(os.path.join(self.folder, "workflow.json")) as file:
            workflow = json.load(file)
        self.chains = []
        for chain in workflow["chains"]:
            (source,) = chain["columns"]
            name, program = source, []
            for step in chain["operators"]:
                operator, fitted = step["operator"], step.get("fitted")
                if operator["op"] == "Rename":
                    name = operator["name"]
                else:
                    program.append(self.compiled(operator, fitted, name))
            self.chains.append((source, name, program, self.outputs[name]))

    def compiled(self, operator, fitted, name):
        op = operator["op"]
        if op == "Categorify":
            (table,) = fitted["vocabularies"]
            values, codes = vocabulary(os.path.join(self.folder, table["file"]))
            padding = operator.get("padding")

            def categorify(column):
                place = np.searchsorted(values, column)
                place[place == len(values)] = 0
                code = np.where(values[place] == column, codes[place], OUT_OF_VOCABULARY)
                return code if padding is None else np.where(column == padding, 0, code)

            return categorify
        if op == "Normalize":
            mean, deviation = fitted["means"][name], fitted["stds"][name]
            return lambda column: (column - mean) / deviation
        if op == "Bucketize":
            boundaries = np.array(operator["boundaries"])
            return lambda column: np.searchsorted(boundaries, column, side="right")
        if op == "LogOp":
            return lambda column: np.log(column.astype(np.float32) + 1)
        function = operator["function"]
        if function == "hour":
            return lambda column: column // 3600 % 24
        if function == "weekday":
            # Day 0 of Unix time was a Thursday, Monday is 0.
            return lambda column: (column // 86400 + 3) % 7
        wave = np.sin if function == "sine" else np.cos
        period = 2 * np.pi / operator["period"]
        return lambda column: wave(column * period)

    def __call__(self, inputs):
        answer = {}
        for source, name, program, dtype in self.chains:
            column = inputs[source]
            for operate in program:
                column = operate(column)
            answer[name] = column.astype(dtype, copy=False)
        return answer


class FaissRetrieval(Step):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        import faiss

        faiss.omp_set_num_threads(1)
        self.index = faiss.read_index(os.path.join(self.folder, "index.faiss"))
        self.count = int(self.parameters["RETRIEVAL_TOPK"])

    def __call__(self, inputs):
        _, ids = self.index.search(inputs["output_1"], self.count)
        return {"candidate_ids": ids[0].astype(np.int32)}


class BloomFilter(Step):
    """Saker's bitmap of seen items, format version 1; see crates/saker-store/src/seen/bitmap.rs."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        import redis

        self.store = redis.Redis.from_url(self.parameters["REDIS_URL"])
        popular = redis.Redis.from_url(self.parameters["POPULARITY_URL"])
        self.popular = np.array([int(item) for item in popular.zrevrange("trending:global", 0, 999)], dtype=np.int32)
        self.least = int(self.parameters["RANKING_TOPK"])

    @staticmethod
    def hashes(items):
        mix = np.uint64
        with np.errstate(over="ignore"):
            k = items.astype(np.int64).view(np.uint64) * mix(0x87C37B91114253D5)
            k = ((k << mix(31)) | (k >> mix(33))) * mix(0x4CF5AD432745937F)

            def final(h):
                h = (h ^ (h >> mix(33))) * mix(0xFF51AFD7ED558CCD)
                h = (h ^ (h >> mix(33))) * mix(0xC4CEB9FE1A85EC53)
                return h ^ (h >> mix(33))

            first = (k ^ mix(8)) + mix(8)
            second = first + mix(8)
            first, second = final(first), final(second)
            first = first + second
            return first, first + second

    def seen(self, bitmap, items):
        hashes, bits = bitmap[3], int.from_bytes(bitmap[4:8], "little")
        layers = np.frombuffer(bitmap, dtype=np.uint8)[8:]
        first, second = self.hashes(items)
        with np.errstate(over="ignore"):
            all_bits = first + np.arange(hashes, dtype=np.uint64)[:, None] * second
        found, start = np.zeros(len(items), dtype=bool), 0
        while start < len(layers):
            layer = layers[start : start + bits // 8]
            position = (all_bits % np.uint64(bits)).astype(np.int64)
            byte = position // 8
            inside = byte < len(layer)
            value = layer[np.where(inside, byte, 0)] & (0x80 >> (position % 8))
            found |= ((value != 0) & inside).all(axis=0)
            start, bits = start + bits // 8, bits * 2
        return found

    def __call__(self, inputs):
        user, candidates = int(inputs["user_id"][0]), inputs["candidate_ids"]
        bitmap = self.store.get(f"saker:seen:1:{user}")
        if bitmap is None:
            return {"filtered_ids": candidates}
        kept = candidates[~self.seen(bitmap, candidates)]
        if len(kept) < self.least:
            more = self.popular[~self.seen(bitmap, self.popular) & ~np.isin(self.popular, kept)]
            kept = np.concatenate([kept, more[: self.least - len(kept)]])
        return {"filtered_ids": kept}


class EmbeddingLookup(Step):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.tables = {name: np.load(os.path.join(self.folder, f"{name}.npy")) for name in self.outputs}

    def __call__(self, inputs):
        return {name: table[inputs["item_id"]] for name, table in self.tables.items()}


class Unroll(Step):
    def __call__(self, inputs):
        count = len(inputs[self.parameters["ITEM_INPUT"]])
        return {name: column if len(column) == count else np.repeat(column, count, axis=0) for name, column in inputs.items()}


class SoftmaxSampling(Step):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        if self.parameters["DIVERSITY_MODE"] != "false":
            raise ValueError("only the best K are taken here; DIVERSITY_MODE must be false")
        self.count = int(self.parameters["RANKING_TOPK"])

    def __call__(self, inputs):
        scores = inputs["click/binary_classification_task"][:, 0]
        order = np.argsort(-scores, kind="stable")[: self.count]
        return {"ordered_ids": inputs["item_id"][order], "ordered_scores": scores[order]}


class IdDecode(Step):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        import pyarrow.parquet as parquet

        path = os.path.join(self.folder, "categories", self.parameters["VOCABULARY"])
        raw = parquet.read_table(path).column(0).to_numpy()
        self.raw = np.concatenate([np.full(FIRST_CODE, -1), raw]).astype(np.int32)
        with open(os.path.join(self.folder, "release.json")) as file:
            self.release = np.array([json.load(file)["release"].encode()], dtype=np.object_)

    def __call__(self, inputs):
        ids = self.raw[inputs["ordered_ids"]]
        return {"ordered_ids": ids, "ordered_scores": inputs["ordered_scores"], "release": self.release}


STEPS = {
    "request_defaults": RequestDefaults,
    "feature_lookup": FeatureLookup,
    "feature_transform": FeatureTransform,
    "faiss_retrieval": FaissRetrieval,
    "bloom_filter": BloomFilter,
    "embedding_lookup": EmbeddingLookup,
    "unroll": Unroll,
    "softmax_sampling": SoftmaxSampling,
    "id_decode": IdDecode,
}


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
        folder = os.path.join(args["model_repository"], args["model_version"])
        outputs = {output["name"]: pb_utils.triton_string_to_numpy(output["data_type"]) for output in config["output"]}
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.step = STEPS[parameters["STEP"]](parameters, folder, outputs)

    def execute(self, requests):
        responses = []
        for request in requests:
            inputs = {}
            for name in self.inputs:
                tensor = pb_utils.get_input_tensor_by_name(request, name)
                if tensor is not None:
                    inputs[name] = tensor.as_numpy()
            wanted = request.requested_output_names()
            answer = self.step(inputs)
            tensors = [pb_utils.Tensor(name, answer[name]) for name in wanted]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return responses
