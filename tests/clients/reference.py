"""Asks `ensemble_model` through NVIDIA's own clients and compares with the golden answers.

Usage: reference.py grpc|http HOST:PORT alone|together|optional|errors ANSWERS.json
"""

import importlib
import json
import sys
import threading

import numpy as np
from tritonclient.utils import InferenceServerException

SCORE_TOLERANCE = 1e-5
TIE = 1e-6
CLIENTS = 8


class Client:
    """The stock client of one protocol."""

    def __init__(self, protocol, address):
        self.module = importlib.import_module(f"tritonclient.{protocol}")
        self.client = self.module.InferenceServerClient(address)
        assert self.client.is_server_ready() and self.client.is_model_ready("ensemble_model")

    def tensor(self, name, values):
        values = np.atleast_1d(np.asarray(values, dtype=np.int32))
        tensor = self.module.InferInput(name, list(values.shape), "INT32")
        tensor.set_data_from_numpy(values)
        return tensor

    def ask(self, **inputs):
        """Ids and scores for these inputs, all the outputs asked for by name."""
        outputs = ["ordered_ids", "ordered_scores"]
        result = self.client.infer(
            "ensemble_model",
            [self.tensor(name, values) for name, values in inputs.items()],
            outputs=[self.module.InferRequestedOutput(name) for name in outputs],
        )
        ids, scores = (result.as_numpy(name) for name in outputs)
        assert ids.dtype == np.int32 and scores.dtype == np.float32
        assert ids.ndim == scores.ndim == 1 and ids.shape == scores.shape
        return ids, scores


def check(answer, ids, scores):
    """Scores to 1e-5, ids exactly; where two scores tie, either id may come first."""
    expected_ids = np.array(answer["ordered_ids"])
    expected_scores = np.array(answer["ordered_scores"], dtype=np.float32)
    user = answer["user_id"]
    assert ids.shape == expected_ids.shape, f"user {user}: {ids.shape}"
    worst = np.abs(scores - expected_scores).max()
    assert worst <= SCORE_TOLERANCE, f"user {user}: a score is off by {worst}"
    for place in np.flatnonzero(ids != expected_ids):
        at = np.flatnonzero(expected_ids == ids[place])
        of_id = expected_scores[at[0]] if len(at) else expected_scores[-1]
        assert abs(of_id - expected_scores[place]) < TIE, f"user {user}, place {place}: item {ids[place]}"


def request(answer):
    return {name: answer[name] for name in ("user_id", "device_type", "timestamp")}


def alone(protocol, address, answers):
    client = Client(protocol, address)
    for answer in answers:
        check(answer, *client.ask(**request(answer)))


def together(protocol, address, answers):
    failures = []
    start = threading.Barrier(CLIENTS)

    def run(number):
        try:
            client = Client(protocol, address)
            start.wait()
            for index in range(len(answers)):
                answer = answers[(index + 7 * number) % len(answers)]
                check(answer, *client.ask(**request(answer)))
        except Exception as error:  # a thread's failure must fail the program
            failures.append(f"client {number}: {error!r}")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def optional(protocol, address, answers):
    client = Client(protocol, address)
    unknown = next(answer for answer in answers if answer["device_type"] == -1)
    check(unknown, *client.ask(user_id=unknown["user_id"], timestamp=unknown["timestamp"]))
    for inputs in ({}, {"device_type": 1}, {"timestamp": 0}):
        ids, scores = client.ask(user_id=unknown["user_id"], **inputs)
        assert len(ids) == 20 and (np.diff(scores) <= 0).all()
    # Several users in one request: a row for each, one after the other.
    group = answers[:5]
    columns = {name: [answer[name] for answer in group] for name in request(group[0])}
    ids, scores = (flat.reshape(5, 20) for flat in client.ask(**columns))
    for answer, row, row_scores in zip(group, ids, scores):
        check(answer, row, row_scores)


def errors(protocol, address, answers):
    client = Client(protocol, address)

    def refused(named, *inputs):
        try:
            client.client.infer("ensemble_model", list(inputs))
        except InferenceServerException as error:
            assert named in error.message(), f"'{named}' is not in: {error}"
        else:
            raise AssertionError(f"a wrong request was answered; expected an error with '{named}'")
        check(answers[0], *client.ask(**request(answers[0])))

    wrong_type = client.module.InferInput("user_id", [1], "FP32")
    wrong_type.set_data_from_numpy(np.ones(1, np.float32))
    refused("user_id", wrong_type)
    refused("nobody", client.tensor("nobody", 1))
    refused("user_id", client.tensor("user_id", [[1, 2]]))


def main():
    protocol, address, what, path = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        answers = json.load(file)
    {"alone": alone, "together": together, "optional": optional, "errors": errors}[what](protocol, address, answers)


if __name__ == "__main__":
    main()
