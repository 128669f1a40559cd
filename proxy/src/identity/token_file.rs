//! The file by which a workload proves who it is. Read anew each time: the kubelet replaces a
//! service-account token long before its end, and a person a join token that was used up.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

/// A join token has under 100 bytes, a projected service-account token about 1,500.
const MAX_TOKEN: u64 = 16 * 1024;
/// A file answers at once; a pipe without a writer never does.
const READ_TOKEN: Duration = Duration::from_secs(5);

/// What proves a workload, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenFile {
    /// Proves it once; the certificate does from then on.
    Join(PathBuf),
    /// A pod's, which Kubernetes makes and renews: proves it each time that it asks for a
    /// certificate or opens a stream.
    ServiceAccount(PathBuf),
}

impl TokenFile {
    pub fn path(&self) -> &Path {
        match self {
            Self::Join(path) | Self::ServiceAccount(path) => path,
        }
    }
}

/// The file's content as a request shows it, hidden from logs.
///
/// # Errors
/// If there is no token in it.
pub(crate) async fn bearer(path: &Path) -> Result<MetadataValue<Ascii>, UnusableToken> {
    let token = token_of(path.to_owned()).await?;
    let bearer = Zeroizing::new(format!("Bearer {}", token.as_str()));
    let mut bearer = MetadataValue::try_from(bearer.as_str())
        .map_err(|_| UnusableToken::Text(path.to_owned()))?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

/// Off the runtime: the file may be a pipe that nobody writes to.
async fn token_of(path: PathBuf) -> Result<Zeroizing<String>, UnusableToken> {
    let file = path.clone();
    let reading = tokio::task::spawn_blocking(move || read_token(&file));
    match tokio::time::timeout(READ_TOKEN, reading).await {
        Ok(Ok(token)) => token,
        _ => Err(UnusableToken::Text(path)),
    }
}

fn read_token(path: &Path) -> Result<Zeroizing<String>, UnusableToken> {
    use io::Read as _;
    let unreadable = |source| UnusableToken::File {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // room for all of it at once: growing would leave copies of the token behind
    let room = usize::try_from(MAX_TOKEN).unwrap_or_default();
    let mut text = Zeroizing::new(String::with_capacity(room.saturating_add(2)));
    file.take(MAX_TOKEN.saturating_add(1))
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    let token = text.trim();
    let fits = u64::try_from(token.len()).is_ok_and(|length| length <= MAX_TOKEN);
    if token.is_empty() || !fits || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(UnusableToken::Text(path.to_owned()));
    }
    Ok(Zeroizing::new(token.to_owned()))
}

#[derive(Debug, thiserror::Error)]
pub enum UnusableToken {
    #[error("the token file {} can't be read: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "the token file {} holds no token: one line of visible characters, at most {MAX_TOKEN} bytes",
        _0.display()
    )]
    Text(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(content: &[u8]) -> Result<String, UnusableToken> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, content).unwrap();
        read_token(&path).map(|token| token.as_str().to_owned())
    }

    #[test]
    fn a_token_is_the_one_word_of_its_file() {
        assert_eq!(token(b"abc.def-123\n").unwrap(), "abc.def-123");
    }

    #[test]
    fn a_file_without_one_word_is_no_token() {
        for content in [
            &b""[..],
            b"\n",
            b"two words",
            b"line\nline",
            b"tab\there",
            b"\x00",
        ] {
            assert!(
                matches!(token(content), Err(UnusableToken::Text(_))),
                "{content:?}"
            );
        }
        assert!(matches!(
            token(&[b'x'; 20_000]),
            Err(UnusableToken::Text(_))
        ));
        assert!(matches!(
            token(b"\xff\xfe"),
            Err(UnusableToken::File { .. })
        ));
        let missing = read_token(Path::new("/nowhere/token"))
            .unwrap_err()
            .to_string();
        assert!(missing.contains("/nowhere/token"), "{missing}");
    }

    #[tokio::test]
    async fn a_token_is_hidden_from_logs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "secret-token\n").unwrap();
        let bearer = bearer(&path).await.unwrap();
        assert_eq!(bearer, "Bearer secret-token");
        assert!(!format!("{bearer:?}").contains("secret"));
    }
}
