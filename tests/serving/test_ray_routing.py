"""Which replica gets a request, and how many replicas there are."""

import asyncio
import socket
from types import SimpleNamespace

import pytest

pytest.importorskip("ray.serve")

from ip2p_fast.cli import main  # noqa: E402
from ip2p_fast.errors import BadInput  # noqa: E402
from ip2p_fast.serving.engine_options import EngineOptions  # noqa: E402
from ip2p_fast.serving.ray import app, cluster, engines  # noqa: E402
from ip2p_fast.serving.ray.application import Arguments  # noqa: E402
from ip2p_fast.serving.ray.least_work import LeastWork  # noqa: E402
from ip2p_fast.serving.ray.scale import Scale  # noqa: E402


def replica(name):
    return SimpleNamespace(replica_id=_Id(name))


class _Id(str):
    @property
    def unique_id(self):
        return str(self)


def request(name, work, seconds=60.0, refused=()):
    return SimpleNamespace(
        kwargs={"work": work, "seconds": seconds, "refused": frozenset(refused)},
        metadata=SimpleNamespace(internal_request_id=name),
        routing_context=SimpleNamespace(should_backoff=False),
    )


@pytest.fixture
def choose():
    router = LeastWork.__new__(LeastWork)  # its parent connects to a cluster
    router.initialize_state()
    replicas = [replica("a"), replica("b"), replica("c")]

    def choose(one):
        return [rank[0].replica_id for rank in asyncio.run(router.choose_replicas(replicas, one))]

    choose.router = router
    return choose


def test_a_request_goes_where_there_is_least_work_and_not_where_there_are_fewest_requests(choose):
    first = choose(request("1", work=50))[0]
    small = [choose(request(str(i), work=4))[0] for i in range(2, 10)]
    assert first not in small and {small.count(one) for one in set(small)} == {4}


def test_requests_that_are_routed_together_see_one_another(choose):
    assert len({choose(request(str(i), work=1))[0] for i in range(3)}) == 3


def test_work_that_is_done_counts_no_more(choose):
    chosen = choose(request("1", work=50))[0]
    choose.router.on_request_completed(chosen, "1")
    assert not choose.router._charged()


def test_work_is_counted_where_it_went_and_not_where_it_was_to_go(choose):
    one = request("1", work=50)
    choose(one)
    choose.router.on_request_routed(one, "c", None)
    assert choose.router._charged() == {"c": 50}


def test_a_request_that_was_never_sent_is_forgotten_after_its_deadline(choose):
    choose(request("1", work=50, seconds=-1.0))
    assert not choose.router._charged()


def test_replicas_that_refused_come_last(choose):
    assert choose(request("1", work=1, refused="a"))[-1] == "a"
    assert set(choose(request("2", work=1, refused="ab"))[1:]) == {"a", "b"}


def test_calls_that_are_no_edits_are_routed_too(choose):
    assert len(choose(None)) == 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"replicas": 0}, "replicas is 0"),
        ({"replicas": 3, "max_replicas": 2}, "max_replicas is 2"),
        ({"cpus": -1.0}, "cpus is -1"),
        ({"target": 0.0}, "target is 0"),
    ],
)
def test_a_scale_that_cannot_be_is_refused(values, words):
    with pytest.raises(BadInput, match=words):
        Scale(**values)


def test_replicas_grow_between_their_bounds_with_the_requests_they_work_on():
    config = engines(EngineOptions(max_rows=24), Scale(1, 4))._bound_deployment._deployment_config
    scaling = config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (1, 4, 8.0)
    assert config.request_router_config.request_router_class.endswith("LeastWork")
    fixed = engines(EngineOptions(), Scale(3), grace=7)._bound_deployment._deployment_config
    assert (fixed.num_replicas, fixed.autoscaling_config, fixed.graceful_shutdown_timeout_s) == (3, None, 7)


def test_an_application_takes_the_options_of_the_engine_and_of_the_server_and_no_others():
    built = app(
        Arguments.model_validate({"model": "pocket-student", "max_steps": "50", "max_pixels": 1000, "grace": 5})
    )
    engine, settings = built._bound_deployment.init_args
    assert settings.max_steps == 50 and settings.max_pixels == 1000
    options = engine._bound_deployment.init_args[0]
    assert options.model == "pocket-student" and options.max_pixels == 1000
    with pytest.raises(ValueError, match="max_step\n"):
        Arguments.model_validate({"max_step": 50})
    with pytest.raises(BadInput, match="unknown policy"):
        app(Arguments.model_validate({"policy": "fast"}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--replicas", "2"], "replicas are for --ray"),
        (["--ray", "--replicas", "0"], "replicas is 0"),
        (["--ray-address", "ray://127.0.0.1:1"], "cannot stream"),
        (["--ray-address", "127.0.0.1:1"], "no Ray cluster at '127.0.0.1:1'"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(capfd, options, words):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert main(["serve", "--port", str(port), *options]) == 2
    error = capfd.readouterr().err
    assert words in error and error.count("\n") == 1


def test_what_keeps_a_replica_from_starting_is_told_without_its_traceback(monkeypatch):
    message = (
        "Error:\nray::x\n  File y\nRuntimeError: Traceback\nip2p_fast.errors.ModelError: unknown model 'x': see y\n"
    )
    engine = SimpleNamespace(message=message)
    applications = {"name": SimpleNamespace(deployments={"engine": engine})}
    monkeypatch.setattr(cluster.serve, "status", lambda: SimpleNamespace(applications=applications))
    assert cluster._cause("name", "otherwise") == "unknown model 'x': see y"
    assert cluster._cause("other", "otherwise") == "otherwise"
