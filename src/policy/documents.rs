//! Which documents a tool looks at, and how a control plane would read them.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use ipnet::IpNet;
use mesh_lite_control_plane::{
    outbound_rules::OutboundRules,
    policy_index::ShippedDefaults,
    policy_review::{Documents, ReadError, ReviewSettings},
};
use mesh_lite_proto::{
    document::Dialect,
    identity::parse_trust_domain,
    sidecar::{DEFAULT_MESH_NAMESPACE, DEFAULT_TRUST_DOMAIN},
};
use spiffe::TrustDomain;

/// The same settings as the control plane's, by the same names: documents mean what they mean
/// there.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Documents")]
pub(crate) struct DocumentArgs {
    /// Trust domain of the mesh: principals of documents are read as of it.
    #[arg(long, env = "MESH_LITE_TRUST_DOMAIN", value_parser = parse_trust_domain, default_value = DEFAULT_TRUST_DOMAIN)]
    pub(crate) trust_domain: TrustDomain,
    /// Policy in this namespace is for the whole mesh.
    #[arg(long, env = "MESH_LITE_MESH_NAMESPACE", default_value = DEFAULT_MESH_NAMESPACE)]
    mesh_namespace: String,
    /// Take Istio's documents as they are; those in this namespace are for the whole mesh.
    #[arg(long, env = "MESH_LITE_ISTIO_ROOT_NAMESPACE", value_name = "NAMESPACE")]
    istio_root_namespace: Option<String>,
    /// What holds where no document says anything: as the control plane was started. Strict, if
    /// it is not given.
    #[arg(long, env = "MESH_LITE_SHIPPED", value_enum)]
    shipped: Option<Shipped>,
    /// Addresses inside the mesh. Private ranges, if none are named.
    #[arg(
        long,
        env = "MESH_LITE_MESH_CIDRS",
        value_delimiter = ',',
        value_name = "CIDRS"
    )]
    mesh_cidrs: Vec<IpNet>,
    /// Exceptions: addresses that count as outside.
    #[arg(
        long,
        env = "MESH_LITE_EXTERNAL_CIDRS",
        value_delimiter = ',',
        value_name = "CIDRS"
    )]
    external_cidrs: Vec<IpNet>,
}

/// A tool that takes a mesh for stricter than it is cries wolf; the other way round it would bless.
const ASSUMED: Shipped = Shipped::Strict;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shipped {
    /// STRICT, and DENY by default: `--config-dir`, `demo`, `install --strict`.
    Strict,
    /// PERMISSIVE: `install`.
    Permissive,
}

impl Shipped {
    pub(crate) const fn defaults(self) -> ShippedDefaults {
        match self {
            Self::Strict => ShippedDefaults::STRICT,
            Self::Permissive => ShippedDefaults::PERMISSIVE,
        }
    }
}

impl DocumentArgs {
    pub(crate) fn settings(&self) -> ReviewSettings {
        ReviewSettings {
            trust_domain: self.trust_domain.clone(),
            mesh_namespace: self.mesh_namespace.clone(),
            dialect: Dialect::of_setting(self.istio_root_namespace.as_deref()),
            shipped: self.shipped.unwrap_or(ASSUMED).defaults(),
            outbound: OutboundRules {
                mesh_cidrs: self.mesh_cidrs.clone(),
                external_cidrs: self.external_cidrs.clone(),
                ..OutboundRules::default()
            },
        }
    }

    /// Nobody said what holds where no document says anything: what follows from it may be wrong.
    pub(crate) const fn shipped_is_assumed(&self) -> bool {
        self.shipped.is_none()
    }

    /// Reads files, and the `.yaml` and `.yml` files of directories.
    ///
    /// # Errors
    /// If a path can't be read at all.
    pub(crate) fn read(&self, paths: &[PathBuf]) -> Result<Documents, ReadError> {
        Documents::read(paths, &self.settings())
    }

    /// As [`Self::read`], for tools that look at documents alone: a directory without any is a name
    /// that is written wrong.
    ///
    /// # Errors
    /// As [`Self::read`], and if a directory has no document's file.
    pub(crate) fn read_some(&self, paths: &[PathBuf]) -> anyhow::Result<Documents> {
        let documents = self.read(paths)?;
        for path in paths.iter().filter(|path| path.is_dir()) {
            let inside = |file: &str| Path::new(file).parent() == Some(path);
            anyhow::ensure!(
                documents.files().any(inside),
                "no .yaml or .yml file is in {path:?}; name the directory that has the documents \
                 (those inside of it are not looked into)"
            );
        }
        Ok(documents)
    }
}
