"""docs/deploying.md: files, objects and numbers that it names exist, and its commands are as short as it promises."""

import re

import pytest
import yaml

import chart
import test_rules
import test_values
from test_book import book

TEXT = (chart.ROOT / "docs" / "deploying.md").read_text()
KIND, EKS = (chart.read(chart.ROOT / "helm" / name / "values.yaml") for name in ("kind", "eks"))


def commands(title):
    """The lines of the commands below a heading."""
    section = TEXT.split(f"\n## {title}\n", 1)[1]
    return re.search(r"```bash\n(.*?)```", section, re.DOTALL)[1].splitlines()


@pytest.mark.parametrize("title,most", [("kind", 10), ("EKS", 20)])
def test_the_commands_are_few(title, most):
    assert 5 <= len(commands(title)) <= most


@pytest.mark.parametrize("title,values,release,namespace", [("kind", KIND, "saker", "default"), ("EKS", EKS, "saker", "shop")])
def test_the_commands_name_what_there_is(title, values, release, namespace):
    text = "\n".join(commands(title))
    assert f"helm install {release} helm/saker" in text
    objects = {(thing["kind"], thing["metadata"]["name"]) for _, thing in chart.render(values, release, namespace)}
    kinds = {"cronjob": "CronJob", "deployment": "Deployment", "service": "Service"}
    named = re.findall(r"\b(cronjob|deployment|service)/([a-z-]+)", text)
    assert named
    for kind, name in named:
        assert (kinds[kind], name) in objects, f"{kind}/{name}"
    paths = re.findall(r"(?<![\w/])helm/[\w./*$-]+", text)
    for path in paths:
        found = list(chart.ROOT.glob(path.replace("$part", "triton")))
        assert found, path
    assert len(paths) >= 2


def test_eks_binds_policies_to_the_accounts():
    text = "\n".join(commands("EKS"))
    parts = re.search(r"for part in ([a-z ]+);", text)[1].split()
    accounts = {a["metadata"]["name"] for a in chart.of_kind(chart.render(EKS, "saker", "shop"), "ServiceAccount")}
    assert accounts == {f"saker-{part}" for part in parts}
    for part in parts:
        assert (chart.ROOT / "helm" / "eks" / "policies" / f"{part}.json").is_file()
    assert f"create secret generic {EKS['store']['existingSecret']} --from-literal=url" in text
    assert f"create secret generic {EKS['gateway']['apiKeys']['existingSecret']} --from-file=api-keys" in text
    assert EKS["releases"]["url"] in TEXT
    assert EKS["releases"]["url"].split("/")[2] in text


def test_a_release_of_kind_and_its_image_names():
    text = "\n".join(commands("kind"))
    for image in KIND["image"].values():
        if isinstance(image, dict):
            assert f"{image['repository']}:{image['tag']}" in text


def test_every_alert_is_explained():
    table = set(re.findall(r"^\| (Saker\w+) \|", TEXT, re.MULTILINE))
    assert table == set(test_rules.ALERTS)


def test_the_numbers_are_right():
    numbers = {
        r"(\d+) sets of values": len(chart.value_sets()),
        r"(\d+) alerts": len(test_rules.ALERTS),
        r"(\d+) wrong values and contradictions": len(test_values.WRONG) + len(test_values.CONTRADICTING),
    }
    for pattern, number in numbers.items():
        assert re.search(pattern, TEXT)[1] == str(number), pattern
    changelog = (chart.ROOT / "CHANGELOG.md").read_text()
    assert f"{len(test_rules.ALERTS)} alerts" in changelog


def test_links_lead_somewhere():
    pages = [chart.ROOT / "docs" / f"{name}.md" for name in ("deploying", "metrics", "scale-out")]
    for path in (*pages, *chart.ROOT.glob("helm/*/README.md")):
        assert not (wrong := list(book.broken_links(chart.ROOT, path))), wrong


def test_the_files_for_karpenter_can_be_joined():
    """The command gives kubectl all of them as one stream."""
    joined = "".join(path.read_text() for path in sorted(chart.ROOT.glob("helm/karpenter/*.yaml")))
    kinds = [thing["kind"] for thing in yaml.safe_load_all(joined)]
    assert kinds == ["EC2NodeClass", "NodePool", "NodePool"]


def test_images_that_kind_does_not_load_are_pulled():
    assert KIND["image"]["pullPolicy"] == "IfNotPresent"


def test_yaml_of_the_examples_is_valid():
    for path in chart.ROOT.glob("helm/**/*.yaml"):
        if "templates" not in path.parts:
            assert list(yaml.safe_load_all(path.read_text())), path
