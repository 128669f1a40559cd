//! The trust bundle that the sidecar was given: what it believes before anybody told it more.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use mesh_lite_proto::trust_bundle::{InvalidTrustBundle, TrustBundle};
use spiffe::TrustDomain;

/// 64 authorities of 2 KiB, three times over.
const MAX_FILE: u64 = 512 * 1024;

/// # Errors
/// If the file can't be read, or holds no trust bundle.
pub fn read(path: &Path, trust_domain: &TrustDomain) -> Result<TrustBundle, TrustBundleFileError> {
    let unreadable = |source| TrustBundleFileError::Read {
        path: path.to_owned(),
        source,
    };
    let mut pem = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE.saturating_add(1)).read_to_end(&mut pem))
        .map_err(unreadable)?;
    if u64::try_from(pem.len()).is_ok_and(|length| length > MAX_FILE) {
        return Err(TrustBundleFileError::TooLarge {
            path: path.to_owned(),
        });
    }
    TrustBundle::from_pem(trust_domain.clone(), &pem).map_err(|reason| {
        TrustBundleFileError::Content {
            path: path.to_owned(),
            reason,
        }
    })
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustBundleFileError {
    #[error("the trust bundle {} can't be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the trust bundle {} has more than {MAX_FILE} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("the trust bundle {} can't be used: {reason}", path.display())]
    Content {
        path: PathBuf,
        reason: InvalidTrustBundle,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &[u8]) -> Result<TrustBundle, TrustBundleFileError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bundle.pem");
        std::fs::write(&path, text).unwrap();
        read(&path, &"a.test".parse().unwrap())
    }

    #[test]
    fn names_the_file_that_is_not_there() {
        let error = read(Path::new("/nowhere/bundle.pem"), &"a.test".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("/nowhere/bundle.pem"), "{error}");
    }

    #[test]
    fn refuses_an_empty_file_garbage_and_endless_ones() {
        assert!(matches!(
            read_text(b""),
            Err(TrustBundleFileError::Content { .. })
        ));
        assert!(matches!(
            read_text(b"\xff\xfe no PEM"),
            Err(TrustBundleFileError::Content { .. })
        ));
        let endless = vec![b'x'; 600 * 1024];
        assert!(matches!(
            read_text(&endless),
            Err(TrustBundleFileError::TooLarge { .. })
        ));
    }
}
