//! How objects depend on choices: placeholders within texts, and parts with a condition.

use serde_json::{Map, Value, json};

/// Keys of an object that stands for a part with a condition. No Kubernetes object has them.
const WHEN: &str = "@when";
const PART: &str = "@part";

/// What a part can depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Strict,
    Permissive,
    HighlyAvailable,
    Single,
    /// We make root and issuing CA ourselves.
    OwnRoot,
    /// The issuing CA comes from a Secret that somebody else fills.
    PluginCa,
    MeshCidrs,
    ExternalCidrs,
    ImagePullSecret,
    PriorityClass,
}

impl Condition {
    const ALL: [Self; 10] = [
        Self::Strict,
        Self::Permissive,
        Self::HighlyAvailable,
        Self::Single,
        Self::OwnRoot,
        Self::PluginCa,
        Self::MeshCidrs,
        Self::ExternalCidrs,
        Self::ImagePullSecret,
        Self::PriorityClass,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Permissive => "permissive",
            Self::HighlyAvailable => "ha",
            Self::Single => "single",
            Self::OwnRoot => "own-root",
            Self::PluginCa => "plugin-ca",
            Self::MeshCidrs => "mesh-cidrs",
            Self::ExternalCidrs => "external-cidrs",
            Self::ImagePullSecret => "image-pull-secret",
            Self::PriorityClass => "priority-class",
        }
    }
}

/// What can stand within a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    MeshNamespace,
    Image,
    ImagePullPolicy,
    ImagePullSecret,
    TrustDomain,
    MeshCidrs,
    ExternalCidrs,
    IssuingCaSecret,
    PriorityClass,
    /// Name of the Job that makes the root.
    RootJob,
}

impl Text {
    pub(super) const ALL: [Self; 10] = [
        Self::MeshNamespace,
        Self::Image,
        Self::ImagePullPolicy,
        Self::ImagePullSecret,
        Self::TrustDomain,
        Self::MeshCidrs,
        Self::ExternalCidrs,
        Self::IssuingCaSecret,
        Self::PriorityClass,
        Self::RootJob,
    ];

    /// What stands for it until it is known.
    pub(super) const fn placeholder(self) -> &'static str {
        match self {
            Self::MeshNamespace => "@{mesh-namespace}",
            Self::Image => "@{image}",
            Self::ImagePullPolicy => "@{image-pull-policy}",
            Self::ImagePullSecret => "@{image-pull-secret}",
            Self::TrustDomain => "@{trust-domain}",
            Self::MeshCidrs => "@{mesh-cidrs}",
            Self::ExternalCidrs => "@{external-cidrs}",
            Self::IssuingCaSecret => "@{issuing-ca-secret}",
            Self::PriorityClass => "@{priority-class}",
            Self::RootJob => "@{root-job}",
        }
    }
}

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.placeholder())
    }
}

/// `part`, if `condition` holds: an entry of a list, or the value of a key.
pub(super) fn when(condition: Condition, part: Value) -> Value {
    json!({WHEN: condition.name(), PART: part})
}

/// The condition and the part, if the value has one.
pub(super) fn conditional(value: &Value) -> Option<(Condition, &Value)> {
    let name = value.get(WHEN)?.as_str()?;
    let condition = Condition::ALL.into_iter().find(|c| c.name() == name)?;
    Some((condition, value.get(PART)?))
}

/// The value with every condition decided and every placeholder filled in; `None` where its own
/// condition does not hold.
pub(super) fn settle(
    value: Value,
    holds: &dyn Fn(Condition) -> bool,
    fill: &dyn Fn(Text) -> String,
) -> Option<Value> {
    if let Some((condition, part)) = conditional(&value) {
        return holds(condition).then(|| settle(part.clone(), holds, fill))?;
    }
    Some(match value {
        Value::String(text) => Value::String(filled(text, fill)),
        Value::Array(entries) => {
            let entries = entries.into_iter();
            entries
                .filter_map(|entry| settle(entry, holds, fill))
                .collect()
        }
        Value::Object(fields) => {
            let fields = fields.into_iter();
            let settled =
                fields.filter_map(|(key, field)| Some((key, settle(field, holds, fill)?)));
            Value::Object(settled.collect::<Map<_, _>>())
        }
        other => other,
    })
}

fn filled(text: String, fill: &dyn Fn(Text) -> String) -> String {
    if !text.contains("@{") {
        return text;
    }
    Text::ALL
        .into_iter()
        .fold(text, |text, name| match text.contains(name.placeholder()) {
            true => text.replace(name.placeholder(), &fill(name)),
            false => text,
        })
}
