//! An answer in words, the verdict first. Pure: what is said depends on the answer alone.

use mesh_lite_proto::authorization::{
    ConsideredPolicy, ConsideredRule, FailedField, FieldRef, PolicyAction, Recorded,
    RecordedEffect, RuleOutcome, SourceRef, Step,
};

use super::{
    Basis, Explanation,
    judged::{Call, Judged, StepTaken},
    recorded::Verdict,
};
use crate::{
    policy::review::SHIPPED_HINT,
    terminal::{Paint, harmless},
};

/// A line of a document is shown up to here.
const SHOWN_COLUMNS: usize = 120;

/// Everything about one call.
pub(super) fn describe(explanation: &Explanation, paint: Paint) -> String {
    let Explanation {
        call,
        judged,
        basis,
        ..
    } = explanation;
    let mut text = Text::new(paint);
    let verdict = if judged.is_allowed() {
        Verdict::Allowed
    } else {
        Verdict::Denied
    };
    text.headline(verdict, &caller(call), &destination(call));
    text.fact("why", &judged.reason());
    if judged.step() == StepTaken::Policy(Step::StrictPort) {
        text.fact("", "(the access log says plaintext_to_strict)");
    }
    text.fact("step", &step(judged.step()));
    if let Some(policy) = judged.policy() {
        text.fact("policy", &policy.to_string());
    }
    text.fact("by", &basis.what);
    text.broken(judged);
    text.shipped(explanation);
    if let Some((service, port)) = &explanation.service_port {
        let words = format!(
            "{} is the port of the service {service}, which dials this workload at {port}: did you \
             mean --port {port}?",
            call.port
        );
        text.fact("but", &words);
    }
    text.detail(explanation);
    text.out
}

/// `shop/web (spiffe://…) from 10.0.0.1`
pub(super) fn caller(call: &Call) -> String {
    let who = match (&call.caller_name, &call.caller) {
        (Some(name), Some(id)) => format!("{name} ({id})"),
        (Some(name), None) => format!("{name} in plaintext"),
        (None, Some(id)) => id.to_string(),
        (None, None) => "plaintext".to_owned(),
    };
    match call.source {
        Some(address) => format!("{who} from {address}"),
        None => format!("{who} from anywhere"),
    }
}

pub(super) fn destination(call: &Call) -> String {
    format!("{} port {}", call.destination, call.port)
}

pub(super) fn step(step: StepTaken) -> String {
    match step.number() {
        Some(number) => format!("{number} of 5: {}", step.in_words()),
        None => format!("before the five: {}", step.in_words()),
    }
}

/// `should be` of a field that did not hold, for people.
fn wanted(failed: &FailedField) -> String {
    if failed.field.field.negative() {
        wanted_value(failed)
    } else {
        failed.wanted()
    }
}

/// The one value that is shown.
pub(super) fn wanted_value(failed: &FailedField) -> String {
    if failed.field.field.negative() {
        format!("anything that is not {}", failed.value)
    } else {
        failed.value.clone()
    }
}

/// `file:line`; what is built in stands in no line.
pub(super) fn place(source: &SourceRef) -> String {
    match source.line {
        0 => source.file.to_string(),
        line => format!("{}:{line}", source.file),
    }
}

/// Lines one below the other. Whatever is added is made harmless first.
pub(super) struct Text {
    pub(super) out: String,
    paint: Paint,
}

impl Text {
    pub(super) const fn new(paint: Paint) -> Self {
        Self {
            out: String::new(),
            paint,
        }
    }

    pub(super) fn headline(&mut self, verdict: Verdict, caller: &str, destination: &str) {
        let verdict = match verdict {
            Verdict::Allowed => self.paint.good("ALLOWED"),
            Verdict::Cut => self.paint.bad("ALLOWED, then CUT"),
            Verdict::Denied => self.paint.bad("DENIED"),
        };
        self.line(&format!(
            "{verdict}  {} -> {}",
            harmless(caller),
            harmless(destination)
        ));
    }

    pub(super) fn fact(&mut self, name: &str, words: &str) {
        let name = self.paint.faint(&format!("{name:<12}"));
        self.line(&format!("  {name}{}", harmless(words)));
    }

    pub(super) fn title(&mut self, title: &str) {
        let title = self.paint.title(title);
        self.line("");
        self.line(&format!("  {title}"));
    }

    /// `text` is harmless already.
    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn item(&mut self, indent: usize, text: &str) {
        let indent = " ".repeat(indent);
        self.line(&format!("{indent}{}", harmless(text)));
    }

    /// What repairs it, if a document that can't be loaded denies.
    pub(super) fn broken(&mut self, judged: &Judged) {
        if judged.step() == StepTaken::Policy(Step::BrokenDocument) {
            self.fact(
                "next",
                "repair that document: mesh-lite policy lint shows what is wrong with it, and \
                 /readyz of the control plane names it until it loads",
            );
        }
    }

    /// Nobody said what holds where no document says anything, and the answer hangs on it.
    pub(super) fn shipped(&mut self, explanation: &Explanation) {
        if explanation.rests_on_shipped {
            self.fact(
                "but",
                "no document decides this, the shipped default does: is --shipped right?",
            );
            self.fact("", SHIPPED_HINT);
        }
    }

    /// What nearly matched, and everything that was looked at.
    pub(super) fn detail(&mut self, explanation: &Explanation) {
        let (judged, basis) = (&explanation.judged, &explanation.basis);
        self.notes(judged);
        self.nearest(judged, basis);
        self.considered(judged);
        self.recorded(judged);
    }

    fn notes(&mut self, judged: &Judged) {
        if judged.evicted_certificates > 0 {
            let words = format!(
                "{} certificates are evicted by their serial; whether the caller shows one of \
                 them can't be told from here",
                judged.evicted_certificates
            );
            self.fact("but", &words);
        }
    }

    fn nearest(&mut self, judged: &Judged, basis: &Basis) {
        let decision = &judged.considered.decision;
        if judged.evicted.is_some() {
            return;
        }
        let Some(miss) = &decision.nearest_miss else {
            return self.deciding_line(judged, basis);
        };
        self.title("the nearest rule that would have allowed it");
        self.item(4, &format!("{}, rules[{}]", miss.policy, miss.rule));
        for failed in &miss.failed {
            let file = &miss.policy.file;
            self.item(
                4,
                &format!("{} ({file}:{})", failed.field, failed.field.line),
            );
            let (was, should) = (harmless(&failed.got), harmless(&wanted(failed)));
            let (was, should) = (self.paint.bad(&was), self.paint.good(&should));
            self.line(&format!("      was        {was}"));
            self.line(&format!("      should be  {should}"));
            self.source_line(file, failed.field.line, basis);
        }
    }

    /// Of the rule that decided, if one did.
    fn deciding_line(&mut self, judged: &Judged, basis: &Basis) {
        let decision = &judged.considered.decision;
        if let (Some(policy), Some(_)) = (&decision.policy, decision.rule) {
            let line = decision.field.map_or(policy.line, |field| field.line);
            self.source_line(&policy.file, line, basis);
        }
    }

    fn source_line(&mut self, file: &str, line: u32, basis: &Basis) {
        let at = usize::try_from(line).unwrap_or(usize::MAX);
        let documents = basis.documents.as_ref();
        let text = documents.and_then(|read| read.documents.text(file));
        let found = text.and_then(|text| text.lines().nth(at.checked_sub(1)?));
        if let Some(found) = found {
            let shown: String = found.chars().take(SHOWN_COLUMNS).collect();
            let number = self.paint.faint(&format!("{line:>7} |"));
            self.line(&format!("{number} {}", harmless(&shown)));
        }
    }

    fn considered(&mut self, judged: &Judged) {
        self.title("considered, in this order");
        let considered = &judged.considered;
        let taken = judged.step();
        if judged.evicted.is_some() {
            self.item(4, "evictions: the caller is evicted, so no policy is asked");
        }
        self.item(4, &format!("mutual TLS of the port: {}", considered.mode));
        let asked_policies = judged.evicted.is_none();
        for policy in &considered.policies {
            self.policy(policy, asked_policies);
        }
        if considered.left_out > 0 {
            self.item(4, &format!("and {} more policies", considered.left_out));
        }
        let enforced = |policy: &&ConsideredPolicy| policy.is_enforced();
        if considered.policies.iter().find(enforced).is_none() {
            self.item(4, "no enforced policy selects this workload");
        }
        let decides = |step| match taken {
            StepTaken::Policy(taken) if taken == step => "decides",
            _ => "not asked",
        };
        match &considered.default_action {
            Some((action, source)) => {
                let decides = decides(Step::DefaultAction);
                self.item(4, &format!("default {action}: {source}: {decides}"));
            }
            None => {
                let decides = decides(Step::MutualTlsMode);
                self.item(
                    4,
                    &format!("no default is stated; {}: {decides}", considered.mode),
                );
            }
        }
    }

    fn policy(&mut self, policy: &ConsideredPolicy, asked: bool) {
        let dry_run = if policy.dry_run { " (dry run)" } else { "" };
        let title = format!("{}{dry_run} {}", policy.action, policy.source);
        if !(policy.asked && asked) {
            return self.item(4, &format!("{title}: not asked"));
        }
        if policy.rules.is_empty() {
            return self.item(4, &format!("{title}: has no rules and matches nobody"));
        }
        self.item(4, &title);
        for rule in &policy.rules {
            self.rule(policy, rule);
        }
        if policy.left_out > 0 {
            self.item(6, &format!("and {} more rules", policy.left_out));
        }
    }

    fn rule(&mut self, policy: &ConsideredPolicy, rule: &ConsideredRule) {
        let name = format!(
            "rules[{}] ({}:{})",
            rule.index, policy.source.file, rule.line
        );
        match &rule.outcome {
            RuleOutcome::NotAsked => self.item(6, &format!("{name}: not asked")),
            RuleOutcome::Matched => {
                let what = match (policy.is_enforced(), policy.action) {
                    (true, _) => "matches, and decides",
                    (false, PolicyAction::Audit) => "matches, and is recorded",
                    (false, _) => "matches, and would decide if it were enforced",
                };
                let name = harmless(&name);
                let what = self.paint.title(what);
                self.line(&format!("      {name}: {what}"));
            }
            RuleOutcome::Stopped(failed) => {
                let stopped = failed.first();
                let stopped = stopped.map_or_else(String::new, |at| stops(policy.action, at));
                self.item(6, &format!("{name}: {stopped}"));
            }
        }
    }

    fn recorded(&mut self, judged: &Judged) {
        let decision = &judged.considered.decision;
        if judged.evicted.is_none() {
            let title = "dry runs and audits, which decide nothing";
            self.dry_runs(title, &decision.recorded, decision.recorded_more);
        }
    }

    /// Nothing, if there are none.
    pub(super) fn dry_runs(&mut self, title: &str, recorded: &[Recorded], more: usize) {
        if recorded.is_empty() {
            return;
        }
        self.title(title);
        for recorded in recorded {
            let would = match recorded.effect() {
                RecordedEffect::Audit => "records this call",
                RecordedEffect::WouldDeny => "would DENY this call if it were enforced",
                RecordedEffect::WouldAllow => "would ALLOW this call if it were enforced",
            };
            let policy = &recorded.policy;
            let text = match recorded.rule {
                Some(rule) => format!("{policy}, rules[{rule}]: {would}"),
                None => format!("{policy}: {would}: none of its rules matches"),
            };
            self.item(4, &text);
        }
        if more > 0 {
            self.item(4, &format!("and {more} more"));
        }
    }
}

/// What an ALLOW rule wants, a caller may want too; of other rules it is what they look for.
fn stops(action: PolicyAction, failed: &FailedField) -> String {
    let wants = match action {
        PolicyAction::Allow => "should be",
        PolicyAction::Deny | PolicyAction::Audit => "would match",
    };
    format!(
        "stops at {} (line {}): was {}, {wants} {}",
        in_rule(failed.field),
        failed.field.line,
        failed.got,
        wanted(failed)
    )
}

/// `from[0].source.principals`: the rule is named already.
fn in_rule(field: FieldRef) -> String {
    let path = field.to_string();
    match path.split_once('.') {
        Some((_, rest)) => rest.to_owned(),
        None => path,
    }
}
