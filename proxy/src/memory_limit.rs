//! How much memory the process may have: its cgroup's limit.

use std::fs;

/// Bytes, or `None` if there is no limit, or no cgroup to say so.
pub fn read() -> Option<u64> {
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = membership
        .lines()
        .find_map(|line| line.strip_prefix("0::"))?;
    // in a container's own cgroup namespace this is "/"
    let path = format!("/sys/fs/cgroup{}/memory.max", group.trim_end_matches('/'));
    parse(&fs::read_to_string(path).ok()?)
}

fn parse(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn max_means_no_limit() {
        assert_eq!(parse("max\n"), None);
        assert_eq!(parse("268435456\n"), Some(256 << 20));
        assert_eq!(parse(""), None);
    }
}
