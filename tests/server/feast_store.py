"""The Feast side of feast.rs: a shop's users and items in the online store, with the types that pandas gives them.

Writes, waits for a line, and prints what Feast then reads of some users.

Usage: feast_store.py FOLDER PORT ENTITY, of which ENTITY is INT64, STRING, PAIR (a user in a shop) or TEXT: INT64, with
genders as texts
"""

import json
import os
import sys
from datetime import datetime, timezone

import pandas
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Int64, String

folder, port, kind = sys.argv[1:4]
os.makedirs(folder, exist_ok=True)
text = kind == "STRING"
time = datetime(2020, 5, 1, 12, tzinfo=timezone.utc)


def ids(numbers):
    return [str(number) for number in numbers] if text else list(numbers)


users = pandas.DataFrame(
    {
        "user_id": ids(range(1, 61)),
        "age": [100 + user for user in range(1, 61)],
        "gender": [user % 2 for user in range(1, 61)],
        "event_timestamp": time,
    }
)
if kind == "TEXT":
    users["gender"] = [["F", "M"][gender] for gender in users["gender"]]
    users.loc[users["user_id"] == 60, "gender"] = "X"
if kind == "PAIR":
    users["shop_id"] = "north"
items = pandas.DataFrame(
    {
        "item_id": ids(range(1, 41)),
        "category_l1": [item % 2 for item in range(1, 41)],
        "event_timestamp": time,
    }
)
store = FeatureStore(
    config=RepoConfig(
        project="my_feast_repo",
        provider="local",
        registry=os.path.join(folder, "registry.db"),
        online_store={"type": "redis", "connection_string": f"127.0.0.1:{port},db=0"},
        entity_key_serialization_version=3,
    )
)


def entity(name):
    value_type = ValueType.STRING if text or name == "shop_id" else ValueType.INT64
    return Entity(name=name, join_keys=[name], value_type=value_type)


def dtype(feature):
    return String if kind == "TEXT" and feature == "gender" else Int64


def view(name, frame, entities, features):
    path = os.path.join(folder, f"{name}.parquet")
    frame.to_parquet(path)
    keys = [
        Field(name=entity.name, dtype=String if text or entity.name == "shop_id" else Int64)
        for entity in entities
    ]
    return FeatureView(
        name=name,
        entities=entities,
        schema=[*keys, *(Field(name=feature, dtype=dtype(feature)) for feature in features)],
        source=FileSource(path=path, timestamp_field="event_timestamp"),
    )


user, item, shop = entity("user_id"), entity("item_id"), entity("shop_id")
of_user = [user, shop] if kind == "PAIR" else [user]
store.apply(
    [
        *of_user,
        item,
        view("user_features", users, of_user, ["age", "gender"]),
        view("item_features", items, [item], ["category_l1"]),
    ]
)
store.write_to_online_store("user_features", users)
store.write_to_online_store("item_features", items)
print("written", flush=True)
sys.stdin.readline()
rows = [{"user_id": id} | ({"shop_id": "north"} if kind == "PAIR" else {}) for id in ids([7, 61])]
answers = store.get_online_features(features=["user_features:age"], entity_rows=rows)
print(json.dumps(answers.to_dict()), flush=True)
