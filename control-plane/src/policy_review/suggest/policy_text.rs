//! Suggested policy as people read it: YAML with comments.

use std::{collections::BTreeSet, fmt::Write, net::IpAddr, time::SystemTime};

use mesh_lite_proto::decision_record::Utc;

use super::{
    Destination, Scope,
    callers::{Asked, Fared, Rules, Seen},
};

/// Lines of comment about callers of one kind; what is more is counted.
const MAX_LISTED: usize = 20;
/// Tests of one policy. Loading it runs each, and a document may have 100.
const MAX_TESTS: usize = 90;
/// Of them, tests of callers that were denied.
const MAX_DENIED_TESTS: usize = 30;

/// All documents, in the order of namespaces and labels.
pub(super) fn written(destinations: &[Destination<'_>], now: SystemTime) -> String {
    let mut text = Text::default();
    text.comment(&format!(
        "Written by mesh-lite policy suggest at {} from what was let through.",
        seconds(now)
    ));
    text.comment("It is what happened, not what should: read it before you use it.");
    let mut documents = 0;
    for destination in destinations {
        let mut document = Text::default();
        document.recorded(destination);
        if destination.callers.all().next().is_none() {
            document.comment("Nobody called it and was judged, so nothing is suggested for it.");
            text.0.push_str(&document.0);
            continue;
        }
        document.policy(destination);
        if let Scope::None {
            others,
            is_documented,
        } = &destination.scope
        {
            text.left_out(&document.0, destination, others, *is_documented);
            continue;
        }
        // between documents only: an empty one is none
        if documents > 0 {
            text.line("---");
        }
        documents += 1;
        text.0.push_str(&document.0);
    }
    text.0
}

/// `namespace/name` of the policy of these workloads.
pub(super) fn name_of(destination: &Destination<'_>) -> String {
    format!("{}/{}", destination.namespace, name(destination))
}

/// Names of these workloads.
pub(super) fn called(destination: &Destination<'_>) -> String {
    let names: BTreeSet<String> = destination
        .recorded
        .iter()
        .map(|one| one.workload.name.to_string())
        .collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

fn name(destination: &Destination<'_>) -> String {
    let first = destination.recorded.iter().map(|one| &one.workload.name);
    let name = first.min().map_or("", |name| &name.name);
    format!("{name}-callers")
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn comment(&mut self, text: &str) {
        self.line(&format!("# {}", harmless(text)));
    }

    fn recorded(&mut self, destination: &Destination<'_>) {
        for one in &destination.recorded {
            let (since, until) = (one.recording.since, one.recording.until);
            let text = format!(
                "{}: {}, {} to {}",
                one.workload.name,
                one.name,
                seconds(since),
                seconds(until)
            );
            self.comment(&text);
            if one.recording.forgotten > 0 {
                let lost = one.recording.forgotten;
                self.comment(&format!("  incomplete: {lost} records of it were lost"));
            }
        }
    }

    fn policy(&mut self, destination: &Destination<'_>) {
        match &destination.scope {
            Scope::Labels { others } if !others.is_empty() => self.comment(&format!(
                "The labels select these too, so it is for them as well: {}",
                others.join(", ")
            )),
            Scope::Namespace => self.comment(&format!(
                "The workload has no labels, so this is for the whole of namespace {}, in which \
                 the documents have nobody else: give it a label, or write a selector.",
                destination.namespace
            )),
            Scope::Labels { .. } | Scope::None { .. } => {}
        }
        self.line("apiVersion: mesh-lite.io/v1");
        self.line("kind: AuthorizationPolicy");
        self.line(&format!(
            "metadata: {{name: {}, namespace: {}}}",
            quoted(&name(destination)),
            quoted(destination.namespace)
        ));
        self.line("spec:");
        self.selector(destination);
        self.line("  action: ALLOW");
        let rules = destination.callers.rules();
        self.rules(&rules);
        self.plaintext(destination);
        self.tests(destination, &rules);
        self.denied(destination);
    }

    fn selector(&mut self, destination: &Destination<'_>) {
        let pairs = destination.labels.iter();
        let pairs: Vec<String> = pairs
            .map(|(key, value)| format!("{}: {}", quoted(key), quoted(value)))
            .collect();
        if !pairs.is_empty() {
            self.line(&format!(
                "  selector: {{matchLabels: {{{}}}}}",
                pairs.join(", ")
            ));
        }
    }

    fn rules(&mut self, rules: &Rules<'_>) {
        if rules.is_empty() {
            self.line(
                "  rules: []  # nobody with an identity was let through the last time it came",
            );
            return;
        }
        self.line("  rules:");
        for ((ports, except), callers) in rules {
            self.line("  - from:");
            self.line("    - source:");
            self.line("        principals:");
            for (caller, seen) in callers {
                let principal = quoted(caller.principal());
                self.line(&format!("        - {principal}  # {}", told(seen)));
            }
            if !except.is_empty() {
                let blocks: Vec<String> = except.iter().map(block).collect();
                self.line("        # from there it was denied");
                self.line(&format!("        notIpBlocks: [{}]", blocks.join(", ")));
            }
            self.line("    to:");
            self.line(&format!("    - operation: {{ports: [{}]}}", listed(ports)));
        }
    }

    fn plaintext(&mut self, destination: &Destination<'_>) {
        let mut callers = destination.callers.plaintext().peekable();
        if callers.peek().is_none() {
            return;
        }
        for words in [
            "Plaintext came in too. It proves no identity, so no principal can name it: put the",
            "caller into the mesh and it is named like those above. Until then these would let it",
            "in by its address, which anybody in its network can take, and only where",
            "PeerAuthentication says PERMISSIVE:",
        ] {
            self.line(&format!("  # {words}"));
        }
        for (asked, fared) in callers.by_ref().take(MAX_LISTED) {
            self.line(&format!(
                "  # - from: [{{source: {{ipBlocks: [{}]}}}}]  # {}",
                block(&asked.source),
                told(&fared.let_through)
            ));
            let port = asked.port;
            self.line(&format!(
                "  #   to: [{{operation: {{ports: [\"{port}\"]}}}}]"
            ));
        }
        self.more("  ", callers.count());
    }

    fn more(&mut self, indent: &str, more: usize) {
        if more > 0 {
            self.line(&format!("{indent}# and {more} more"));
        }
    }

    fn tests(&mut self, destination: &Destination<'_>, rules: &Rules<'_>) {
        let mut denied: Vec<String> = destination
            .callers
            .denied()
            .map(|(asked, fared)| denied_test(asked, fared))
            .collect();
        denied.extend(stranger_test(destination, rules));
        // the stranger, who is last, is tested whoever else is left out
        let surplus = denied.len().saturating_sub(MAX_DENIED_TESTS);
        denied.drain(..surplus);
        let mut allowed: Vec<String> = Vec::new();
        for ((ports, _), callers) in rules {
            for caller in callers.keys() {
                allowed.extend(ports.iter().map(|port| {
                    let from = quoted(caller.principal());
                    format!("  - {{from: {from}, port: {port}, expect: ALLOW}}")
                }));
            }
        }
        let room = MAX_TESTS - denied.len().min(MAX_TESTS);
        let untested = surplus + allowed.len().saturating_sub(room);
        allowed.truncate(room);
        self.line("  tests:");
        for test in allowed.iter().chain(&denied) {
            self.line(test);
        }
        if untested > 0 {
            self.line(&format!(
                "  # {untested} more were recorded, and are not tested"
            ));
        }
    }

    fn denied(&mut self, destination: &Destination<'_>) {
        let mut denied = destination.callers.denied().peekable();
        if denied.peek().is_none() {
            return;
        }
        self.comment("Denied the last time, and not allowed by this:");
        for (asked, fared) in denied.by_ref().take(MAX_LISTED) {
            let from = match asked.caller {
                Some(_) => format!(" from {}", asked.source),
                None => String::new(),
            };
            self.comment(&format!(
                "  {}{from} to port {}: {}: {}",
                asked.name(),
                asked.port,
                told(&fared.denied),
                fared.reason
            ));
            if fared.let_through.count > 0 {
                self.comment(&format!(
                    "    before that let through: {}",
                    told(&fared.let_through)
                ));
            }
        }
        self.more("", denied.count());
    }

    /// The same text, where it does nothing.
    fn left_out(
        &mut self,
        document: &str,
        destination: &Destination<'_>,
        others: &[String],
        is_documented: bool,
    ) {
        let more = if others.is_empty() {
            "is for several workloads at once".to_owned()
        } else {
            format!("would be for these as well: {}", others.join(", "))
        };
        self.comment(&if is_documented {
            format!(
                "Left out: the workload has no labels, so that a policy of it {more}. Give it a \
                 label, and ask again."
            )
        } else {
            format!(
                "Left out: no document tells its labels, and without them a policy is for the \
                 whole of namespace {}, whoever is in it. Give its Workload by --config-dir, or \
                 write a selector.",
                destination.namespace
            )
        });
        for line in document.lines() {
            self.line(&format!("# {line}"));
        }
    }
}

fn denied_test(asked: &Asked<'_>, fared: &Fared) -> String {
    let from = asked
        .caller
        .map_or_else(|| "plaintext".to_owned(), |id| quoted(id.principal()));
    let (source, port) = (quoted(&asked.source.to_string()), asked.port);
    let told = told(&fared.denied);
    format!(
        "  - {{from: {from}, sourceIp: {source}, port: {port}, expect: DENY}}  # denied: {told}"
    )
}

/// Somebody whom nobody has seen.
fn stranger_test(destination: &Destination<'_>, rules: &Rules<'_>) -> Option<String> {
    let (asked, _) = destination.callers.all().next()?;
    let id = &destination.recorded.first()?.workload.id;
    let taken = |name: &str| {
        let mut callers = rules.values().flat_map(|callers| callers.keys());
        callers.any(|caller| caller.principal() == name)
    };
    let in_namespace = |account: &str| {
        let (domain, namespace) = (id.trust_domain(), destination.namespace);
        format!("{domain}/ns/{namespace}/sa/{account}")
    };
    let stranger = (0..=rules.values().map(|callers| callers.len()).sum::<usize>())
        .map(|number| match number {
            0 => in_namespace("stranger"),
            number => in_namespace(&format!("stranger-{number}")),
        })
        .find(|name| !taken(name))?;
    let (from, port) = (quoted(&stranger), asked.port);
    Some(format!("  - {{from: {from}, port: {port}, expect: DENY}}"))
}

fn told(seen: &Seen) -> String {
    let last = seen
        .last
        .map_or_else(String::new, |last| format!(", last {}", seconds(last)));
    match seen.count {
        1 => format!("1 connection{last}"),
        more => format!("{more} connections{last}"),
    }
}

/// People read these: milliseconds are left out.
fn seconds(time: SystemTime) -> String {
    let text = Utc(time).to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

fn block(address: &IpAddr) -> String {
    let length = if address.is_ipv4() { 32 } else { 128 };
    format!("\"{address}/{length}\"")
}

fn listed(ports: &BTreeSet<u16>) -> String {
    let ports: Vec<String> = ports.iter().map(|port| format!("\"{port}\"")).collect();
    ports.join(", ")
}

/// A text of YAML. Bare only where it can't be anything else than a text.
fn quoted(text: &str) -> String {
    // words that YAML takes for something else
    const TAKEN: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let starts = text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase());
    let plain = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'/')
    };
    if starts && text.bytes().all(plain) && !TAKEN.contains(&text) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            // what goes into a `String` can't fail
            other => drop(write!(quoted, "\\U{:08x}", u32::from(other))),
        }
    }
    quoted.push('"');
    quoted
}

/// One line that is no more than a comment, whatever is in it.
fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' '..='~' => shown.push(c),
            other if other.is_alphanumeric() => shown.push(other),
            other => shown.extend(other.escape_unicode()),
        }
    }
    shown
}
