//! The monitor's figures for `/metrics`.

use std::time::Duration;

use fleetgate_engine::monitor::MonitorStats;
use fleetgate_engine::time::Mono;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

/// Interval of publication: a scrape comes about every 15 s, and counting the services walks all hosts.
const EVERY: Duration = Duration::from_secs(5);

/// The time of the last publication, and its figures.
#[derive(Default)]
pub struct Gauges {
    published: Option<Mono>,
    last: MonitorStats,
}

impl Gauges {
    /// Publishes at intervals; `figures` is called only when it is due.
    pub fn publish(&mut self, now: Mono, figures: impl FnOnce() -> MonitorStats) {
        match self.published {
            Some(at) if now.since(at) < EVERY => return,
            Some(_) => {}
            None => describe(),
        }
        self.published = Some(now);
        let figures = figures();
        gauge!("fleetgate_hosts").set(figures.hosts as f64);
        gauge!("fleetgate_services").set(figures.services as f64);
        gauge!("fleetgate_probes_in_flight").set(figures.in_flight as f64);
        gauge!("fleetgate_check_latency_seconds").set(self.mean_latency(&figures).as_secs_f64());
        gauge!("fleetgate_check_latency_max_seconds").set(figures.latency_max.as_secs_f64());
        counter!("fleetgate_checks_total").absolute(figures.checks);
        counter!("fleetgate_probes_lost_total").absolute(figures.lost_probes);
        self.last = figures;
    }

    /// Mean over the checks since the last publication.
    fn mean_latency(&self, figures: &MonitorStats) -> Duration {
        let checks = figures.checks - self.last.checks;
        let latency = figures.latency.saturating_sub(self.last.latency);
        latency.checked_div(u32::try_from(checks).unwrap_or(u32::MAX)).unwrap_or_default()
    }
}

fn describe() {
    describe_gauge!("fleetgate_hosts", "Hosts that are checked");
    describe_gauge!("fleetgate_services", "Services that are checked");
    describe_gauge!("fleetgate_probes_in_flight", "Probes that wait for their reply");
    describe_gauge!(
        "fleetgate_check_latency_seconds",
        Unit::Seconds,
        "How late checks started, on average of the last seconds"
    );
    describe_gauge!(
        "fleetgate_check_latency_max_seconds",
        Unit::Seconds,
        "How late a check started at worst since the start"
    );
    describe_counter!("fleetgate_checks_total", "Checks that were started");
    describe_counter!("fleetgate_probes_lost_total", "Probes that were never completed");
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn latency_is_that_of_the_checks_since_the_last_time() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let mut gauges = Gauges::default();
            let figures = |checks, seconds| MonitorStats {
                hosts: 2,
                checks,
                latency: Duration::from_secs(seconds),
                lost_probes: 1,
                ..MonitorStats::default()
            };
            gauges.publish(Mono::from_secs(1), || figures(10, 100));
            gauges.publish(Mono::from_secs(5), || panic!("it is too early"));
            gauges.publish(Mono::from_secs(6), || figures(14, 106));
            let text = recorder.handle().render();
            for line in [
                "# TYPE fleetgate_checks_total counter",
                "fleetgate_hosts 2",
                "fleetgate_checks_total 14",
                "fleetgate_check_latency_seconds 1.5",
                "fleetgate_probes_lost_total 1",
            ] {
                assert!(text.lines().any(|l| l == line), "{line} in {text}");
            }
            gauges.publish(Mono::from_secs(12), || figures(14, 106));
            assert!(recorder.handle().render().contains("fleetgate_check_latency_seconds 0\n"));
        });
    }
}
