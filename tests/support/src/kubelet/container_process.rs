//! One container as one command: network namespace, mount namespace with a root of its own,
//! user, capabilities, environment, program.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::environment::Environment;
use super::volumes::Volumes;
use super::{APPLICATION_UID, RunningPod};

pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What container runtimes give to root in a container that drops nothing.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "net_bind_service",
    "net_raw",
    "sys_chroot",
    "mknod",
    "audit_write",
    "setfcap",
];
/// Of this machine, readable in every container: images have programs and libraries too.
const ROOT: &str = "\
set -eu
mkdir -p \"$root\"
mount -t tmpfs -o mode=755 tmpfs \"$root\"
for part in bin sbin lib lib64 usr etc dev proc sys; do
  [ -e /$part ] || continue
  if [ -L /$part ]; then cp -P /$part \"$root/$part\"; continue; fi
  mkdir \"$root/$part\"
  mount --rbind /$part \"$root/$part\"
done
mkdir \"$root/run\" \"$root/var\" \"$root/tmp\"
ln -s ../run \"$root/var/run\"
chmod 1777 \"$root/tmp\"
";

/// Arguments for `nsenter`.
pub(super) fn arguments(
    running: &RunningPod<'_>,
    volumes: &Volumes,
    container: &Value,
    entry_point: &[String],
    programs: &[PathBuf],
) -> Vec<String> {
    let name = container["name"].as_str().unwrap();
    let environment = Environment::of(&running.object, running.at, container);
    let program = program(container, entry_point, &environment);
    assert!(
        !program.is_empty(),
        "{name}: nobody said what {} runs",
        container["image"]
    );
    let root = running.directory.join(format!("{name}-root"));
    let mut script = format!("root={}\n{ROOT}", quoted(path(&root)));
    let hosts = running.directory.join("hosts");
    script.push_str(&format!(
        "mount --bind {} \"$root/etc/hosts\"\n",
        quoted(path(&hosts))
    ));
    for directory in programs {
        script.push_str(&mount(path(directory), path(directory), true));
    }
    script.push_str(&volume_mounts(container, volumes));
    if container["securityContext"]["readOnlyRootFilesystem"] == true {
        script.push_str("mount -o remount,ro \"$root\"\n");
    }
    let mut words: Vec<String> = ["exec", "chroot", "\"$root\"", "env", "-i"]
        .map(Into::into)
        .into();
    words.push(format!("PATH={PATH}"));
    words.extend(
        environment
            .pairs()
            .map(|(name, value)| quoted(&format!("{name}={value}"))),
    );
    words.extend(user(&running.object["spec"]["securityContext"], container));
    words.extend(program.iter().map(|word| quoted(word)));
    script.push_str(&words.join(" "));
    let network = format!("--net=/run/netns/{}", running.at.namespace.name());
    let start = ["unshare", "--mount", "--propagation", "private", "sh", "-c"];
    let start = start.iter().map(|word| (*word).to_owned());
    std::iter::once(network)
        .chain(start)
        .chain([script])
        .collect()
}

/// What is mounted into another one comes after it.
fn volume_mounts(container: &Value, volumes: &Volumes) -> String {
    let mounts = container["volumeMounts"].as_array().into_iter().flatten();
    let mut mounts: Vec<(&str, &str, bool)> = mounts
        .map(|mount| {
            let directory = volumes.directory(mount["name"].as_str().unwrap());
            let at = mount["mountPath"].as_str().unwrap();
            (at, path(directory), mount["readOnly"] == true)
        })
        .collect();
    mounts.sort_unstable();
    mounts
        .into_iter()
        .map(|(at, from, read_only)| mount(from, at, read_only))
        .collect()
}

fn mount(from: &str, at: &str, read_only: bool) -> String {
    let (from, at) = (quoted(from), quoted(at));
    let mut lines = format!("mkdir -p \"$root\"{at}\nmount --bind {from} \"$root\"{at}\n");
    if read_only {
        lines.push_str(&format!("mount -o remount,bind,ro \"$root\"{at}\n"));
    }
    lines
}

/// `command` stands for the image's entry point, `args` for what it is told.
fn program(container: &Value, entry_point: &[String], environment: &Environment) -> Vec<String> {
    let words = |name: &str| -> Option<Vec<String>> {
        let list = container[name].as_array()?;
        let words = list
            .iter()
            .map(|word| environment.expanded(word.as_str().unwrap()));
        Some(words.collect())
    };
    let mut program = words("command").unwrap_or_else(|| entry_point.to_vec());
    program.extend(words("args").unwrap_or_default());
    program
}

/// `setpriv` with what both security contexts say.
fn user(pod: &Value, container: &Value) -> Vec<String> {
    let own = &container["securityContext"];
    let number = |name: &str| own[name].as_u64().or_else(|| pod[name].as_u64());
    let uid = number("runAsUser").unwrap_or_else(|| APPLICATION_UID.into());
    let gid = number("runAsGroup").unwrap_or(uid);
    let not_root = own["runAsNonRoot"]
        .as_bool()
        .or_else(|| pod["runAsNonRoot"].as_bool());
    assert!(
        uid != 0 || not_root != Some(true),
        "{container}: root, which it must not be"
    );
    assert_ne!(own["privileged"], true, "{container}: privileged");
    let mut words: Vec<String> = ["setpriv", "--pdeathsig", "KILL"].map(Into::into).into();
    let mut say = |name: &str, value: String| words.extend([name.to_owned(), value]);
    let mut groups: Vec<u64> = pod["fsGroup"].as_u64().into_iter().collect();
    let more = pod["supplementalGroups"].as_array().into_iter().flatten();
    groups.extend(more.filter_map(Value::as_u64));
    say("--reuid", uid.to_string());
    say("--regid", gid.to_string());
    let kept: String = capabilities(&own["capabilities"])
        .iter()
        .map(|name| format!(",+{name}"))
        .collect();
    say("--bounding-set", format!("-all{kept}"));
    // Root gets at exec what its bounding set allows; nobody else gets anything.
    let inherited = if uid == 0 { kept.as_str() } else { "" };
    say("--inh-caps", format!("-all{inherited}"));
    say("--ambient-caps", "-all".to_owned());
    if groups.is_empty() {
        words.push("--clear-groups".to_owned());
    } else {
        let groups: Vec<String> = groups.iter().map(u64::to_string).collect();
        words.extend(["--groups".to_owned(), groups.join(",")]);
    }
    if own["allowPrivilegeEscalation"] == false {
        words.push("--no-new-privs".to_owned());
    }
    words.push("--".to_owned());
    words
}

fn capabilities(wanted: &Value) -> Vec<String> {
    let list = |name: &str| -> Vec<String> {
        let names = wanted[name].as_array().into_iter().flatten();
        names
            .map(|name| name.as_str().unwrap().to_lowercase())
            .collect()
    };
    let dropped = list("drop");
    let mut kept: Vec<String> = DEFAULT_CAPABILITIES.map(Into::into).into();
    kept.retain(|name| !dropped.contains(name) && !dropped.contains(&"all".to_owned()));
    kept.extend(list("add"));
    kept
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of our own making")
}

/// One word of a shell's, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
