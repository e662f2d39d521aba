"""The two trainings as Kubeflow pipelines: `full`, from the beginning, and `daily`, with what is new.

Every step is one command of `saker`; the chart's CronJobs (helm/saker/templates/training.yaml) run the same ones.

```
full:   data-version ─ prepare ─ train ─ index ─ evaluate ─ gate ─ if promote: assemble ─ publish ─ materialize ─ promote
daily:  data-version ─ finetune ─ index ─ evaluate ─ gate ─ if promote: assemble ─ publish ─ promote
```

What a step makes stays on the claim, in `/state/<version>`; the version is a hash of the source's files and the definition. Through
Kubeflow go the version, the verdict, the release's id, and what people look at: metrics, report, comparison.

- prepare, train, index and evaluate of `full` are cached: the version is their input, so the same data is not trained on twice.
- `daily` works in the state of the release that is to be served, which the store of releases knows. It is not cached: what
  visitors did since is no part of the version. Each of its commands skips what it has done.
- A step that is repeated finds what the attempt before it left, and goes on from there.
"""

from kfp import dsl, kubernetes

STATE, DATA, RELEASES, DEFINITION = "/state", "/data", "/releases", "/etc/saker/pipeline"
# The label by which `daily` finds the state that a release was trained in.
LABEL = "data-version"
EXECUTOR_INPUT = "{{$}}"


def pipelines(options):
    """{name: pipeline}, compiled with these options."""
    given = options["parameters"]

    def saker(*arguments):
        return dsl.ContainerSpec(image=options["image"], command=["saker"], args=list(arguments))

    device = ["--device", "cuda"] if options["gpu"]["count"] else []

    @dsl.container_component
    def source_version(dataset: str, state: str, version: dsl.OutputPath(str)):
        return saker("prepare", dataset, "--state", state, "--data-version", version)

    @dsl.container_component
    def served_version(releases: str, version: dsl.OutputPath(str)):
        return saker("releases", "--from", releases, "--label", LABEL, "--output", version)

    @dsl.container_component
    def prepare(dataset: str, state: str, version: str, fresh: str):
        return saker("prepare", dataset, "--state", f"{state}/{version}")

    @dsl.container_component
    def train(dataset: str, state: str, version: str, fresh: str):
        return saker("train", dataset, "--state", f"{state}/{version}", *device)

    @dsl.container_component
    def finetune(dataset: str, state: str, version: str):
        return saker("finetune", dataset, "--state", f"{state}/{version}", *device)

    @dsl.container_component
    def index(dataset: str, state: str, version: str, fresh: str):
        return saker("index", dataset, "--state", f"{state}/{version}")

    @dsl.container_component
    def evaluate(
        dataset: str,
        state: str,
        version: str,
        fresh: str,
        metrics: dsl.Output[dsl.Metrics],
        report: dsl.Output[dsl.HTML],
    ):
        return saker(
            *("evaluate", dataset, "--state", f"{state}/{version}"),
            *("--metrics", metrics.path, "--report", report.path, "--kubeflow", EXECUTOR_INPUT),
        )

    @dsl.container_component
    def gate(
        dataset: str,
        state: str,
        version: str,
        releases: str,
        tolerance: float,
        verdict: dsl.OutputPath(str),
        reason: dsl.OutputPath(str),
        comparison: dsl.Output[dsl.Artifact],
    ):
        return saker(
            *("evaluate", dataset, "--state", f"{state}/{version}"),
            *("--against", "current", "--releases", releases, "--tolerance", tolerance),
            *("--verdict", verdict, "--reason", reason, "--comparison", comparison.path),
        )

    @dsl.container_component
    def assemble(dataset: str, state: str, version: str, run: str):
        return saker(
            *("assemble", dataset, "--state", f"{state}/{version}"),
            *("--label", f"{LABEL}={version}", "--label", f"run={run}"),
        )

    @dsl.container_component
    def publish(dataset: str, state: str, version: str, releases: str, release: dsl.OutputPath(str)):
        return saker("publish", dataset, "--state", f"{state}/{version}", "--to", releases, "--published", release)

    @dsl.container_component
    def materialize(dataset: str, state: str, version: str):
        return saker("materialize", dataset, "--state", f"{state}/{version}")

    @dsl.container_component
    def promote(releases: str, release: str, wait: str, min_servers: int):
        return saker(
            *("promote", "--to", releases, "--release", release),
            *("--wait", wait, "--min-servers", min_servers),
        )

    def step(task, name, cached=False, learns=False, again=True, with_state=True):
        settle(task, options, learns, again, with_state)
        return task.set_display_name(name).set_caching_options(cached)

    def decide(dataset, state, version, releases, tolerance, wait, min_servers, after, materializes):
        """The steps from the verdict on."""
        where = {"dataset": dataset, "state": state, "version": version}
        verdict = step(gate(**where, releases=releases, tolerance=tolerance).after(after), "gate")
        with dsl.If(verdict.outputs["verdict"] == "promote", "promote-if-not-worse"):
            assembled = step(assemble(**where, run=dsl.PIPELINE_JOB_ID_PLACEHOLDER), "assemble")
            published = step(publish(**where, releases=releases).after(assembled), "publish")
            last = published
            if materializes:
                last = step(materialize(**where).after(published), "materialize")
            release = published.outputs["release"]
            promoted = promote(releases=releases, release=release, wait=wait, min_servers=min_servers).after(last)
            step(promoted, "promote", again=False, with_state=False)

    @dsl.pipeline(
        name="saker-full",
        description="Trains from the beginning; publishes and promotes a release if it is not worse than the one that serves",
    )
    def full(
        dataset: str = given["dataset"],
        releases: str = given["releases"],
        state: str = STATE,
        tolerance: float = given["tolerance"],
        wait: str = given["wait"],
        min_servers: int = given["min_servers"],
        fresh: str = "",
    ):
        version = step(source_version(dataset=dataset, state=state), "data-version").outputs["version"]
        where = {"dataset": dataset, "state": state, "version": version, "fresh": fresh}
        prepared = step(prepare(**where), "prepare", cached=True)
        trained = step(train(**where).after(prepared), "train", cached=True, learns=True)
        indexed = step(index(**where).after(trained), "index", cached=True)
        measured = step(evaluate(**where).after(indexed), "evaluate", cached=True)
        decide(dataset, state, version, releases, tolerance, wait, min_servers, measured, materializes=True)

    @dsl.pipeline(
        name="saker-daily",
        description="Fine-tunes what serves with what is new; publishes and promotes a release if it is not worse",
    )
    def daily(
        dataset: str = given["dataset"],
        releases: str = given["releases"],
        state: str = STATE,
        tolerance: float = given["tolerance"],
        wait: str = given["wait"],
        min_servers: int = given["min_servers"],
    ):
        version = step(served_version(releases=releases), "data-version", with_state=False).outputs["version"]
        where = {"dataset": dataset, "state": state, "version": version}
        tuned = step(finetune(**where), "finetune", learns=True)
        indexed = step(index(**where, fresh="").after(tuned), "index")
        measured = step(evaluate(**where, fresh="").after(indexed), "evaluate")
        decide(dataset, state, version, releases, tolerance, wait, min_servers, measured, materializes=False)

    return {"full": full, "daily": daily}


def settle(task, options, learns, again, with_state):
    """Volumes, secrets, resources and place of a step's pod. Without state it can run where the state's volume is not."""
    claims, store, objects = options["claims"], options["store"], options["objectStore"]
    volumes = [(claims["releases"], RELEASES)]
    if with_state:
        volumes += [(claims["state"], STATE), (claims["data"], DATA)]
    for claim, path in volumes:
        if claim:
            kubernetes.mount_pvc(task, claim, path)
    if options["definition"]["configMap"]:
        kubernetes.use_config_map_as_volume(task, options["definition"]["configMap"], DEFINITION)
        task.set_env_variable("SAKER_PIPELINE", f"{DEFINITION}/{options['definition']['key']}")
    kubernetes.use_secret_as_env(task, store["secret"], {store["key"]: "SAKER_REDIS_URL"})
    if objects["secret"]:
        keys = {objects["accessKeyIdKey"]: "AWS_ACCESS_KEY_ID", objects["secretAccessKeyKey"]: "AWS_SECRET_ACCESS_KEY"}
        kubernetes.use_secret_as_env(task, objects["secret"], keys)
    variables = {
        "AWS_REGION": objects["region"],
        "AWS_ENDPOINT_URL": objects["endpoint"],
        "AWS_ALLOW_HTTP": "true" if objects["allowHttp"] else "",
        **options["env"],
    }
    for name, value in variables.items():
        if value:
            task.set_env_variable(name, value)

    resources, gpu = options["resources"], options["gpu"]
    task.set_cpu_request(resources["cpu"])
    memory = f"{resources['memoryMi']}Mi"
    task.set_memory_request(memory).set_memory_limit(memory)
    selector, tolerations = dict(options["nodeSelector"]), list(options["tolerations"])
    if learns and gpu["count"]:
        task.set_accelerator_type(gpu["resource"]).set_accelerator_limit(gpu["count"])
        selector |= gpu["nodeSelector"]
        tolerations += gpu["tolerations"]
    for key, value in selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in tolerations:
        names = {"tolerationSeconds": "toleration_seconds"}
        kubernetes.add_toleration(task, **{names.get(key, key): value for key, value in toleration.items()})
    for key, value in options["podLabels"].items():
        kubernetes.add_pod_label(task, key, value)
    for key, value in options["podAnnotations"].items():
        kubernetes.add_pod_annotation(task, key, value)
    if options["imagePullSecrets"]:
        kubernetes.set_image_pull_secrets(task, options["imagePullSecrets"])
    kubernetes.set_image_pull_policy(task, options["imagePullPolicy"])
    user, group = options["runAsUser"], options["runAsGroup"]
    kubernetes.set_security_context(task, run_as_user=user, run_as_group=group, run_as_non_root=True)

    retries, timeouts = options["retries"], options["timeoutSeconds"]
    if again and retries["count"]:
        task.set_retry(retries["count"], retries["backoff"], retries["factor"], retries["longest"])
    kubernetes.set_timeout(task, timeouts["learning" if learns else "other"])
