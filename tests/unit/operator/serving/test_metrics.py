"""The metrics' text."""

from weir_operator.serving.metrics import Metrics


def lines(metrics):
    return [line for line in metrics.render().decode().splitlines() if not line.startswith("#")]


def test_counters_have_their_labels():
    metrics = Metrics()
    metrics.admissions.add("mutate_pods", "injected")
    metrics.admissions.add("mutate_pods", "injected")
    assert 'weir_admissions_total{webhook="mutate_pods",result="injected"} 2' in lines(metrics)


def test_a_counter_without_labels_begins_at_nought():
    assert "weir_configs_sent_total 0" in lines(Metrics())


def test_buckets_count_what_is_below_them():
    metrics = Metrics()
    for seconds in (0.001, 0.003, 99):
        metrics.admission_seconds.observe(seconds)
    told = lines(metrics)
    assert 'weir_admission_duration_seconds_bucket{le="0.001"} 1' in told
    assert 'weir_admission_duration_seconds_bucket{le="0.005"} 2' in told
    assert 'weir_admission_duration_seconds_bucket{le="5.0"} 2' in told
    assert 'weir_admission_duration_seconds_bucket{le="+Inf"} 3' in told
    assert "weir_admission_duration_seconds_sum 99.004" in told
    assert "weir_admission_duration_seconds_count 3" in told


def test_a_gauge_is_asked_when_it_is_told():
    metrics = Metrics()
    values = [1]
    metrics.gauge("weir_x", "X.", lambda: values[0])
    assert "weir_x 1" in lines(metrics)
    values[0] = 2
    assert "weir_x 2" in lines(metrics)


def test_every_family_has_its_help_and_type_once():
    text = Metrics().render().decode()
    helped = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    typed = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert helped == typed
    assert len(set(helped)) == len(helped)
    assert all(name.startswith("weir_") for name in helped)
