"""The Feast side of real_feast.rs: writes an online store, waits for a line, and reads what was written meanwhile.

Usage: real_feast.py FOLDER PORT VERSION ENTITY, of which ENTITY is INT32, INT64, STRING, or PAIR: an INT64 and a STRING
"""

import json
import os
import sys
from datetime import datetime, timezone

import pandas
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float32, Int32, Int64, String

folder, port, version, kind = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
time = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)

# What pandas makes of a table of ids when nobody names a type is INT64.
types = {"INT32": ("int32", ValueType.INT32, Int32), "STRING": ("str", ValueType.STRING, String)}
dtype, value_type, field = types.get(kind, (None, ValueType.INT64, Int64))
ids = pandas.Series([7, 8])
users = pandas.DataFrame(
    {
        "user_id": ids.astype(dtype) if dtype else ids,
        **({"shop_id": ["north", "south"]} if kind == "PAIR" else {}),
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
entities = [Entity(name="user", join_keys=["user_id"], value_type=value_type)]
join_keys = [Field(name="user_id", dtype=field)]
if kind == "PAIR":
    entities.append(Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.STRING))
    join_keys.append(Field(name="shop_id", dtype=String))


def view(name, fields):
    return FeatureView(
        name=name,
        entities=entities,
        schema=[*join_keys, *fields],
        source=FileSource(path=source, timestamp_field="event_timestamp"),
    )


store.apply(
    [
        *entities,
        view("user_features", [Field(name="age", dtype=Int32), Field(name="score", dtype=Float32)]),
        view("user_activity", [Field(name="top_category", dtype=Int32)]),
    ]
)
store.write_to_online_store("user_features", users)
print("written", flush=True)
sys.stdin.readline()


def entity(id):
    key = {"user_id": str(id) if kind == "STRING" else id}
    return key | ({"shop_id": "north" if id == 7 else "south"} if kind == "PAIR" else {})


answers = store.get_online_features(
    features=["user_features:age", "user_features:score", "user_activity:top_category"],
    entity_rows=[entity(id) for id in (7, 8, 9, 10)],
)
print(json.dumps(answers.to_dict()), flush=True)
