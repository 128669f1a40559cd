//! mesh-lite: every TCP byte between pods encrypted, every caller known, every access decided.
//!
//! One binary plays every role. A subcommand parses its arguments, calls a crate, prints.

use std::process::ExitCode;

use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand, builder::Resettable};

mod check;
mod control_plane;
mod demo;
mod explain;
mod identity;
mod inject;
mod injector;
mod install;
mod logging;
mod mesh_settings;
mod policy;
mod private_memory;
mod proxy;
mod recordings;
mod redirect;
mod root;
mod sidecar_pages;
mod status;
mod strict_ready;
mod terminal;
mod token;
mod uninject;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A service mesh reduced to what everybody wants of one.
#[derive(Parser)]
#[command(name = "mesh-lite", version, propagate_version = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

const EXAMPLES: &str = "\
Examples:
  mesh-lite demo                              see the mesh at work, without root
  mesh-lite install --help                    put the mesh into a Kubernetes cluster
  mesh-lite root init --data-dir state        make a root and the first issuing CA
  mesh-lite control-plane --data-dir state --config-dir documents
  mesh-lite token create shop/web --data-dir state
  mesh-lite proxy --help                      the sidecar
  mesh-lite identity                          what certificate it has, and how its renewal stands
  mesh-lite policy lint documents             what is wrong or odd with documents
  mesh-lite explain --help                    why a connection was allowed or denied, or would be

Each subcommand's --help has examples of its own.";

#[derive(Subcommand)]
enum Role {
    /// Show the mesh at work on this machine: no root, no Kubernetes.
    Demo(demo::Args),
    /// Attest workloads, issue their certificates, serve directory and policy.
    ControlPlane(Box<control_plane::Args>),
    /// The sidecar: capture, mutual TLS, authorization, forwarding.
    Proxy(Box<proxy::Args>),
    /// Install the capture rules in this network namespace, prove them, exit.
    Redirect(redirect::Args),
    /// Make the root of the mesh, or sign the next issuing CA.
    Root(root::Args),
    /// Make a join token for a workload.
    Token(token::Args),
    /// Say whose certificate a sidecar has, until when, renewed when, and why not.
    Identity(identity::Args),
    /// Say why a connection was allowed or denied, or would be.
    Explain(explain::Args),
    /// Lint, test, plan, replay and suggest policy.
    Policy(policy::Args),
    /// Say who still speaks plaintext to whom, and whether STRICT would cut anybody.
    StrictReady(strict_ready::Args),
    /// Print the manifests that put the mesh into a cluster.
    Install(install::Args),
    /// The mutating webhook: adds the sidecar to pods.
    Injector(Box<injector::Args>),
    /// Print workloads with the sidecar in their pods, as the webhook would add it.
    Inject(Box<inject::Args>),
    /// Print workloads as they were before the sidecar was added.
    Uninject(uninject::Args),
    /// Say whether the mesh in a cluster works, or what would break in a namespace.
    Check(check::Args),
    /// Say what of the mesh runs, and which pods are in it.
    Status(status::Args),
    /// Print the version.
    Version,
}

fn main() -> ExitCode {
    let arguments =
        Arguments::from_arg_matches(&without_empty_settings(Arguments::command()).get_matches())
            .unwrap_or_else(|error| error.exit());
    // kube and tonic would look for a process-wide provider; ours is passed explicitly, and this
    // makes sure that nothing ever finds another one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    run(arguments.role).unwrap_or_else(|error| {
        eprintln!("mesh-lite: {error:#}");
        ExitCode::FAILURE
    })
}

/// A variable that is set to nothing sets nothing: manifests leave such ones behind.
fn without_empty_settings(command: Command) -> Command {
    let is_empty = |arg: &clap::Arg| {
        let variable = arg.get_env().and_then(std::env::var_os);
        variable.is_some_and(|value| value.is_empty())
    };
    command
        .mut_args(|arg| {
            if is_empty(&arg) {
                arg.env(Resettable::Reset)
            } else {
                arg
            }
        })
        .mut_subcommands(without_empty_settings)
}

fn run(role: Role) -> anyhow::Result<ExitCode> {
    if role.holds_secrets() {
        private_memory::keep()?;
    }
    match role {
        Role::Demo(args) => demo::run(args),
        Role::ControlPlane(args) => control_plane::run(*args),
        Role::Proxy(args) => proxy::run(*args),
        Role::Redirect(args) => redirect::run(args),
        Role::Root(args) => root::run(args),
        Role::Token(args) => token::run(args),
        Role::Identity(args) => identity::run(&args),
        Role::Explain(args) => explain::run(&args),
        Role::Policy(args) => policy::run(&args),
        Role::StrictReady(args) => strict_ready::run(&args),
        Role::Install(args) => install::run(args),
        Role::Check(args) => check::run(&args),
        Role::Status(args) => status::run(&args),
        Role::Injector(args) => injector::run(*args),
        Role::Inject(args) => inject::run(*args),
        Role::Uninject(args) => uninject::run(&args),
        Role::Version => {
            println!("mesh-lite {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl Role {
    /// Whether private keys or join tokens come into this process.
    fn holds_secrets(&self) -> bool {
        match self {
            Self::Demo(_)
            | Self::ControlPlane(_)
            | Self::Proxy(_)
            | Self::Injector(_)
            | Self::Root(_)
            | Self::Token(_) => true,
            Self::Redirect(_)
            | Self::Identity(_)
            | Self::Explain(_)
            | Self::Policy(_)
            | Self::StrictReady(_)
            | Self::Install(_)
            | Self::Check(_)
            | Self::Status(_)
            | Self::Inject(_)
            | Self::Uninject(_)
            | Self::Version => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trust_domain_that_is_not_written_as_its_name_is_refused_by_every_command() {
        let commands: [&[&str]; 3] = [
            &["control-plane", "--data-dir", "d", "--config-dir", "c"],
            &["root", "init", "--data-dir", "d"],
            &[
                "proxy",
                "--control-plane",
                "localhost:15012",
                "--trust-bundle",
                "b",
                "--data-dir",
                "d",
            ],
        ];
        for command in commands {
            let parse = |domain| {
                let whole = ["mesh-lite"].into_iter().chain(command.iter().copied());
                Arguments::try_parse_from(whole.chain(["--trust-domain", domain]))
            };
            assert!(parse("cluster.local").is_ok(), "{command:?}");
            for domain in ["Cluster.Local", "spiffe://cluster.local/ns/y"] {
                let refused = parse(domain).err().unwrap().to_string();
                let words = "did you mean \"cluster.local\"?";
                assert!(refused.contains(words), "{command:?}: {refused}");
            }
        }
    }

    #[test]
    fn what_install_starts_are_commands_of_this_program() {
        let choices = mesh_lite_injector::installation::Choices::default();
        let mut parsed = 0;
        for object in mesh_lite_injector::installation::manifests(&choices) {
            let pointers = ["/spec/template", "/spec/jobTemplate/spec/template"];
            for template in pointers
                .iter()
                .filter_map(|pointer| object.pointer(pointer))
            {
                let arguments = template.pointer("/spec/containers/0/args").unwrap();
                let arguments = arguments.as_array().unwrap().iter();
                let arguments = arguments.map(|argument| argument.as_str().unwrap());
                let whole: Vec<&str> = ["mesh-lite"].into_iter().chain(arguments).collect();
                let refused = Arguments::try_parse_from(&whole).err();
                assert!(refused.is_none(), "{whole:?}: {}", refused.unwrap());
                parsed += 1;
            }
        }
        assert_eq!(parsed, 4);
    }
}
