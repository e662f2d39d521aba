#!/usr/bin/env python3
"""Uploads the compiled pipelines to Kubeflow and makes their recurring runs, which are disabled unless asked otherwise.

Usage: deploy/pipelines/schedule.py [OPTION...]

  --host URL               Kubeflow Pipelines' API, such as http://127.0.0.1:8080 behind `kubectl port-forward`; KF_PIPELINES_ENDPOINT by default
  --namespace NAME         namespace of the runs, where Kubeflow serves several users
  --token-file FILE        a file with a token for the API
  --folder FOLDER          where full.yaml and daily.yaml are; deploy/pipelines/compiled by default
  --only full|daily        one of the two
  --full CRON              when `full` runs, five fields as cron has them; "0 1 * * 0" by default: Sundays at 1
  --daily CRON             when `daily` runs; "0 3 * * 1-6" by default: all other days at 3
  --parameter NAME=VALUE   a parameter of the runs; repeat it for others
  --service-account NAME   service account of the runs' pods, such as the chart's of the trainings
  --enable                 enable the recurring runs

Run again after a change: a pipeline that has changed becomes a new version, and the recurring run of the same name is replaced. One
that is enabled stays so. Kubeflow's own time zone holds, UTC unless CRON_SCHEDULE_TIMEZONE says otherwise there.

At most one run of a pipeline at a time, and a run that was missed is not made up for. Caching stays as it was compiled: with Kubeflow's
switch for a whole run, steps would be cached that must never be.
Needs kfp: `scripts/install --pipelines` makes an environment that has it, $SAKER_CACHE/runtime/pipelines/bin/python.
"""

import argparse
import hashlib
import pathlib
import sys
import warnings

import yaml

from run_local import Refused, typed

FOLDER = pathlib.Path(__file__).resolve().parent / "compiled"
EXPERIMENT = "saker"
# As in values.yaml of the chart.
SCHEDULES = {"full": "0 1 * * 0", "daily": "0 3 * * 1-6"}


def with_seconds(cron):
    """Five fields of cron as Kubeflow wants them: it reads six, and takes the first of five for seconds."""
    if len(cron.split()) != 5:
        sys.exit(f"{cron!r}: five fields are expected, as in '0 3 * * 1-6'")
    return f"0 {cron}"


def upload(client, path, name, namespace):
    """(id, id of the version) of a pipeline; a version is named by the file's content, so the same file is uploaded once."""
    wanted = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    pipeline = client.get_pipeline_id(name)
    if pipeline is None:
        pipeline = client.upload_pipeline(str(path), name, namespace=namespace).pipeline_id
    token = ""
    while True:
        page = client.list_pipeline_versions(pipeline, page_token=token, page_size=100)
        for version in page.pipeline_versions or []:
            if version.display_name == wanted:
                return pipeline, version.pipeline_version_id
        token = page.next_page_token
        if not token:
            break
    version = client.upload_pipeline_version(str(path), wanted, pipeline_id=pipeline)
    return pipeline, version.pipeline_version_id


def known_runs(client, name, experiment, namespace):
    """The recurring runs of a name."""
    found, token = [], ""
    while True:
        page = client.list_recurring_runs(page_token=token, page_size=100, namespace=namespace, experiment_id=experiment)
        found += [run for run in page.recurring_runs or [] if run.display_name == name]
        token = page.next_page_token
        if not token:
            return found


def schedule(client, kind, arguments, parameters):
    path = arguments.folder / f"{kind}.yaml"
    if not path.is_file():
        sys.exit(f"{path} is missing; deploy/pipelines/compile.py writes it")
    spec = next(yaml.safe_load_all(path.read_text()))
    name = spec["pipelineInfo"]["name"]
    known = spec["root"]["inputDefinitions"]["parameters"]
    for parameter in parameters:
        if parameter not in known:
            sys.exit(f"{parameter} is no parameter of {name}; there are {', '.join(known)}")
    try:
        values = {key: typed(key, text, known[key]["parameterType"]) for key, text in parameters.items()}
    except Refused as error:
        sys.exit(str(error))
    namespace = arguments.namespace
    experiment = client.create_experiment(EXPERIMENT, namespace=namespace).experiment_id
    pipeline, version = upload(client, path, name, namespace)
    before = known_runs(client, name, experiment, namespace)
    enabled = arguments.enable or any(run.status == "ENABLED" for run in before)
    cron = with_seconds(getattr(arguments, kind))
    made = client.create_recurring_run(
        experiment_id=experiment,
        job_name=name,
        description=spec["pipelineInfo"]["description"],
        cron_expression=cron,
        max_concurrency=1,
        no_catchup=True,
        pipeline_id=pipeline,
        version_id=version,
        params=values,
        enabled=enabled,
        service_account=arguments.service_account,
    )
    # Only now: an error before leaves the old one as it was.
    for run in before:
        client.delete_recurring_run(run.recurring_run_id)
    state = "enabled" if enabled else "disabled; --enable enables it"
    print(f"{name}: {cron} (seconds first), {state}; recurring run {made.recurring_run_id}")


def main():
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, add_help=False)
    parser.add_argument("-h", "--help", action="store_true")
    for option in ("--host", "--namespace", "--token-file", "--service-account"):
        parser.add_argument(option)
    parser.add_argument("--folder", type=pathlib.Path, default=FOLDER)
    parser.add_argument("--only", choices=list(SCHEDULES))
    for kind, cron in SCHEDULES.items():
        parser.add_argument(f"--{kind}", default=cron)
    parser.add_argument("--parameter", action="append", default=[])
    parser.add_argument("--enable", action="store_true")
    arguments = parser.parse_args()
    if arguments.help:
        print(__doc__.strip())
        return
    parameters = dict(text.split("=", 1) for text in arguments.parameter if "=" in text)
    if len(parameters) != len(arguments.parameter):
        sys.exit("--parameter: NAME=VALUE is expected, each name once")
    kinds = [arguments.only] if arguments.only else list(SCHEDULES)
    for kind in kinds:
        with_seconds(getattr(arguments, kind))
    try:
        import kfp
    except ImportError as error:
        sys.exit(f"{error}; run `scripts/install --pipelines`, then this with $SAKER_CACHE/runtime/pipelines/bin/python")
    warnings.simplefilter("ignore", FutureWarning)
    token = pathlib.Path(arguments.token_file).read_text().strip() if arguments.token_file else None
    client = kfp.Client(host=arguments.host, namespace=arguments.namespace or "kubeflow", existing_token=token)
    for kind in kinds:
        schedule(client, kind, arguments, parameters)


if __name__ == "__main__":
    main()
