"""The Feast side of real_feast.rs: writes an online store, waits for a line, and reads what was written meanwhile.

Usage: real_feast.py FOLDER PORT VERSION
"""

import json
import os
import sys
from datetime import datetime, timezone

import pandas
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float32, Int32

folder, port, version = sys.argv[1], sys.argv[2], int(sys.argv[3])
time = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)

users = pandas.DataFrame(
    {
        "user_id": pandas.Series([7, 8], dtype="int32"),
        "age": pandas.Series([31, 44], dtype="int32"),
        "score": pandas.Series([0.5, -2.0], dtype="float32"),
        "event_timestamp": [time, time],
    }
)
source = os.path.join(folder, "users.parquet")
users.to_parquet(source)

store = FeatureStore(
    config=RepoConfig(
        project="my_feast_repo",
        provider="local",
        registry=os.path.join(folder, "registry.db"),
        online_store={"type": "redis", "connection_string": f"127.0.0.1:{port},db=0"},
        entity_key_serialization_version=version,
    )
)
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT32)


def view(name, fields):
    return FeatureView(
        name=name,
        entities=[user],
        schema=[Field(name="user_id", dtype=Int32), *fields],
        source=FileSource(path=source, timestamp_field="event_timestamp"),
    )


store.apply(
    [
        user,
        view("user_features", [Field(name="age", dtype=Int32), Field(name="score", dtype=Float32)]),
        view("user_activity", [Field(name="top_category", dtype=Int32)]),
    ]
)
store.write_to_online_store("user_features", users)
print("written", flush=True)
sys.stdin.readline()
answers = store.get_online_features(
    features=["user_features:age", "user_features:score", "user_activity:top_category"],
    entity_rows=[{"user_id": id} for id in (7, 8, 9, 10)],
)
print(json.dumps(answers.to_dict()), flush=True)
