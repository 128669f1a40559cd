//! `decide`, at 10 to 10,000 policies that select one workload.

use std::{collections::BTreeMap, hint::black_box};

use mesh_lite_proto::{
    authorization::{
        Caller, DefaultAction, Facts, MutualTls, MutualTlsMode, OperationMatch, PeerMatch, Policy,
        PolicyAction, PolicySnapshot, Rule, SourceRef, Step, decide,
    },
    identity::WorkloadId,
};

use crate::{Outcome, ROUNDS, cpu_time, median, microseconds, resident_kib, time_of};

const MOST: u32 = 10_000;
/// Policies of which indexes are made for one figure.
const INDEXED: u32 = 10 * MOST;
const COUNTS: [u32; 4] = [10, 100, 1000, MOST];

/// A kind of policy and a caller, and the step that they lead to.
struct Case {
    name: &'static str,
    step: Step,
    action: PolicyAction,
    principal: fn(u32) -> String,
    caller: fn(u32) -> String,
}

const CASES: [Case; 4] = [
    Case {
        name: "allowed by the exact principal of the last policy",
        step: Step::AllowRule,
        action: PolicyAction::Allow,
        principal: named,
        caller: |count| named(count.saturating_sub(1)),
    },
    Case {
        name: "denied, with the nearest miss",
        step: Step::NoAllowRule,
        action: PolicyAction::Allow,
        principal: named,
        caller: stranger,
    },
    Case {
        name: "decided by default, past DENY policies",
        step: Step::DefaultAction,
        action: PolicyAction::Deny,
        principal: named,
        caller: stranger,
    },
    Case {
        name: "allowed by the last of nothing but patterns",
        step: Step::AllowRule,
        action: PolicyAction::Allow,
        principal: |number| format!("*/sa/app-{number}"),
        caller: |count| named(count.saturating_sub(1)),
    },
];

fn stranger(_count: u32) -> String {
    "cluster.local/ns/elsewhere/sa/stranger".to_owned()
}

fn named(number: u32) -> String {
    format!("cluster.local/ns/team-{}/sa/app-{number}", number % 100)
}

pub(crate) fn measure() -> Outcome<()> {
    // first, while no memory of other cases is there to be taken again
    index()?;
    println!("decide, µs (and as a multiple of what it takes with the fewest policies)");
    for case in &CASES {
        case.measure()?;
    }
    Ok(())
}

impl Case {
    fn measure(&self) -> Outcome<()> {
        let mut sizes = Vec::new();
        for count in COUNTS {
            let id: WorkloadId = format!("spiffe://{}", (self.caller)(count)).parse()?;
            sizes.push((count, id, self.snapshot(count)?, Vec::new()));
        }
        for _ in 0..ROUNDS {
            for (_, id, snapshot, times) in &mut sizes {
                let facts = facts(id);
                let step = decide(snapshot, &facts).step;
                if step != self.step {
                    return Err(format!("{}: decided by {step}", self.name).into());
                }
                times.push(time_of(|| decide(snapshot, &facts))?);
            }
        }
        println!("  {}", self.name);
        let mut fewest = None;
        for (count, _, _, times) in sizes {
            let time = microseconds(median(times));
            let ratio = time / *fewest.get_or_insert(time);
            println!("    {count:>6} policies  {time:>9.3}  ({ratio:.2})");
        }
        Ok(())
    }

    fn snapshot(&self, count: u32) -> Outcome<PolicySnapshot> {
        let policies: Outcome<Vec<Policy>> = (0..count)
            .map(|number| policy(self.action, number, &(self.principal)(number)))
            .collect();
        Ok(PolicySnapshot {
            revision: 1,
            trust_domain: "cluster.local".parse()?,
            mutual_tls: MutualTls {
                mode: MutualTlsMode::Strict,
                ports: BTreeMap::new(),
            },
            default_action: Some((DefaultAction::Deny, source("mesh/default"))),
            policies: policies?.into_iter().collect(),
            evictions: Vec::new(),
            broken: Vec::new(),
        })
    }
}

fn facts(id: &WorkloadId) -> Facts<'_> {
    Facts {
        caller: Caller::Authenticated(id),
        source: [10, 0, 0, 9].into(),
        port: 8080,
    }
}

fn policy(action: PolicyAction, number: u32, principal: &str) -> Outcome<Policy> {
    let rule = Rule {
        line: 7,
        from: vec![PeerMatch {
            line: 8,
            principals: vec![principal.parse()?],
            ..PeerMatch::default()
        }],
        to: vec![OperationMatch {
            line: 10,
            ports: vec![8080],
            not_ports: Vec::new(),
        }],
    };
    Ok(Policy {
        source: source(&format!("shop/policy-{number}")),
        action,
        dry_run: false,
        rules: vec![rule],
    })
}

fn source(document: &str) -> SourceRef {
    SourceRef {
        document: document.into(),
        file: "policies.yaml".into(),
        line: 1,
    }
}

/// What the index costs whoever decides: it is made at the first decision.
fn index() -> Outcome<()> {
    let case = &CASES[0];
    let id: WorkloadId = format!("spiffe://{}", named(0)).parse()?;
    let most = MOST;
    let before = resident_kib()?;
    let snapshot = case.snapshot(most)?;
    let with_policies = resident_kib()?;
    let step = decide(&snapshot, &facts(&id)).step;
    println!(
        "memory of {most} policies: {} KiB, and {} KiB more after the first decision ({step})",
        with_policies.saturating_sub(before),
        resident_kib()?.saturating_sub(with_policies),
    );
    println!("the first decision, which makes the index, µs");
    for count in COUNTS {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            // enough of them to be measured, and none that has its index already
            let many = INDEXED / count;
            let snapshots: Outcome<Vec<_>> = (0..many).map(|_| case.snapshot(count)).collect();
            let (snapshots, cpu) = (snapshots?, cpu_time()?);
            for snapshot in &snapshots {
                let _decision = black_box(decide(snapshot, &facts(&id)));
            }
            let used = cpu_time()?.saturating_sub(cpu);
            times.push(used.checked_div(many).unwrap_or_default());
        }
        println!(
            "    {count:>6} policies  {:>9.1}",
            microseconds(median(times))
        );
    }
    Ok(())
}
