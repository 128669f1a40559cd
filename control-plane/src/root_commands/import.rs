//! An issuing CA that another PKI signed: checked as the control plane will check it, then laid
//! into the data directory.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use mesh_lite_proto::trust_bundle::TrustBundle;
use spiffe::TrustDomain;

use super::{RootCommandError, RootMode};
use crate::certificate_authority::{
    authority::IssuingAuthority,
    authority_facts::InvalidAuthority,
    file_replacement::read_named,
    key_store::{DataDirectory, KeyStoreError, parse_chain, parse_key},
    root::NewIssuingAuthority,
    trial::check_as_peers_do,
};

#[derive(Debug, Clone)]
pub struct Import {
    pub data_dir: PathBuf,
    pub trust_domain: TrustDomain,
    /// PEM: the issuing CA, then its issuer, and so on. The root may stand last.
    pub chain: PathBuf,
    /// PEM, PKCS#8.
    pub key: PathBuf,
    /// PEM: the roots that everybody is to trust. `None`: the data directory has them.
    pub roots: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportReport {
    pub issuing_authority: PathBuf,
    pub issuing_key_id: String,
    pub issuing_until: SystemTime,
    pub warns_from: SystemTime,
    pub intermediates: usize,
    pub trust_bundle: PathBuf,
    /// What is unusual: taken all the same.
    pub warnings: Vec<String>,
}

/// Writes nothing unless all of it can serve. Roots are only added to the trust bundle: leaves of
/// the CA before are in use.
///
/// # Errors
/// If a file can't be read, or the CA can't serve this mesh.
pub fn import_authority(
    import: &Import,
    now: SystemTime,
) -> Result<ImportReport, RootCommandError> {
    let data = DataDirectory::new(import.data_dir.clone());
    let chain = read_named(&import.chain)?;
    let (certificate, intermediates) = parse_chain(&import.chain, &chain)?;
    let load_key =
        || -> Result<_, KeyStoreError> { parse_key(&import.key, &read_named(&import.key)?) };
    let authority = IssuingAuthority::with_intermediates(
        certificate.clone(),
        intermediates,
        load_key()?,
        &import.trust_domain,
    )?;
    authority.check_time(now)?;
    let added = match &import.roots {
        Some(path) => Some(read_roots(path, &import.trust_domain)?),
        None => None,
    };
    let bundle = data.as_its_owner(|| {
        check_trust_domain(&data, &import.trust_domain)?;
        roots(&import.trust_domain, added, &data)
    })?;
    authority.root_in(&bundle)?;
    check_as_peers_do(&authority, &bundle, now)?;

    let facts = authority.facts().clone();
    let warns_from = RootMode::Offline.warns_from(&facts);
    let new = NewIssuingAuthority {
        certificate,
        intermediates: authority.chain().skip(1).cloned().collect(),
        facts: facts.clone(),
        key: load_key()?,
    };
    data.as_its_owner(|| {
        data.create()?;
        data.write_trust_bundle(&bundle)?;
        data.write_issuing_authority(&new, RootMode::Offline)
    })?;
    Ok(ImportReport {
        issuing_authority: data.issuing_authority(),
        issuing_key_id: facts.key_id,
        issuing_until: facts.not_after,
        warns_from,
        intermediates: new.intermediates.len(),
        trust_bundle: data.trust_bundle(),
        warnings: authority.warnings().to_vec(),
    })
}

/// That the mesh is not of another trust domain: the control plane would not start any more. What
/// else is wrong with the issuing CA before, an import may repair.
fn check_trust_domain(
    data: &DataDirectory,
    trust_domain: &TrustDomain,
) -> Result<(), RootCommandError> {
    match data.read_issuing_authority(trust_domain) {
        Err(KeyStoreError::Authority {
            error: InvalidAuthority::OtherTrustDomain { found, expected },
            ..
        }) => Err(RootCommandError::OtherMesh {
            data_dir: data.path().to_owned(),
            mesh: found,
            imported: expected,
        }),
        _ => Ok(()),
    }
}

fn read_roots(path: &Path, trust_domain: &TrustDomain) -> Result<TrustBundle, KeyStoreError> {
    let text = read_named(path)?;
    TrustBundle::from_pem(trust_domain.clone(), &text).map_err(|error| {
        let path = path.to_owned();
        KeyStoreError::TrustBundle { path, error }
    })
}

fn roots(
    trust_domain: &TrustDomain,
    added: Option<TrustBundle>,
    data: &DataDirectory,
) -> Result<TrustBundle, RootCommandError> {
    let mut authorities = match data.read_trust_bundle(trust_domain) {
        Ok(bundle) => bundle.authorities().to_vec(),
        Err(error) if error.is_not_found() && added.is_some() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    authorities.extend(added.iter().flat_map(TrustBundle::authorities).cloned());
    Ok(TrustBundle::new(trust_domain.clone(), authorities)?)
}
