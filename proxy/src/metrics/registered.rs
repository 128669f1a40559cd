//! Every metric with its name and its help.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::{
    authorization::DecisionLabels,
    connection::{ActiveConnections, ConnectionLabels, ConnectionSeries},
    reasons::{
        AcceptError, BreakageCause, CertificateKind, LocalSecret, Plaintext, Refusal, Renewal,
        SocketRefusal, Termination,
    },
    series::{ByReason, CappedSeries, CounterView, GaugeByReason, Shown},
};

type FloatGauge = Gauge<f64, AtomicU64>;

pub(super) struct Registered {
    pub(super) registry: Registry,
    /// `f64` bits of the time of the scrape that is being answered, in Unix seconds
    pub(super) now: Arc<AtomicU64>,
    pub(super) connections: Arc<CappedSeries<ConnectionLabels, ConnectionSeries>>,
    pub(super) active: ActiveConnections,
    pub(super) decisions: Arc<CappedSeries<DecisionLabels, AtomicU64>>,
    pub(super) terminated: ByReason<Termination>,
    pub(super) plaintext: ByReason<Plaintext>,
    pub(super) refused: ByReason<Refusal>,
    pub(super) accept_errors: ByReason<AcceptError>,
    pub(super) certificate_expiry: GaugeByReason<CertificateKind>,
    pub(super) renewals: ByReason<Renewal>,
    pub(super) socket_refusals: ByReason<SocketRefusal>,
    pub(super) socket_streams: Gauge,
    pub(super) local_secrets: ByReason<LocalSecret>,
    pub(super) broken_secrets: Counter,
    pub(super) breakage: GaugeByReason<BreakageCause>,
    pub(super) bundle_generation: Gauge,
    pub(super) policy_revision: Gauge,
    pub(super) policy_nacks: Counter,
    pub(super) broken_policies: Gauge,
    pub(super) control_plane_connected: Gauge,
    pub(super) control_plane_contact: FloatGauge,
    pub(super) directory_names: Gauge,
    pub(super) directory_answers_refused: Counter,
    pub(super) clock_skew: FloatGauge,
    pub(super) capture_ok: Gauge,
    pub(super) decision_records: Gauge,
    pub(super) decision_records_forgotten: Counter,
    pub(super) access_log_dropped: Counter,
    pub(super) panics: Counter,
}

impl Registered {
    pub(super) fn new(prefix: &str, max_label_sets: usize) -> Self {
        let now = Arc::<AtomicU64>::default();
        let ahead = Shown::SecondsAhead {
            now: Arc::clone(&now),
        };
        let mut all = Self {
            registry: Registry::with_prefix(prefix),
            now,
            connections: Arc::new(CappedSeries::new(max_label_sets)),
            active: ActiveConnections::default(),
            decisions: Arc::new(CappedSeries::new(max_label_sets)),
            terminated: ByReason::new("reason"),
            plaintext: ByReason::new("reason"),
            refused: ByReason::new("reason"),
            accept_errors: ByReason::new("error"),
            certificate_expiry: GaugeByReason::new("kind", Shown::AsStored),
            renewals: ByReason::new("result"),
            socket_refusals: ByReason::new("reason"),
            socket_streams: Gauge::default(),
            local_secrets: ByReason::new("result"),
            broken_secrets: Counter::default(),
            breakage: GaugeByReason::new("cause", ahead),
            bundle_generation: Gauge::default(),
            policy_revision: Gauge::default(),
            policy_nacks: Counter::default(),
            broken_policies: Gauge::default(),
            control_plane_connected: Gauge::default(),
            control_plane_contact: FloatGauge::default(),
            directory_names: Gauge::default(),
            directory_answers_refused: Counter::default(),
            clock_skew: FloatGauge::default(),
            capture_ok: Gauge::default(),
            decision_records: Gauge::default(),
            decision_records_forgotten: Counter::default(),
            access_log_dropped: Counter::default(),
            panics: Counter::default(),
        };
        all.register_connections();
        all.register_decisions();
        all.register_identity();
        all.register_workload_socket();
        all.register_control_plane();
        all.register_own_health();
        all
    }

    fn register_connections(&mut self) {
        self.register_tcp(
            "tcp_connections_opened",
            "Connections let through",
            |series| series.opened.load(Ordering::Relaxed),
        );
        let closed = "Connections let through that have ended";
        self.register_tcp("tcp_connections_closed", closed, |series| {
            series.closed.load(Ordering::Relaxed)
        });
        self.register_tcp(
            "tcp_sent_bytes",
            "Bytes that came back to the callers",
            |series| series.sent.load(Ordering::Relaxed),
        );
        self.register_tcp(
            "tcp_received_bytes",
            "Bytes that came from the callers",
            |series| series.received.load(Ordering::Relaxed),
        );
        let r = &mut self.registry;
        r.register(
            "tcp_connections_active",
            "Connections open now",
            self.active.clone(),
        );
        r.register(
            "refused",
            "Connections refused without a policy's denial",
            self.refused.clone(),
        );
        r.register(
            "plaintext_connections",
            "Plaintext let through",
            self.plaintext.clone(),
        );
        r.register(
            "accept_errors",
            "Failed accepts",
            self.accept_errors.clone(),
        );
    }

    fn register_tcp(&mut self, name: &str, help: &str, value: fn(&ConnectionSeries) -> u64) {
        let series = Arc::clone(&self.connections);
        self.registry
            .register(name, help, CounterView { series, value });
    }

    fn register_decisions(&mut self) {
        let decisions = CounterView {
            series: Arc::clone(&self.decisions),
            value: |count: &AtomicU64| count.load(Ordering::Relaxed),
        };
        let r = &mut self.registry;
        r.register("authz", "What policy decided on new connections", decisions);
        r.register(
            "decision_records",
            "Distinct decisions remembered, for the page /decisions",
            self.decision_records.clone(),
        );
        r.register(
            "decision_records_forgotten",
            "Decisions forgotten to make room for later ones",
            self.decision_records_forgotten.clone(),
        );
        r.register(
            "authz_terminated",
            "Connections that had been allowed and were cut",
            self.terminated.clone(),
        );
        r.register(
            "policy_revision",
            "Revision of the policy snapshot in force",
            self.policy_revision.clone(),
        );
        r.register(
            "policy_nacks",
            "Policy snapshots refused; the last good one stays in force",
            self.policy_nacks.clone(),
        );
        r.register(
            "policy_broken_documents",
            "Documents that could not be loaded and deny in their scope",
            self.broken_policies.clone(),
        );
    }

    fn register_identity(&mut self) {
        let r = &mut self.registry;
        r.register(
            "cert_expiry_timestamp_seconds",
            "When the certificate ends, Unix time",
            self.certificate_expiry.clone(),
        );
        r.register(
            "cert_renewals",
            "Attempts to get a certificate",
            self.renewals.clone(),
        );
        r.register(
            "time_to_breakage_seconds",
            "Until connections fail, if nobody does anything",
            self.breakage.clone(),
        );
        r.register(
            "bundle_generation",
            "Grows with each change of the trust bundle",
            self.bundle_generation.clone(),
        );
        r.register(
            "clock_skew_seconds",
            "How far the control plane's clock is ahead of ours",
            self.clock_skew.clone(),
        );
    }

    fn register_workload_socket(&mut self) {
        let r = &mut self.registry;
        r.register(
            "workload_socket_refused",
            "Connections and streams refused at the workload socket",
            self.socket_refusals.clone(),
        );
        r.register(
            "workload_socket_streams",
            "Streams open at the workload socket",
            self.socket_streams.clone(),
        );
        r.register(
            "workload_socket_secrets",
            "What became of secrets asked for at the workload socket",
            self.local_secrets.clone(),
        );
        r.register(
            "broken_secrets",
            "Identities that nobody could use, and that were sent to nobody",
            self.broken_secrets.clone(),
        );
    }

    fn register_control_plane(&mut self) {
        let r = &mut self.registry;
        r.register(
            "control_plane_connected",
            "1 while the streams to the control plane are up",
            self.control_plane_connected.clone(),
        );
        r.register(
            "control_plane_last_contact_timestamp_seconds",
            "When the control plane last answered, Unix time",
            self.control_plane_contact.clone(),
        );
        r.register(
            "directory_names",
            "Names asked of the workload directory and kept",
            self.directory_names.clone(),
        );
        r.register(
            "directory_answers_refused",
            "Answers of the workload directory that could not be used",
            self.directory_answers_refused.clone(),
        );
    }

    fn register_own_health(&mut self) {
        let r = &mut self.registry;
        r.register(
            "capture_ok",
            "1 if traffic of the application can't pass this sidecar by",
            self.capture_ok.clone(),
        );
        r.register(
            "access_log_dropped",
            "Access log lines lost to a full queue or a failed write",
            self.access_log_dropped.clone(),
        );
        r.register("panics", "Tasks ended by a panic", self.panics.clone());
    }
}
