"""Asks Feast for features as they were at given times, from an offline store that saker-offline wrote.

Usage: real_feast.py FOLDER, which holds the store in offline/
"""

import json
import os
import sys

import pandas
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Int32

folder = sys.argv[1]
store = FeatureStore(
    config=RepoConfig(
        project="my_feast_repo",
        provider="local",
        registry=os.path.join(folder, "registry.db"),
        entity_key_serialization_version=3,
    )
)
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT32)
source = FileSource(
    path=os.path.join(folder, "offline", "user_activity"), timestamp_field="event_timestamp"
)
view = FeatureView(
    name="user_activity",
    entities=[user],
    schema=[Field(name="user_id", dtype=Int32), Field(name="top_category", dtype=Int32)],
    source=source,
)
store.apply([user, view])
questions = pandas.DataFrame(
    {
        "user_id": [7, 7, 7, 8, 8],
        "event_timestamp": pandas.to_datetime(
            [
                "2026-05-01T12:00:00Z",
                "2026-05-02T12:00:00Z",
                "2026-05-02T20:00:00Z",
                "2026-05-01T12:00:00Z",
                "2026-05-02T12:00:00Z",
            ]
        ),
    }
)
answers = store.get_historical_features(
    entity_df=questions, features=["user_activity:top_category"]
).to_df()
answers = answers.sort_values(["user_id", "event_timestamp"])
times = answers["event_timestamp"].dt.strftime("%d %H")
print(json.dumps([list(row) for row in zip(answers["user_id"].tolist(), times, answers["top_category"].tolist())]))
