//! Which rejections the log was told of: a client may reject as often as it may ask.

use std::{collections::VecDeque, mem};

use super::{NamedVersion, Rejection};

/// More than one caller has secrets; an older one that is rejected again is told again.
const REMEMBERED: usize = 64;

/// The rejections of one stream.
#[derive(Debug, Default)]
pub struct ToldRejections {
    secrets: VecDeque<NamedVersion>,
    /// Of a response without any secret: one that only removes.
    of_nothing: bool,
}

impl ToldRejections {
    /// Whether the log has not heard of one of these secrets, in this version, on this stream. The
    /// client's words do not count: it can find others each time.
    pub fn is_new(&mut self, rejection: &Rejection) -> bool {
        if rejection.secrets.is_empty() {
            return !mem::replace(&mut self.of_nothing, true);
        }
        let mut new = false;
        for secret in &rejection.secrets {
            if self.secrets.contains(secret) {
                continue;
            }
            new = true;
            if self.secrets.len() >= REMEMBERED {
                self.secrets.pop_front();
            }
            self.secrets.push_back(secret.clone());
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(secrets: &[(&str, &str)], message: &str) -> Rejection {
        let secrets = secrets.iter().map(|(name, version)| NamedVersion {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
        });
        Rejection {
            secrets: secrets.collect(),
            message: message.to_owned(),
        }
    }

    /// SDS-S14
    #[test]
    fn tells_of_each_version_once_whatever_the_client_says_of_it() {
        let mut told = ToldRejections::default();
        assert!(told.is_new(&rejection(&[("default", "1")], "no")));
        for number in 0..45 {
            let again = rejection(&[("default", "1")], &format!("no {number}"));
            assert!(!told.is_new(&again));
        }
        assert!(told.is_new(&rejection(&[("default", "1"), ("ROOTCA", "1")], "no")));
        assert!(!told.is_new(&rejection(&[("ROOTCA", "1")], "no")));
        assert!(told.is_new(&rejection(&[("default", "2")], "no")));
        assert!(told.is_new(&rejection(&[], "no")) && !told.is_new(&rejection(&[], "never")));
    }

    #[test]
    fn remembers_no_more_than_its_bound() {
        let mut told = ToldRejections::default();
        for number in 0..10 * REMEMBERED {
            assert!(told.is_new(&rejection(&[("default", &number.to_string())], "no")));
            assert!(told.secrets.len() <= REMEMBERED);
        }
        assert!(told.is_new(&rejection(&[("default", "0")], "no")));
    }
}
